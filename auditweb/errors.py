"""What a failed request is told: a page for people, one JSON shape for programs, never internals."""

import sqlite3
import sys
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, HttpResponse, JsonResponse
from django.template import loader
from django.views.decorators.csrf import requires_csrf_token
from rest_framework import exceptions, status
from rest_framework.views import exception_handler

from auditweb.teams import audit
from auditweb.teams.models import Result

RETRY_AFTER = 5  # seconds; a busy or restarting database is back by then
_SENTENCES = {
    400: ("bad_request", "This request could not be understood."),
    403: ("permission_denied", "You may not do this here."),
    404: ("not_found", "There is nothing here."),
    500: ("server_error", "The server failed. The log of the server says what happened."),
    503: ("unavailable", "The database is busy or away. Try again in a moment."),
    507: ("storage_full", "The disk of the server is full; nothing of this was stored."),
}
# RoomKit raises RoomNotFoundError, and a room's timeline is a session here: its programs look for the same word.
MISSING = {"not_found": _SENTENCES[404][1], "room_not_found": "There is no such session."}


class ApiError(exceptions.APIException):
    """An API error with its own status, code, sentence and machine-readable detail.

    ``raise ApiError(409, "offset", "These bytes come too early.", {"expected": 4096})``; *wait*: the seconds of
    ``Retry-After``.
    """

    def __init__(self, status_code: int, code: str, message: str, detail=None, wait: int | None = None):
        super().__init__(message, code)
        self.status_code = status_code
        self.extra = detail
        self.wait = wait


class NotThere(Http404):
    """A 404 whose *code* says what the address should have led to; one of the keys of ``MISSING``.

    Missing and foreign are the same code and words.
    """

    def __init__(self, code: str = "not_found"):
        super().__init__(MISSING[code])
        self.code = code


def handler(exc, context):
    """Every error of the API as ``{"error": {"code", "message", "detail"}}``; None (→ 500) for what is our own fault.

    ``detail`` is null, or per field the list of what is wrong, or what the error's code promises.
    """
    if isinstance(exc, OperationalError):
        away = 507 if _is_full(exc) else 503
        exc = ApiError(away, *_SENTENCES[away], wait=RETRY_AFTER)
    elif isinstance(exc, BadRequest | SuspiciousOperation):
        exc = ApiError(400, "bad_request", str(exc) or _SENTENCES[400][1])
    response = exception_handler(exc, context)
    if response is None:
        return None
    if response.status_code == 403:
        _denied(context["request"])
    response.data = _body(exc, response)
    return response


def bad_request(request, exception):
    return _page(request, 400, str(exception) if isinstance(exception, BadRequest) else "")


def forbidden(request, exception):
    _denied(request)
    return _page(request, 403, str(exception))


@requires_csrf_token
def csrf_failure(request, reason=""):
    """A form or request without a valid CSRF token; the reason helps nobody but an attacker."""
    return _page(request, 403)


def not_found(request, exception):
    return _page(request, 404)


def server_error(request):
    """500, or 503 when the database was locked or away, 507 when the disk is full: these are worth a retry."""
    error = sys.exc_info()[1]
    if not isinstance(error, OperationalError):
        return _page(request, 500)
    response = _page(request, 507 if _is_full(error) else 503)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _is_full(error: OperationalError) -> bool:
    """Whether the disk of the database is full."""
    cause = error.__cause__
    full = getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return full or getattr(cause, "sqlstate", "") == "53100"


def _body(exc, response) -> dict:
    data = response.data
    code: Any
    if response.status_code == 404:
        # The same words whether it is missing or foreign.
        code = getattr(exc, "code", "not_found")
        message, detail = MISSING[code], None
    elif isinstance(exc, ApiError):
        code, message, detail = exc.get_codes(), str(exc.detail), exc.extra
    elif isinstance(exc, PermissionDenied):
        code, message, detail = "permission_denied", str(exc) or _SENTENCES[403][1], None
    elif isinstance(exc, exceptions.ValidationError):
        code, message, detail = "invalid", _first_sentence(data), data
    else:
        code, message, detail = exc.get_codes(), str(exc.detail), None
    return {"error": {"code": code, "message": message, "detail": detail}}


def _first_sentence(data, field="") -> str:
    while isinstance(data, dict | list) and data:
        if isinstance(data, dict):
            name, data = next(iter(data.items()))
            field = "" if name == "non_field_errors" else str(name)
        else:
            data = data[0]
    return f"{field}: {data}" if field else str(data)


def _page(request, status_code: int, message: str = ""):
    code, sentence = _SENTENCES[status_code]
    if request.path.startswith("/api/"):
        body = {"error": {"code": code, "message": message or sentence, "detail": None}}
        return JsonResponse(body, status=status_code)
    if status_code >= status.HTTP_500_INTERNAL_SERVER_ERROR:
        # Without the request: its context asks the database, which may be what failed.
        return HttpResponse(loader.get_template("500.html").render(), status=status_code)
    context = {"message": message or sentence}
    return HttpResponse(loader.render_to_string(f"{status_code}.html", context, request), status=status_code)


def _denied(request) -> None:
    """Somebody who is signed in tried what they may not: that is worth a record."""
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        audit.record(request, "denied", ("address", "", f"{request.method} {request.path}"), result=Result.DENIED)
