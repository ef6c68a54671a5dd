from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "sessions_app"

    def ready(self):
        from django.db.models.signals import post_migrate

        from auditweb.dumps import sinks
        from sessions_app import fulltext
        from sessions_app.ingest import SessionSink

        post_migrate.connect(fulltext.after_migrate, sender=self, dispatch_uid="fulltext")

        sinks.register(SessionSink())
