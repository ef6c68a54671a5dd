from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("teams", "0002_guard")]

    operations = [
        migrations.AddField("team", "demo", models.JSONField(blank=True, default=dict, editable=False)),
    ]
