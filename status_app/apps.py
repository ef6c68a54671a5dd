from django.apps import AppConfig


class StatusConfig(AppConfig):
    name = "status_app"

    def ready(self):
        from auditweb.dumps import sinks
        from status_app.ingest import StatusSink

        sinks.register(StatusSink())
