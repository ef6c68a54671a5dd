"""Settings: one file, no copies per environment.

Bare defaults serve from SQLite with no other server; ``DATABASE_URL`` and ``REDIS_URL`` scale out.
The table of all variables with defaults and units is in the README.
"""

import errno
import os
import secrets
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()


def _number(name: str, default: float, least: float = 1) -> Any:
    """The number in the variable *name*, of the type of *default*; an empty one counts as not set."""
    text = os.environ.get(name, "").strip()
    try:
        value = type(default)(text) if text else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number, not {text!r}.") from None
    if not value >= least:
        raise ImproperlyConfigured(f"{name} must be at least {least:g}, not {text}.")
    return value


ENVIRONMENT_TZ = os.environ.get("TZ", "")  # Django sets TZ to TIME_ZONE when it starts; exports print the reader's own

BASE_DIR = Path(__file__).resolve().parent.parent
# An installed wheel carries templates and static files inside the package; a checkout has them beside it.
FILES_DIR = BASE_DIR if (BASE_DIR / "manage.py").exists() else BASE_DIR / "auditweb"
DATA_DIR = Path(env.str("AUDITWEB_DATA", default="") or (BASE_DIR if FILES_DIR == BASE_DIR else Path.cwd()) / "data")
DATA_DIR = DATA_DIR.resolve()


def _secret_key() -> str:
    """The key in the data directory, made on the first start; two first starts at once agree on one."""
    path = DATA_DIR / "secret_key"
    if not path.exists():
        draft = DATA_DIR / f"secret_key.{os.getpid()}.{secrets.token_hex(4)}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


try:
    DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _name in ("broker/messages", "broker/processed", "broker/control", "static"):
        (DATA_DIR / _name).mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(DATA_DIR, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    SECRET_KEY = env.str("SECRET_KEY", default="") or _secret_key()
except OSError as e:
    raise ImproperlyConfigured(
        f"the data directory {DATA_DIR} cannot be used: {e.strerror}. "
        "AUDITWEB_DATA names one that this account may write to."
    ) from e
DEBUG = env.bool("AUDITWEB_DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
# The address people type when a proxy stands in front (https://audit.example.org): the origin of forms and sockets.
PUBLIC_URL = env.str("PUBLIC_URL", default="").rstrip("/")
HTTPS = PUBLIC_URL.startswith("https://")

INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "allauth",
    "allauth.account",
    "knox",
    "csp",
    "auditweb",
    "auditweb.teams",
    "auditweb.dumps",
    "status_app",
    "sessions_app",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "auditweb.headers.SecurityHeaders",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "auditweb.health.Common",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "auditweb.teams.timeout.Timeouts",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "auditweb.urls"
ASGI_APPLICATION = "auditweb.asgi.application"
AUTH_USER_MODEL = "teams.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [FILES_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "auditweb.teams.context.teams",
            ]
        },
    }
]

# --- database ---------------------------------------------------------------------------------------------------

DATABASE_URL = env.str("DATABASE_URL", default="")
if DATABASE_URL:
    if not DATABASE_URL.startswith(("postgres://", "postgresql://")):
        raise ImproperlyConfigured(
            "DATABASE_URL must be postgres://user:password@host:5432/name; without it SQLite is used."
        )
    DATABASES = {"default": env.db_url_config(DATABASE_URL)}
    # Under ASGI a kept connection per thread is never given back; psycopg's pool is (3 x the requests, no 500s).
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["OPTIONS"] = {
        "pool": {
            "min_size": 1,
            "max_size": _number("AUDITWEB_DB_POOL", 10),
            "timeout": 10,
        },
        "connect_timeout": 5,
        # A process that freezes inside a transaction gives back its locks, and its work to others.
        "options": "-c idle_in_transaction_session_timeout=30s",
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "auditweb.sqlite3",
            "OPTIONS": {
                # DEFERRED transactions that read before they write fail at once under load (SQLITE_BUSY_SNAPSHOT).
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                # FULL: what was answered with 2xx survives a power cut.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32000",
            },
        }
    }
SQLITE = DATABASES["default"]["ENGINE"].endswith("sqlite3")

# --- Redis, channel layer, Celery -------------------------------------------------------------------------------

REDIS_URL = env.str("REDIS_URL", default="")
if REDIS_URL and not REDIS_URL.startswith(("redis://", "rediss://", "unix://")):
    raise ImproperlyConfigured("REDIS_URL must be redis://host:6379/0; without it no Redis is used.")
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any]
if REDIS_URL:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 5, "socket_connect_timeout": 1}]},
        }
    }
    CACHES = {
        "default": {
            "BACKEND": "auditweb.outage.Cache",
            "LOCATION": REDIS_URL,
            "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
        }
    }
    CELERY_BROKER_URL = REDIS_URL
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "socket_timeout": 0.5,  # who sends to a frozen Redis waits up to three times so long; by default over a minute
        "socket_connect_timeout": 1,
        "visibility_timeout": 3600,
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    _broker = DATA_DIR / "broker"
    CELERY_BROKER_URL = "files://"  # auditweb/broker.py
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_broker / "messages"),
        "data_folder_out": str(_broker / "messages"),
        "processed_folder": str(_broker / "processed"),
        "control_folder": str(_broker / "control"),
        "polling_interval": 0.1,  # seconds; the default of 1 s makes every task wait 0.95 s
    }

CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# The job row in the database is the truth, a message only wakes a worker: publishing may fail fast.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "auditweb.dumps.tasks.sweep", "schedule": 3.0, "options": {"expires": 10}},
    "order": {"task": "sessions_app.tasks.bring_in_order", "schedule": 5.0, "options": {"expires": 10}},
}

# --- limits (RELIABILITY: published, always 413 / 429 / 507 with the number) ---------------------------------------

MAX_LINE_BYTES = _number("AUDITWEB_MAX_LINE_BYTES", 8 * 2**20)
MAX_SLICE_BYTES = _number("AUDITWEB_MAX_SLICE_BYTES", 8 * 2**20)
MAX_DUMP_BYTES = _number("AUDITWEB_MAX_DUMP_BYTES", 2 * 2**30)
MAX_UNPACKED_BYTES = _number("AUDITWEB_MAX_UNPACKED_BYTES", 2 * 2**30)
MAX_UNPACK_RATIO = _number("AUDITWEB_MAX_UNPACK_RATIO", 100)
LEASE_SECONDS = _number("AUDITWEB_LEASE_SECONDS", 12.0, least=2)
# An upload that got no bytes for this long is forgotten, with those that came.
ABANDONED_SECONDS = _number("AUDITWEB_ABANDONED_SECONDS", 86_400)
MAX_ATTEMPTS = 3  # deaths of a worker at the same line before a dump is given up (poisoned)
MAX_REQUESTS = _number("AUDITWEB_MAX_REQUESTS", 64)  # at once and per process; more get 503 and Retry-After
LIVE_POLL_SECONDS = _number("AUDITWEB_LIVE_POLL_SECONDS", 1.5, least=0.01)
# Whether an empty SQLite database begins with the demo sessions.
DEMO = (env.str("AUDITWEB_DEMO", default="on") or "on").lower() in env.BOOLEAN_TRUE_STRINGS
# What one person or key may do in a minute (auditweb/throttles.py); 0: as much as they like.
RATES = {
    "requests": _number("AUDITWEB_REQUESTS_PER_MINUTE", 12_000, least=0),
    "search": _number("AUDITWEB_SEARCHES_PER_MINUTE", 1200, least=0),
    "export": _number("AUDITWEB_EXPORTS_PER_MINUTE", 1200, least=0),
    "ingest": _number("AUDITWEB_INGESTS_PER_MINUTE", 6000, least=0),
    "stream": _number("AUDITWEB_STREAM_POSTS_PER_MINUTE", 60_000, least=0),
    "ingest_bytes": _number("AUDITWEB_INGEST_BYTES_PER_MINUTE", 8 * 2**30, least=0),
}
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_SLICE_BYTES + 2**16
FILE_UPLOAD_HANDLERS: list[str] = []  # dumps come as raw slices; no page takes multipart files

# --- people ------------------------------------------------------------------------------------------------------

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "session-list"
ACCOUNT_ADAPTER = "auditweb.teams.adapter.Adapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_RATE_LIMITS = {"login_failed": "10/5m/key,30/5m/ip"}

# "package.module:function", asked who may send lines and open sockets (auditweb/teams/callback.py).
AUTH_CALLBACK = env.str("AUDITWEB_AUTH_CALLBACK", default="")

KNOX_TOKEN_MODEL = "teams.ApiKey"
MIGRATION_MODULES = {"knox": None}  # its own table would stay unused, and in the way of emptying the database
REST_KNOX = {"AUTH_HEADER_PREFIX": "Bearer", "TOKEN_TTL": None, "TOKEN_PREFIX": "awk_", "AUTO_REFRESH": False}

SESSION_COOKIE_NAME = "__Host-auditweb" if HTTPS else "auditweb"
CSRF_COOKIE_NAME = "__Host-auditweb-csrf" if HTTPS else "auditweb-csrf"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_AGE = _number("AUDITWEB_SESSION_SECONDS", 7 * 86400)
AUDITWEB_IDLE_SECONDS = _number("AUDITWEB_IDLE_SECONDS", 8 * 3600)
CSRF_FAILURE_VIEW = "auditweb.errors.csrf_failure"
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL else []
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 31536000 if HTTPS else 0
# The proxy turns http:// into https://, and a promise for all names of a domain is for the owner of the domain to make.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
        "object-src": ["'none'"],
    }
}

# --- API ---------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "auditweb.teams.keys.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "auditweb.errors.handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "auditweb",
    "DESCRIPTION": "Sessions of AI agents and voice agents: dumps in, timelines and summaries out.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "auditweb.api.common_answers",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# --- the rest ----------------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [FILES_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # served from the source tree: nothing to collect before the first run
WHITENOISE_AUTOREFRESH = DEBUG

LOG_LEVEL = (env.str("AUDITWEB_LOG_LEVEL", default="") or "INFO").upper()
if LOG_LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR"):
    raise ImproperlyConfigured("AUDITWEB_LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "auditweb.loglines.Formatter", "fmt": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}
    },
    "filters": {"one_line": {"()": "auditweb.outage.OneLine"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.channels.server": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
        "channels_redis.pubsub": {"filters": ["one_line"]},
        "celery": {"level": "WARNING"},
        "celery.beat": {"filters": ["one_line"]},
        "kombu": {"level": "ERROR"},  # the filesystem transport warns of a host name that it does not use
    },
}
