"""Which path goes to which app. No logic."""

from django.urls import include, path

from auditweb import client_wheel, health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("clients/", client_wheel.index, name="client-index"),
    path(f"clients/{client_wheel.NAME}", client_wheel.wheel, name="client-wheel"),
    path("accounts/", include("auditweb.teams.account_urls")),
    path("api/v1/", include("auditweb.api_urls")),
    path("", include("auditweb.teams.urls")),
    path("dumps/", include("auditweb.dumps.urls")),
    path("status/", include("status_app.urls")),
    path("", include("sessions_app.urls")),
]

handler400 = "auditweb.errors.bad_request"
handler403 = "auditweb.errors.forbidden"
handler404 = "auditweb.errors.not_found"
handler500 = "auditweb.errors.server_error"
