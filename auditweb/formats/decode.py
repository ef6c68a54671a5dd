"""One line of bytes → one JSON object whose strings every database takes, or BadLine with a reason for people.

Keeps for itself which parser reads what. msgspec reads nearly every line, strictly and in about a microsecond. What
it refuses goes to Python's own parser, because Python's writers produce it: NaN, Infinity, lone surrogates. Limits on
size, depth and structure are checked before either of them, so that no line costs more than its length.
"""

import json
import re

import msgspec

from .record import BadLine

MAX_LINE_BYTES = 8 * 2**20
MAX_DEPTH = 200
MAX_STRUCTURE = 200_000  # opening brackets and commas; 15 MB of empty lists would become 488 MB of objects
MAX_DIGITS = 4300  # of an integer; Python's own limit, stated so that a changed interpreter setting changes nothing

BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"

_msgspec_decode = msgspec.json.Decoder().decode


def is_blank(raw: bytes) -> bool:
    """Whether the line holds only spaces, tabs and carriage returns, or the NUL bytes that a power cut leaves."""
    return not raw.strip(b" \t\r\n\0")


def decode(raw: bytes, first: bool = False, max_bytes: int = MAX_LINE_BYTES) -> tuple[dict, tuple[str, ...]]:
    """``(object, flags)`` of one line without its newline. *first*: line 1 may start with a byte order mark.

    The object is clean: NUL in strings is ␀ (flag "nul"), a lone surrogate is � ("surrogate"), NaN and Infinity are
    the strings "NaN", "Infinity" and "-Infinity" ("nonfinite"). Integers are exact. Of a key given twice the last
    value counts ("duplicate_keys"). Raises BadLine.
    """
    if first and raw.startswith(BOM):
        raw = raw[3:]
    check_limits(raw, max_bytes)
    try:
        obj = _msgspec_decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(raw)
    if obj.__class__ is not dict:
        raise BadLine(_not_an_object(raw))
    flags: list[str] = []
    # A key is followed by `":`; inside a string the quote would be escaped. A difference calls for a closer look.
    keys = raw.count(b'":') - raw.count(b'\\":')
    if keys != len(obj) and keys != _count_keys(obj) and _repeats_keys(raw):
        flags.append("duplicate_keys")
    if b"\\u0000" in raw:
        obj = _clean(obj, flags)
    return obj, tuple(dict.fromkeys(flags)) if flags else ()


def is_unremarkable(raw: bytes, own_keys: int, rest: dict | None) -> bool:
    """Whether ``decode`` would hand on this line as it stands, without a flag.

    *raw*: a line of at most ``MAX_STRUCTURE`` bytes that a typed msgspec decoder took: an object of *own_keys* known
    keys with scalars, and *rest*, which may hold anything. May be False of a line that is fine.
    """
    keys = raw.count(b'":')
    if b"\\" in raw:
        if b"\\u0000" in raw:
            return False
        keys -= raw.count(b'\\":')
    if not rest:
        return keys == own_keys
    for item in rest.values():
        if item.__class__ is dict or item.__class__ is list:
            # Brackets may stand in strings too; here that is not worth a closer look.
            if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
                return False
            return keys == own_keys + _count_keys(rest)
    return keys == own_keys + len(rest)


def _decode_slowly(raw: bytes) -> tuple[dict, tuple[str, ...]]:
    flags: list[str] = []

    def pairs(items):
        obj = dict(items)
        if len(obj) != len(items):
            flags.append("duplicate_keys")
        return obj

    def constant(name):
        flags.append("nonfinite")
        return name

    def real(digits):
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            return constant("Infinity" if value > 0 else "-Infinity")
        return value

    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant, parse_float=real, parse_int=_integer)
    whole = raw.rstrip(b" \t\r\n\0")
    nul_tail = b"\0" in raw[len(whole) :]
    obj = _parse(whole, decoder, nul_tail)
    if obj.__class__ is not dict:
        raise BadLine(_not_an_object(raw))
    if nul_tail:
        flags.append("nul_tail")
    obj = _clean(obj, flags)
    return obj, tuple(dict.fromkeys(flags))


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise BadLine(f"a number of {len(digits):,} digits")
    return int(digits)


