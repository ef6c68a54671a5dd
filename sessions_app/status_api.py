"""The status log beside a session over HTTP: its posts as columns, and which log that is."""

from django.db import transaction
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from auditweb.api import Error, json_answer, parameters
from auditweb.errors import ApiError
from auditweb.log import SEQ_BITS
from auditweb.teams import access, audit
from sessions_app import status_lane
from sessions_app.api import SessionView
from sessions_app.models import Session
from status_app.models import StatusBus


def _words(help_text: str = "") -> serializers.ListField:
    return serializers.ListField(child=serializers.CharField(allow_blank=True), help_text=help_text)


class PostColumns(serializers.Serializer):
    seq = serializers.ListField(child=serializers.IntegerField(), help_text="in the status log")
    at_ms = serializers.ListField(child=serializers.IntegerField(), help_text="since start")
    agent = _words()
    state = _words("ok, failed, pending, info, completed, or another word")
    action = _words()
    detail = _words(f"at most {status_lane.DETAIL} characters")


class StatusLane(serializers.Serializer):
    """Posts in the time of a session that are no events of its own."""

    bus = serializers.CharField(allow_null=True, help_text="id of the linked status log; null: none is linked")
    title = serializers.CharField()
    start = serializers.DateTimeField(allow_null=True)
    open = serializers.BooleanField(help_text="the session runs: more may come, behind last_seq")
    last_seq = serializers.IntegerField(help_text="of the status log")
    more = serializers.BooleanField(help_text=f"there were more than {status_lane.MOST:,}: these are the last ones")
    columns = PostColumns()


class Link(serializers.Serializer):
    """Which status log is shown beside a session."""

    bus = serializers.CharField(
        allow_null=True, max_length=200, help_text="id or name; null: only what the session's own dumps post"
    )


@extend_schema_view(
    get=extend_schema(
        operation_id="sessions_status",
        parameters=parameters(after="int: posts behind this seq of the status log"),
        responses={200: StatusLane, 400: Error, 404: Error},
    ),
    patch=extend_schema(operation_id="sessions_status_link", request=Link, responses={200: StatusLane, 404: Error}),
)
class SessionStatus(SessionView):
    def get_permissions(self):
        return [access.MayReview() if self.request.method == "PATCH" else access.MayRead()]

    def get(self, request, id):
        """What agents posted to the linked status log while the session ran, as columns for a lane."""
        after = self.params.integer("after", 0, 0, (1 << SEQ_BITS) - 1) or 0
        return json_answer(status_lane.columns(self.session(id), after))

    def patch(self, request, id):
        """Link a status log to a session: its posts are shown beside it."""
        session = self.session(id)
        access.require(request, session.team, "review")
        told = Link(data=request.data)
        told.is_valid(raise_exception=True)
        link(request, session, told.validated_data["bus"])
        return json_answer(status_lane.columns(self.session(id)))


def link(request, session: Session, word: str | None) -> None:
    """Link the log of the session's team with the id or name *word* (None, "": none) and note who did.

    Raises ApiError 400 when there is no such log.
    """
    bus = StatusBus.objects.filter(team=session.team).called(word).first() if word else None
    if word and bus is None:
        raise ApiError(400, "invalid", "bus: there is no such status log.", {"bus": ["There is no such status log."]})
    with transaction.atomic():
        status_lane.link(session, bus)
        audit.record(request, "link", session, status_bus=bus and bus.public_id)
