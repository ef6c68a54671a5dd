"""The API keeps to its own description: generated requests, good and bad, to every operation of a running server.

Statuses, content types and bodies must be among those described, bad data must be refused, and nothing may fail.
"""

import itertools
import json
import re

import pytest
import requests
import schemathesis
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.site import ROOT, site

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, negative_data_rejection,
]  # fmt: skip
MODES = {"good": GenerationMode.POSITIVE, "bad": GenerationMode.NEGATIVE}
EXAMPLES = 15  # of each operation and mode
SECONDS = 20  # for one answer
SAMPLES = [
    "roomkit_mixed/session_status_tool.jsonl", "dirty/invalid_utf8_line.jsonl", "xerxes/every_event.jsonl",
    "agent_framework/trace-260320_115602.jsonl", "other/roomkit_timeline.jsonl",
]  # fmt: skip
WHOLE_FILE = ("put", "/api/v1/dumps/{id}")  # the last word of the address is the name of a new file
METHODS = {"get", "put", "post", "patch", "delete"}


schemathesis.serializer.alias("application/x-ndjson", "application/octet-stream")


def operations() -> list:
    """Every operation of the schema with good requests, and with bad ones where it takes anything but an id.

    Any text may be an id: with one alone no request is bad.
    """
    found = []
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    for path, methods in paths.items():
        for method in sorted(METHODS & set(methods)):
            asked = methods[method]
            takes = "requestBody" in asked or {p["name"] for p in asked.get("parameters", [])} - {"id"}
            for mode in MODES if takes else ("good",):
                found.append(pytest.param(method, path, mode, id=f"{mode} {method.upper()} {path}"))
    return found


class Api:
    """A running server with something of every kind in it, and a key that may do everything."""

    def __init__(self, running):
        self.url = running.url
        key = running.manage("create_api_key", "--team", "default", "--scopes", "ingest,read,review").strip()
        self.headers = {"Authorization": f"Bearer {key}"}
        self.schema = schemathesis.openapi.from_url(f"{self.url}/api/v1/schema/", headers=self.headers)
        self.names = (f"{n}.jsonl" for n in itertools.count())
        files = [str(ROOT / "tests/samples" / name) for name in SAMPLES]
        imported = json.loads(running.manage("import_dump", *files, "--json"))["dumps"]
        self.ids = {
            "dumps": [dump["id"] for dump in imported],
            "sessions": [session["id"] for dump in imported for session in dump["sessions"]],
            "streams": [self.new_stream()],
            "status": [bus["id"] for bus in self.ask("get", "status/").json()["items"]],
        }

    def ask(self, method: str, path: str, **options) -> requests.Response:
        return requests.request(method, f"{self.url}/api/v1/{path}", headers=self.headers, timeout=SECONDS, **options)

    def id_for(self, method: str, path: str, n: int) -> str:
        """An id for the operation: in turn each of those that are there, a new one for what changes or ends it."""
        kind = path.split("/")[3]
        if kind == "streams":
            return self.ids[kind][0] if method == "get" else self.new_stream()
        if method == "get" or kind in ("sessions", "status"):  # where nothing ends one
            return self.ids[kind][n % len(self.ids[kind])]
        assert kind == "dumps", "say here how to make one"
        return self.ask("post", "dumps/", json={"name": next(self.names), "size": 3}).json()["id"]

    def new_stream(self) -> str:
        """The name of a stream that has one line."""
        name = next(self.names)
        self.ask("post", f"streams/{name}/lines?first=1", data=b"{}").raise_for_status()
        return name


@pytest.fixture(scope="module")
def api():
    with site("--no-worker") as running:
        yield Api(running)


@pytest.mark.parametrize("method, path, mode", operations())
def test_every_operation_answers_as_it_is_described(api, method, path, mode):
    tries, seen = itertools.count(), set()

    operation = api.schema[path][method.upper()]

    @given(case=operation.as_strategy(generation_mode=MODES[mode], headers=api.headers))
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def keeps(case):
        n = next(tries)
        if "{id}" in path and (method, path) != WHOLE_FILE and n % 5:  # else the id that was made up
            case.path_parameters["id"] = api.id_for(method, path, n)
        seen.add(case.call_and_validate(checks=CHECKS, timeout=SECONDS).status_code)

    keeps()
    assert not seen & {401, 403, 429}, "the key opens everything, so nothing was tried"
    if mode == "good" and method == "get" and "{seq}" not in path:
        assert 200 in seen


@pytest.mark.parametrize(
    "field, value",
    [("name", 5), ("name", ""), ("name", None), ("size", "3"), ("size", 3.5), ("size", True), ("size", -1), ("join", 1),
     ("join", "true"), ("zone", 1), ("stamp", "middle"), ("offset_ms", "1")],
)  # fmt: skip
def test_json_of_another_type_is_refused_by_the_name_of_its_field(api, field, value):
    told = {"name": "x.jsonl", "size": 3, field: value}
    answer = api.ask("post", "dumps/", json=told)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], list(error["detail"])) == ("invalid", [field])


def test_the_schema_is_valid_and_has_every_address_of_the_api(tmp_path):
    from django.core.management import call_command

    from auditweb.api_urls import urlpatterns

    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml"))
    routes = {str(p.pattern) for p in urlpatterns if not p.name.endswith("-too")} - {"schema/", "docs/"}
    named = {path.removeprefix("/api/v1/") for _, path, _ in (case.values for case in operations())}
    assert {re.sub(r"<\w+:(\w+)>", r"{\1}", route) for route in routes} == named
