"""What auditweb refuses to start with: settings that would show dumps or passwords to strangers."""

import ipaddress
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import Error, Warning, register
from django.http.request import validate_host

MIN_SECRET = 32  # characters


def is_local(host: str) -> bool:
    """True for a name or address that only this machine reaches."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@register()
def hosts(app_configs, **kwargs):
    """Whom the server answers: never everybody, and nobody but this machine while DEBUG shows tracebacks."""
    found = []
    if any(host.strip() in ("*", ".") for host in settings.ALLOWED_HOSTS):
        found.append(
            Error(
                "ALLOWED_HOSTS must not contain '*'.",
                hint="Name the hosts that people type: ALLOWED_HOSTS=audit.example.org,127.0.0.1",
                id="auditweb.E001",
            )
        )
    public = [host for host in settings.ALLOWED_HOSTS if not is_local(host.lstrip("."))]
    if settings.PUBLIC_URL and not is_local(urlsplit(settings.PUBLIC_URL).hostname or ""):
        public.append(settings.PUBLIC_URL)
    if settings.DEBUG and public:
        found.append(
            Error(
                f"AUDITWEB_DEBUG is on while the server answers to {', '.join(sorted(set(public)))}.",
                hint="Error pages would show settings and dumps to strangers. Unset AUDITWEB_DEBUG.",
                id="auditweb.E002",
            )
        )
    return found


@register()
def secret(app_configs, **kwargs):
    """The key that signs sessions and sign-in links must be unguessable."""
    key = settings.SECRET_KEY
    if len(key) < MIN_SECRET or len(set(key)) < 8 or key.startswith("django-insecure-"):
        return [
            Error(
                f"SECRET_KEY is too weak: it needs at least {MIN_SECRET} random characters.",
                hint="Unset it, and a good one is made in the data directory.",
                id="auditweb.E003",
            )
        ]
    return []


@register()
def public_url(app_configs, **kwargs):
    """The public address: an origin, encrypted unless it is this machine, and one the server answers to."""
    if not settings.PUBLIC_URL:
        return []
    try:
        parts = urlsplit(settings.PUBLIC_URL)
        host, _ = parts.hostname or "", parts.port
        origin = parts.scheme in ("http", "https") and bool(host) and not (parts.path or parts.query or parts.fragment)
    except ValueError:
        origin = False
    if not origin or parts.username is not None:
        return [
            Error(
                f"PUBLIC_URL is not an origin: {settings.PUBLIC_URL!r}.",
                hint="Scheme, host and port only: PUBLIC_URL=https://audit.example.org",
                id="auditweb.E004",
            )
        ]
    found = []
    if parts.scheme == "http" and not is_local(host):
        found.append(
            Error(
                "PUBLIC_URL is http://: sign-in cookies would cross the network readable.",
                hint="Put a proxy with TLS in front and set PUBLIC_URL to its https:// address.",
                id="auditweb.E005",
            )
        )
    if not validate_host(f"[{host}]" if ":" in host else host, settings.ALLOWED_HOSTS):
        found.append(
            Error(
                f"PUBLIC_URL names {host}, which is not in ALLOWED_HOSTS: every page would be refused.",
                hint=f"ALLOWED_HOSTS={host},127.0.0.1",
                id="auditweb.E006",
            )
        )
    return found


@register()
def auth_callback(app_configs, **kwargs):
    """The operator's own check must be there: without it nobody could send anything."""
    from auditweb.teams import callback

    if settings.AUTH_CALLBACK:
        try:
            callback.named(settings.AUTH_CALLBACK)
        except ValueError as e:
            hint = "package.module:function, an async function that this Python can import."
            return [Error(str(e), hint=hint, id="auditweb.E007")]
    return []


@register()
def data_directory(app_configs, **kwargs):
    """The data directory holds dumps and the secret key: nobody else on the machine should read it."""
    found = []
    for path in (settings.DATA_DIR, settings.DATA_DIR / "secret_key"):
        if path.exists() and path.stat().st_mode & 0o077:
            found.append(
                Warning(f"{path} is open to other users of this machine.", hint=f"chmod go= {path}", id="auditweb.W001")
            )
    return found
