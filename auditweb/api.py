"""What all resources of the API share: finding an object, raw bodies, answers as JSON or as a stream of bytes."""

import re
from collections.abc import Generator, Iterable, Iterator

import msgspec
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.views import APIView

from auditweb import throttles
from auditweb.errors import ApiError, NotThere
from auditweb.pages import Page, Params
from auditweb.teams import callback
from auditweb.teams.access import MayIngest, MayRead

PIECE = 128 * 2**10  # bytes; every piece of a stream costs a change of threads (0.1 ms)
_PUBLIC_ID = re.compile(r"[0-9A-Za-z]{22}")


class OneAnswer(BaseContentNegotiation):
    """Every resource has one form: nobody is refused (406) for the ``Accept`` that a tool happens to send."""

    def select_parser(self, request, parsers):
        return next((parser for parser in parsers if parser.media_type == _media_type(request)), None)

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type


def _media_type(request) -> str:
    return (request.content_type or "").partition(";")[0].strip().lower()


class ApiView(APIView):
    """A resource that people of any role and keys with the scope ``read`` may ask for."""

    permission_classes = [MayRead]
    throttle_classes = [throttles.ByKind]
    content_negotiation_class = OneAnswer

    def perform_authentication(self, request):
        super().perform_authentication(request)
        if any(isinstance(permission, MayIngest) for permission in self.get_permissions()):
            callback.check(request)

    @property
    def params(self) -> Params:
        return Params(self.request.query_params)


def found(queryset, public_id: str, code: str = "not_found"):
    """The object with this public id. A missing, a foreign and an impossible id are the same NotThere with *code*."""
    one = queryset.filter(public_id=public_id).first() if _PUBLIC_ID.fullmatch(public_id) else None
    if one is None:
        raise NotThere(code)
    return one


