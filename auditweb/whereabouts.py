"""Where the site of this data directory is: ``serve`` notes its address, other commands read it."""

from django.conf import settings

DEFAULT = "http://127.0.0.1:8000"


def note(address: str) -> None:
    """Keep *address* as the one at which the site was started last."""
    _file().write_text(address + "\n")


def forget(address: str) -> None:
    """*address* is none any more; that of a site which was started later stays."""
    if _file().exists() and address == find():
        _file().unlink(missing_ok=True)


def find() -> str:
    """The address of the site that was started last, DEFAULT when none was noted; nobody need answer there."""
    try:
        return _file().read_text().strip() or DEFAULT
    except OSError:
        return DEFAULT


def _file():
    return settings.DATA_DIR / "address"
