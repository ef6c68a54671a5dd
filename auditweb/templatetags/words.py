"""How times, durations, sizes and counts look on every page. No queries.

Times are written in UTC here; ``static/js/clock.js`` rewrites them to the viewer's zone in the same form.
"""

from datetime import UTC, datetime, timedelta

from django import template
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNKNOWN = "–"


def moment_of(value: datetime | int | None) -> datetime | None:
    """An aware UTC datetime of a datetime or of microseconds since the epoch; None when there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    try:
        return EPOCH + timedelta(microseconds=value)
    except (OverflowError, TypeError):
        return None


def _time(value, mode: str, text: str) -> SafeString:
    moment = moment_of(value)
    if moment is None:
        return mark_safe(f'<span class="soft">{UNKNOWN}</span>')  # noqa: S308 - a constant
    exact = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    title = moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d} UTC"
    shown, zone, _ = moment.strftime(text).partition(" UTC")
    # The name of the zone in an element of its own: a page that will show local times hides it before the first paint,
    # and nothing moves when clock.js puts the local time in.
    named = mark_safe('<span class="zone-name"> UTC</span>') if zone else ""
    return format_html('<time datetime="{}" data-time="{}" title="{}">{}{}</time>', exact, mode, title, shown, named)


@register.filter
def moment(value) -> SafeString:
    """``2026-03-01 11:56:05 UTC`` of a datetime or of epoch microseconds; a dash when there is none."""
    return _time(value, "full", "%Y-%m-%d %H:%M:%S UTC")


@register.filter
def clock(value) -> SafeString:
    """``11:56:05``, for rows whose day is clear from what stands around them."""
    return _time(value, "clock", "%H:%M:%S")


@register.filter
def ago(value) -> SafeString:
    """A time that scripts turn into ``5 min ago``; the full time before they run."""
    return _time(value, "relative", "%Y-%m-%d %H:%M UTC")


@register.filter
def duration(seconds: float | None) -> str:
    """``850 ms``, ``1.8 s``, ``40 s``, ``1m 40s``, ``1h 02m``, ``3d 4h``; a dash for None.

    What is left over is dropped, as on every clock and in RoomKit's own summaries: 100.9 s are ``1m 40s``.
    """
    if seconds is None or seconds == "":
        return UNKNOWN
    if seconds < 0:
        return "−" + duration(-seconds)
    us = round(seconds * 1_000_000)  # whole numbers from here on: 0.57 * 1000 is 569.99…
    if us < 1_000_000:
        return f"{us // 1000} ms"
    if us < 10_000_000:
        return f"{us // 1_000_000}.{us // 100_000 % 10} s"
    whole = us // 1_000_000
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


@register.filter
def milliseconds(ms: float | None) -> str:
    """``5 886 ms`` with thin spaces between thousands; a dash for None."""
    return UNKNOWN if ms is None or ms == "" else f"{number(ms)} ms"


@register.filter
def number(n: int | float | None) -> str:
    """``41 302``: rounded, in groups of three parted by a narrow space that does not break."""
    return UNKNOWN if n is None or n == "" else f"{round(n):,}".replace(",", "\u202f")


@register.filter
def size(count: int | None) -> str:
    """``812 bytes``, ``5.2 MiB``."""
    if count is None or count == "":
        return UNKNOWN
    if count < 1024:
        return f"{count} byte" if count == 1 else f"{count} bytes"
    power = min(4, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


@register.filter
def percent(share: float | None) -> str:
    """``42 %`` of 0.42, rounded down, so that 100 % means finished."""
    return UNKNOWN if share is None else f"{int(share * 100)} %"


@register.filter
def without_placeholder(field):
    """A form field whose label stands above it, without the same words inside the box."""
    return field.as_widget(attrs={"placeholder": False})


@register.filter
def counted(n: int, word: str) -> str:
    """``1 line``, ``3 lines``; *word* may name both forms as ``entry,entries``."""
    one, _, many = word.partition(",")
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


# What a control character is shown as: the symbols U+2400… stand for U+0000…; DEL has its own.
_VISIBLE = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x0A,)} | {0x7F: "\u2421"}
# Marks that change the direction or vanish: shown by their number, or a line could be made to look like another one.
_INVISIBLE = [(0x80, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F)]
_NAMED = {code: f"\u2039U+{code:04X}\u203a" for first, last in _INVISIBLE for code in range(first, last + 1)}
_NAMED[0xFEFF] = "\u2039U+FEFF\u203a"


@register.filter
def visible(raw: str | bytes) -> SafeString:
    """Text as it lies in the file, escaped, with control characters as marked symbols.

    Bytes are read as UTF-8; a byte that is none is shown as ``‹E9›``.
    """
    if isinstance(raw, bytes | memoryview):
        raw = bytes(raw).decode("utf-8", "surrogateescape")
    pieces, plain = [], []
    for char in raw:
        symbol = _VISIBLE.get(ord(char)) or _NAMED.get(ord(char))
        if symbol is None and 0xDC80 <= ord(char) <= 0xDCFF:
            symbol = f"\u2039{ord(char) - 0xDC00:02X}\u203a"
        elif symbol is None and 0xD800 <= ord(char) <= 0xDFFF:
            symbol = f"\u2039U+{ord(char):04X}\u203a"
        if symbol is None:
            plain.append(char)
            continue
        if plain:
            pieces.append(format_html("{}", "".join(plain)))
            plain.clear()
        pieces.append(format_html('<span class="control">{}</span>', symbol))
    if plain:
        pieces.append(format_html("{}", "".join(plain)))
    return mark_safe("".join(pieces))  # noqa: S308 - every piece was escaped by format_html


@register.simple_tag(takes_context=True)
def here(context, **changes) -> str:
    """This page's query with *changes* made and the cursor dropped: ``?state=failed&team=a``; None takes one out."""
    query = context["request"].GET.copy()
    for name in ("cursor", "fragment", "after"):  # where and how much, not what
        query.pop(name, None)
    for name, value in changes.items():
        query.pop(name, None)
        if value not in (None, ""):
            query[name] = value
    return "?" + query.urlencode()


@register.simple_tag(takes_context=True)
def link_to(context, name: str, *args) -> str:
    """The address of the page *name* with the team of this page kept; "" when there is no such page."""
    try:
        address = reverse(name, args=args)
    except NoReverseMatch:
        return ""
    request = context.get("request")
    team = request.GET.get("team", "") if request else ""
    if not team:
        return address
    query = request.GET.copy()
    for other in list(query):
        if other != "team":
            del query[other]
    return f"{address}?{query.urlencode()}"
