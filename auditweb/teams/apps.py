from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate


class TeamsConfig(AppConfig):
    name = "auditweb.teams"
    label = "teams"

    def ready(self):
        from auditweb.teams import audit, guard, keys, timeout

        audit.connect()
        keys.schema_extension()
        user_logged_in.connect(timeout.begin, dispatch_uid="timeout")
        post_migrate.connect(guard.after_migrate, sender=self, dispatch_uid="guard")
