"""One start before all others: the database up to date, and the link for the first sign-in."""

from django.conf import settings
from django.core.management.base import BaseCommand

from auditweb import upkeep
from auditweb.teams.links import first_run


class Command(BaseCommand):
    help = "Brings the database up to date, prints the first sign-in link while nobody has ever signed in, and ends."

    def handle(self, **options):
        upkeep.prepare()
        self.stdout.write("The database is up to date.")
        if link := first_run():
            self.stdout.write(f"Sign in for the first time (works once): {settings.PUBLIC_URL}{link}")