class Number(str):
    """A number of a JSON text, spelled as written: 1.10, 1E2, 2 ** 70, NaN."""

    __slots__ = ()


_peek_decoder = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=Number, strict=False)


def peek(raw: bytes, max_bytes: int = MAX_LINE_BYTES) -> object:
    """The JSON value of a line for people to look at: numbers are ``Number``, strings can be stored and sent.

    Takes more than ``decode``: any JSON value, raw control characters, bytes that are not UTF-8 (as �). Raises BadLine.
    """
    raw = raw.removeprefix(BOM)
    check_limits(raw, max_bytes)
    text = raw.rstrip(b" \t\r\n\0").decode("utf-8", "replace")
    return _clean(_parse_text(text, _peek_decoder, False), [])


# Limits


def check_limits(raw: bytes, max_bytes: int = MAX_LINE_BYTES) -> None:
    """Raise BadLine for a line that is too long, too deep or too finely divided to be parsed."""
    if len(raw) > max_bytes:
        raise BadLine(f"longer than {max_bytes:,} bytes ({len(raw):,})")
    brackets = raw.count(b"[") + raw.count(b"{")
    if brackets > MAX_DEPTH or (len(raw) > MAX_STRUCTURE and brackets + raw.count(b",") > MAX_STRUCTURE):
        _check_shape(raw)


_ALL_BUT_SHAPE = bytes(b for b in range(256) if b not in b'[]{},"')


def _check_shape(raw: bytes) -> None:
    shape = raw.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _ALL_BUT_SHAPE)
    structure = depth = 0
    while shape:
        # Every second piece between quotes lies outside strings. In portions: a line of quotes has millions of pieces.
        pieces = shape.split(b'"', 65_536)
        shape = pieces.pop() if len(pieces) > 65_536 else b""
        outside = b"".join(pieces[::2])
        structure += outside.count(b"[") + outside.count(b"{") + outside.count(b",")
        if structure > MAX_STRUCTURE:
            raise BadLine(f"more than {MAX_STRUCTURE:,} values")
        for byte in outside.replace(b",", b""):
            depth += 1 if byte in b"[{" else -1
            if depth > MAX_DEPTH:
                raise BadLine(f"nested more than {MAX_DEPTH} levels deep")
            if depth < 0:
                return  # more closed than opened: the parser says where


# Keys given twice


def _count_keys(obj) -> int:
    count, stack = 0, [obj]
    while stack:
        value = stack.pop()
        if value.__class__ is dict:
            count += len(value)
            value = value.values()
        for item in value:
            if item.__class__ is dict or item.__class__ is list:
                stack.append(item)
    return count


def _repeats_keys(raw: bytes) -> bool:
    """Whether one object of *raw*, which parses, gives a key twice."""
    repeats = False

    def pairs(items):
        nonlocal repeats
        obj = dict(items)
        repeats = repeats or len(obj) != len(items)
        return obj

    try:
        json.JSONDecoder(object_pairs_hook=pairs, parse_int=str, parse_float=str).decode(raw.decode())
    except (ValueError, RecursionError):  # what msgspec took and this parser does not; there is nothing more to know
        return False
    return repeats


# Clean strings

_SURROGATE = re.compile("[\ud800-\udfff]")


def _clean(value, flags: list[str]):
    """*value* with strings that UTF-8 and databases take; one frame a level, so depth 200 is safe."""
    if isinstance(value, str):
        if "\0" in value:
            flags.append("nul")
            value = value.replace("\0", "␀")
        if not value.isascii() and _SURROGATE.search(value):
            flags.append("surrogate")
            value = _SURROGATE.sub("�", value)
        return value
    if value.__class__ is dict:
        clean = {}
        for key, item in value.items():
            clean[_clean(key, flags)] = _clean(item, flags)
        return clean
    if value.__class__ is list:
        for index, item in enumerate(value):
            value[index] = _clean(item, flags)
    return value


# Parsing with reasons


