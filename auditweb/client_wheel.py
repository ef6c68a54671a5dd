"""The package for agents, as a wheel that pip installs from this server.

Made in memory from the files of the package, the same bytes each time: no build, and no registry to ask.
"""

import base64
import hashlib
import re
import tomllib
import zipfile
from functools import cache
from io import BytesIO

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

HOME = settings.FILES_DIR / "clients/python"
PACKAGE = "auditweb_client"
LONG_AGO = (2020, 2, 2, 0, 0, 0)  # times of files would make other bytes of the same files
CACHED = "public, max-age=300"  # seconds; the same name has other bytes when a checkout is worked on


def _version() -> str:
    found = re.search(r'^__version__ = "([\w.]+)"$', (HOME / PACKAGE / "__init__.py").read_text(), re.M)
    assert found, "the package for agents has no version"
    return found[1]


VERSION = _version()
NAME = f"{PACKAGE}-{VERSION}-py3-none-any.whl"


@require_safe
def index(request):
    """The page that ``pip install --find-links`` reads, and people too."""
    content, sha256 = made()
    response = render(
        request,
        "clients.html",
        {
            "name": NAME,
            "size": len(content),
            "sha256": sha256,
            "python": project()["requires-python"],
            "here": request.build_absolute_uri(),
        },
    )
    return _cached(response)


@require_safe
def wheel(request):
    """The wheel itself."""
    content, sha256 = made()
    response = HttpResponse(content, content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="{NAME}"'
    response["ETag"] = f'"{sha256}"'
    return _cached(response)


def _cached(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = CACHED
    return response


@cache
def project() -> dict:
    """What the package says of itself."""
    return tomllib.loads((HOME / "pyproject.toml").read_text())["project"]


@cache
def made() -> tuple[bytes, str]:
    """The wheel and its SHA-256 in hexadecimal."""
    info = f"{PACKAGE}-{VERSION}.dist-info"
    files = {f"{PACKAGE}/{path.name}": path.read_bytes() for path in sorted((HOME / PACKAGE).glob("*.py"))}
    files[f"{PACKAGE}/py.typed"] = b""
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: auditweb\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/licenses/LICENSE"] = (HOME / "LICENSE").read_bytes()
    record = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, LONG_AGO)
            member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            archive.writestr(member, content)
    return target.getvalue(), hashlib.sha256(target.getvalue()).hexdigest()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def _metadata() -> str:
    told = project()
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {told['name']}",
        f"Version: {VERSION}",
        f"Summary: {told['description']}",
        f"License-Expression: {told['license']}",
        *(f"License-File: {name}" for name in told["license-files"]),
        *(f"Classifier: {name}" for name in told["classifiers"]),
        f"Requires-Python: {told['requires-python']}",
        *(f"Requires-Dist: {name}" for name in told["dependencies"]),
    ]
    for extra, names in told["optional-dependencies"].items():
        lines += [f"Provides-Extra: {extra}", *(f"Requires-Dist: {name}; extra == '{extra}'" for name in names)]
    lines += ["Description-Content-Type: text/markdown", "", (HOME / told["readme"]).read_text()]
    return "\n".join(lines)
