"""Triggers on the audit records; they are put back after every later migrate, too."""

from django.db import migrations

from auditweb.teams import guard


class Migration(migrations.Migration):
    dependencies = [("teams", "0001_initial")]

    operations = [
        migrations.RunPython(
            lambda apps, editor: guard.install(editor.connection), lambda apps, editor: guard.remove(editor.connection)
        )
    ]
