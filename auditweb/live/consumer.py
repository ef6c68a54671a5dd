"""The socket of a log: who may open it, what it hears from the client."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from auditweb.live.hub import Head, Reader, hub
from auditweb.live.socket import MALFORMED, NOT_FOUND, POLICY, REVOKED, SIGNED_OUT, TRY_LATER, Refused, Socket

MAX_SEQ = 2**32


class _Said(msgspec.Struct):
    ack: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] | None = None


_hear = msgspec.json.Decoder(_Said).decode


class _Models:
    """The logs of one model as a Source: heads by one query, rows by the consumer's function."""

    def __init__(self, consumer: "type[LogConsumer]"):
        self.kind, self.rows = consumer.model._meta.model_name, consumer.rows
        self._model, self._fields, self._state = consumer.model, tuple(consumer.state_fields), consumer.state

    def heads(self, ids: Sequence[int]) -> dict[int, Head]:
        return dict(self.of(self._model._default_manager.filter(pk__in=ids)))

    def of(self, queryset):
        """(primary key, Head) of each log in *queryset*."""
        for pk, last_seq, revision, *values in queryset.values_list("pk", "last_seq", "revision", *self._fields):
            yield pk, Head(last_seq, revision, self._state(*values) if self._fields else None)


class LogConsumer(Socket):
    """``…/<public_id>/?after=<seq>``: a log from there on, for whoever may see it, as long as they may.

    A subclass says which ``model`` (a Log with ``public_id`` whose manager has ``visible_to``), which of its fields
    (``state_fields``) tell its ``state``, and brings two functions that block: ``rows(pk, after, limit)``, called once
    for all readers, and ``still_signed_in(scope)``.
    """

    model: Any
    state_fields: Sequence[str] = ()
    rows: Callable[[int, int, int], list[dict]]
    still_signed_in: Callable[[dict], bool]
    reader: Reader | None = None

    @staticmethod
    def state(*values) -> dict:
        """What watchers are told of the log besides its entries, from the values of ``state_fields``."""
        return {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.source = _Models(cls)

    async def talk(self) -> None:
        self.reader = await self._join()
        await self.together(self.reader.run(), self._listen(self.reader))

    def left(self) -> None:
        if self.reader is not None:
            self.reader.leave()

    async def _join(self) -> Reader:
        after = self.asked("after") or "0"
        if not (after.isascii() and after.isdigit() and len(after) <= 10 and int(after) <= MAX_SEQ):
            raise Refused(MALFORMED)
        joined = hub()
        try:
            pk, head = await joined.ask(self._admit)
        except Refused:
            raise
        except Exception as e:
            joined.trouble(e)
            raise Refused(TRY_LATER) from e
        return joined.join(
            self.source,
            pk,
            head,
            int(after),
            self.send_text,
            who=(self.source.kind, pk, self.identity),
            standing=lambda: self._standing(pk),
            write=(self.scope.get("extensions") or {}).get("auditweb.write"),
            name=self.scope["user"].get_username() if self.scope["auth"] is None else "",
        )

    def _admit(self) -> tuple[int, Head]:
        if not self.scope["user"].is_authenticated or not self.still_signed_in(self.scope):
            raise Refused(SIGNED_OUT)
        if (key := self.scope["auth"]) is not None and not key.has_scope("read"):
            raise Refused(REVOKED)
        found = next(self.source.of(self._visible()), None)
        if found is None:
            raise Refused(NOT_FOUND)
        return found

    def _standing(self, pk: int) -> int:
        if self.still_signed_in(self.scope) and self._visible().exists():
            return 0
        return REVOKED if self.model.objects.filter(pk=pk).exists() else NOT_FOUND

    def _visible(self):
        public_id = self.scope["url_route"]["kwargs"]["public_id"]
        return self.model.objects.visible_to(self.scope["user"]).filter(public_id=public_id)

    async def _listen(self, reader: Reader) -> None:
        async for raw in self.messages():
            try:
                said = _hear(raw)
            except (ValueError, RecursionError) as e:
                raise Refused(POLICY) from e
            if said.ack is not None:
                reader.ack(said.ack)
