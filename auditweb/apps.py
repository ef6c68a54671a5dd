from django.apps import AppConfig


class AuditwebConfig(AppConfig):
    name = "auditweb"

    def ready(self):
        from auditweb import checks  # noqa: F401  registers them