def _parse(raw: bytes, decoder: json.JSONDecoder, nul_tail: bool):
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        if e.reason == "unexpected end of data" and e.start >= len(raw) - 4:
            raise BadLine("ends in the middle of a character" + _after(nul_tail)) from None
        raise BadLine(f"not UTF-8 (byte 0x{raw[e.start]:02X} at column {e.start + 1})") from None
    return _parse_text(text, decoder, nul_tail)


def _parse_text(text: str, decoder: json.JSONDecoder, nul_tail: bool):
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as e:
        raise BadLine(_reason(text, e) + _after(nul_tail)) from None
    except RecursionError:
        raise BadLine(f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError:  # an interpreter that was told to read fewer digits than MAX_DIGITS
        raise BadLine("a number of too many digits") from None


def _after(nul_tail: bool) -> str:
    return ", followed by NUL bytes" if nul_tail else ""


# What can stand between the last whole token and the point where a writer was stopped.
_BEGUN = re.compile(
    r"\s*(?:-|-?I(?:n(?:f(?:i(?:n(?:it?)?)?)?)?)?|Na?|tr?u?|fa?l?s?|nu?l?|\.|(?:\.\d*)?[eE][+-]?)?", re.ASCII
)
_BEGUN_ESCAPE = re.compile(r"\\?u?[0-9a-fA-F]{0,4}", re.ASCII)
_EXPECTED = {
    "Expecting value": "a value is missing",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Expecting property name": "a key in double quotes is missing",
    "Invalid \\escape": "JSON has no such backslash escape",
    "Invalid \\uXXXX escape": "four hexadecimal digits are missing",
}


def _reason(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong with *text*, in the words of somebody who looks at the line."""
    start, at, message = text.lstrip(" \t\r\n"), error.pos, error.msg
    if message.startswith("Illegal trailing comma"):  # Python 3.13 names the comma, before it what is missing behind it
        at = len(text) - len(text[at + 1 :].lstrip(" \t\r\n"))
        message = "Expecting value" if message.endswith("array") else "Expecting property name"
    if start.startswith("\ufeff"):
        return "a byte order mark in front of the JSON object"
    if message.startswith("Invalid control character") or text[at : at + 1] == "\0":
        code = ord(text[at])
        name = "NUL byte" if code == 0 else f"raw control character (0x{code:02X})"
        return f"a {name} at column {at + 1}"
    if reason := _other_language(start):
        return reason
    kind = {"{": "object", "[": "array"}.get(start[:1], "value")
    if message == "Extra data":
        if text[at] in '{["':
            return "more than one JSON value on the line"
        return f"text after the end of the JSON {kind}, at column {at + 1}"
    begun = _BEGUN_ESCAPE if message.startswith("Invalid \\u") else _BEGUN
    if message.startswith("Unterminated string") or begun.fullmatch(text, at):
        return f"ends in the middle of a JSON {kind}"
    expected = next((words for begin, words in _EXPECTED.items() if message.startswith(begin)), "it breaks off")
    return f"not JSON: {expected} at column {at + 1}"


def _other_language(start: str) -> str:
    """What a line is that does not begin like a JSON value that its writer could have meant; "" when it does."""
    if start.startswith(("{'", "{u'", "{b'")):
        return "Python text with single quotes, not JSON"
    if start.startswith("<"):
        return "HTML or XML, not JSON"
    if start.startswith(("#", "//", "/*")):
        return "a comment, not JSON"
    if start.startswith("{") or re.match(r'\[\s*(?:[\[{"\]-]|$)', start):
        return ""
    if "{" in start:
        return "text in front of the JSON object"
    if re.match(r'["\[]|(?:[\d.eE+-]*|tr?u?e?|fa?l?s?e?|nu?l?l?)$', start):
        return ""
    return "plain text, not JSON"


def _not_an_object(raw: bytes) -> str:
    first = raw.lstrip(_SPACE)[:1]
    names = {b'"': "a JSON text", b"[": "a JSON array", b"t": "true", b"f": "false", b"n": "null"}
    return f"{names.get(first, 'a JSON number')}, not an object"