def json_answer(content, status: int = 200) -> HttpResponse:
    """*content* (may hold msgspec.Raw) or JSON bytes as an answer, past DRF's renderer (4 x its speed)."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return HttpResponse(body, status=status, content_type="application/json")


def page_answer(page: Page, items: list[dict], **more) -> HttpResponse:
    """``{items, next, prev}``: the cursors are null where there is no such page."""
    return json_answer({"items": items, "next": page.next, "prev": page.prev, **more})


def body(request, limit: int) -> bytes:
    """The bytes of a request as they came, whatever they are said to be.

    Raises ApiError 413 over *limit* bytes, and 429 when the caller has sent its share of this minute.
    """
    declared = request.META.get("CONTENT_LENGTH") or ""
    too_large = declared.isdecimal() and len(declared) < 20 and int(declared) > limit
    data = b"" if too_large else request._request.read(limit + 1)
    if too_large or len(data) > limit:
        raise ApiError(413, "too_large", f"One request takes {limit:,} bytes.", {"limit": limit})
    throttles.spend(request, "ingest_bytes", len(data))
    return data


def stream(
    request, pieces: Iterable[bytes], content_type: str, name: str | None = None, status: int = 200, headers=None
) -> StreamingHttpResponse:
    """*pieces* as an answer that is never whole in memory; with *name* as a download.

    The content is somebody's data: a browser that opens it after all runs nothing in it.
    """
    gathered = _gathered(() if request.method == "HEAD" else pieces)
    asgi = isinstance(request._request, ASGIRequest)
    # An ASGI server given a plain iterator reads all of it before it sends the first byte.
    response = StreamingHttpResponse(
        _hopping(gathered) if asgi else gathered, status=status, content_type=content_type, headers=headers
    )
    if asgi:
        # When the reader goes away, what the pieces hold (a cursor) is given back here, in the thread that it belongs
        # to; left to the garbage collector, another thread would do it and could wait for ever.
        response._resource_closers.append(gathered.close)  # type: ignore[attr-defined]
    if name is not None:
        response.headers["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _gathered(pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _hopping(pieces: Iterator[bytes]):
    def following() -> bytes | None:
        try:
            return next(pieces, None)
        finally:
            # The next piece is wanted when the reader has taken this one. Ten slow readers would hold the whole pool.
            if connection.vendor == "postgresql" and not connection.in_atomic_block:
                connection.close()

    take = sync_to_async(following)
    while (piece := await take()) is not None:
        yield piece


def parameters(**described: str | tuple[Iterable[str], str]) -> list[OpenApiParameter]:
    """Query parameters for the schema: name → what it does, or (the words that it takes, what it does).

    A text that begins with "int: ", "bool: " or "many: " (may be repeated) says its type.
    """
    types = {"int": OpenApiTypes.INT, "bool": OpenApiTypes.BOOL}
    made = []
    for name, told in described.items():
        words, text = (None, told) if isinstance(told, str) else told
        kind, _, rest = text.partition(": ")
        typed = kind in types or kind == "many"
        made.append(
            OpenApiParameter(
                name.rstrip("_"),
                types.get(kind, OpenApiTypes.STR),
                description=rest if typed else text,
                enum=list(words) if words else None,
                many=kind == "many",
            )
        )
    return made


def sorting(names: Iterable[str]) -> list[OpenApiParameter]:
    """The parameter ``sort`` of a list that can be sorted by *names*."""
    both = [sign + name for name in names for sign in ("", "-")]
    return parameters(sort=(both, "by which value; - in front: descending"))


def common_answers(result, generator, request, public):
    """The schema with the answers that any operation may give; called by drf-spectacular when it has made the rest."""
    for path in result["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                typed = parameter["schema"]["type"] in ("integer", "boolean") or "enum" in parameter["schema"]
                if parameter["in"] == "query" and typed:
                    parameter["allowEmptyValue"] = True  # as a form sends it; the same as not given
            for status, why in _COMMON.items():
                if status != "415" or "requestBody" in operation:
                    answer = operation["responses"].setdefault(status, _refusal(status, why))
                    answer["description"] = answer["description"] or why
    return result


def _refusal(status: str, why: str) -> dict:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    seconds = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return {"description": why, "content": error, **({"headers": seconds} if status in ("429", "503", "507") else {})}


_COMMON = {
    "400": "a parameter or body that makes no sense",
    "401": "no key, or one that is unknown, expired or revoked; or nobody is signed in",
    "403": "not with this role, or not with this key: `missing_scope` names the scope",
    "404": "missing, or not yours",
    "415": "a body of another type",
    "429": "`rate_limited`: too much in this minute",
    "503": "the database or the server is busy",
    "507": "the disk of the server is full",
}
PAGING = parameters(cursor="`next` or `prev` of another page", limit="int: rows, 1 to 200 (50)")
TEAM = parameters(team="short name or id of a team, for callers who are in several")


class Text(serializers.CharField):
    """A string of JSON; a number in its place is refused instead of spelled out."""

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Number(serializers.IntegerField):
    """A whole number of JSON; digits in quotation marks and fractions are refused."""

    def to_internal_value(self, data):
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """``true`` or ``false`` of JSON; words and numbers that could mean them are refused."""

    def to_internal_value(self, data):
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class ErrorBody(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    detail = serializers.JSONField(allow_null=True)


class Error(serializers.Serializer):
    """How every refusal looks."""

    error = ErrorBody()


def page_of(item: type[serializers.Serializer]) -> type[serializers.Serializer]:
    """The serializer of a page of *item*."""
    cursor = lambda: serializers.CharField(allow_null=True)  # noqa: E731
    total = serializers.IntegerField(required=False, help_text="of all pages, where the list counts them")
    fields: dict = {"items": item(many=True), "next": cursor(), "prev": cursor(), "total": total}
    fields["__module__"] = item.__module__
    return type(f"{item.__name__}Page", (serializers.Serializer,), fields)
