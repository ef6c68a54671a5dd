"""What all resources of the API share: finding an object, raw bodies, answers as JSON or as a stream of bytes."""

import re
from collections.abc import Generator, Iterable, Iterator

import msgspec
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.views import APIView

from auditweb.errors import ApiError
from auditweb.pages import Page, Params
from auditweb.teams.access import MayRead

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
    content_negotiation_class = OneAnswer

    @property
    def params(self) -> Params:
        return Params(self.request.query_params)


def found(queryset, public_id: str):
    """The object with this public id. A missing, a foreign and an impossible id are the same Http404."""
    one = queryset.filter(public_id=public_id).first() if _PUBLIC_ID.fullmatch(public_id) else None
    if one is None:
        raise Http404
    return one


def json_answer(content, status: int = 200) -> HttpResponse:
    """*content* (may hold msgspec.Raw) or JSON bytes as an answer, past DRF's renderer (4 x its speed)."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return HttpResponse(body, status=status, content_type="application/json")


def page_answer(page: Page, items: list[dict], **more) -> HttpResponse:
    """``{items, next, prev}``: the cursors are null where there is no such page."""
    return json_answer({"items": items, "next": page.next, "prev": page.prev, **more})


def body(request, limit: int) -> bytes:
    """The bytes of a request as they came, whatever they are said to be. Raises ApiError 413 over *limit* bytes."""
    declared = request.META.get("CONTENT_LENGTH") or ""
    too_large = declared.isdecimal() and len(declared) < 20 and int(declared) > limit
    data = b"" if too_large else request._request.read(limit + 1)
    if too_large or len(data) > limit:
        raise ApiError(413, "too_large", f"One request takes {limit:,} bytes.", {"limit": limit})
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


def parameters(**described: str) -> list[OpenApiParameter]:
    """Query parameters for the schema: name → what it does; a text that begins with "int: " or "bool: " is one."""
    kinds = {"int": OpenApiTypes.INT, "bool": OpenApiTypes.BOOL, "time": OpenApiTypes.DATETIME}
    made = []
    for name, text in described.items():
        kind, _, rest = text.partition(": ")
        known = kinds.get(kind)
        made.append(OpenApiParameter(name.rstrip("_"), known or OpenApiTypes.STR, description=rest if known else text))
    return made


PAGING = parameters(
    cursor="`next` or `prev` of another page", limit="int: rows, 1 to 200 (50)", sort="a name; - in front: descending"
)
TEAM = parameters(team="short name or id of a team, for callers who are in several")


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
    fields = {"items": item(many=True), "next": cursor(), "prev": cursor(), "__module__": item.__module__}
    return type(f"{item.__name__}Page", (serializers.Serializer,), fields)
