from django.apps import AppConfig


class DumpsConfig(AppConfig):
    name = "auditweb.dumps"
    label = "dumps"
