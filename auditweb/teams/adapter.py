"""What allauth asks of us: accounts are given out, never taken."""

from allauth.account.adapter import DefaultAccountAdapter
from django.shortcuts import resolve_url

from auditweb.teams import audit


class Adapter(DefaultAccountAdapter):
    """Sign-up is closed; signing in leads to the sessions; addresses are those of the audit log."""

    error_messages = DefaultAccountAdapter.error_messages | dict.fromkeys(
        ("email_password_mismatch", "username_password_mismatch"),
        "This name and this password do not belong together.",
    )

    def is_open_for_signup(self, request):
        return False

    def get_logout_redirect_url(self, request):
        return resolve_url("account_login")

    def get_client_ip(self, request):
        return audit.address(request) or "unknown"  # a key for rate limits: callers without an address share one
