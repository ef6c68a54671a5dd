from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "sessions_app"

    def ready(self):
        from auditweb.dumps import sinks
        from sessions_app.ingest import SessionSink

        sinks.register(SessionSink())
