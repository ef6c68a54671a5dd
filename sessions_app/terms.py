"""What a search means: words of a query, what text they match, where they stand in it. Knows no database.

Keeps for itself how letters are folded and where a word ends, so that both databases, the pages and the marks in a
snippet agree. A text is cut into *tokens*: words of letters and digits, and overlapping pairs of letters in scripts
that put no spaces between words, so that any part of such a text can be found.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

FIELDS = ("tool", "agent", "kind", "status", "has")
MOST_TERMS = 12  # of a query; the rest is not looked at
LONGEST_WORD = 64  # letters; longer words are the same when so many are
SHORTEST_PREFIX = 3  # letters; "e" begins a word of every event, and each of these words would be looked up
INDEXED = 65_536  # characters of a text, and of what has no column, that are searched

_JOINT = "\x01"  # between the parts of a document: no word and no quotation reaches over it

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han. Korean has them, but glues particles on.
_PAIRED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u1000-\u103f\u1050-\u109d\u1100-\u11ff\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_VOWEL_SIGNS = "\u0900-\u0963\u0966-\u0dff"  # Indic blocks: marks there are letters for a reader, not for ``\w``
_ONE_OF = f"[^\\W_{_PAIRED}]|[{_VOWEL_SIGNS}]"
_LETTER = f"(?:{_ONE_OF})"
_RUN = re.compile(f"([{_PAIRED}]+)|({_LETTER}+)")
_ASCII_WORD = re.compile("[0-9a-z]+")
# Accents of European scripts, vowel points of Hebrew and Arabic, what has no width.
_DROPPED = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0610-\u061a\u064b-\u065f\u0670\u00ad\u200b-\u200f\u2060\ufeff]"
)
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_BLANKS = re.compile(r"\s+")


def fold(text: str) -> str:
    """*text* without the differences that a search does not see: case, accents, forms of the same letter."""
    if text.isascii():
        return text.lower()
    bare = _DROPPED.sub("", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", bare)


def document(text: str, tool: str = "", extra: str = "") -> str:
    """What is searched of an event. *extra* is JSON; its escapes are no letters."""
    if extra:
        extra = extra[:INDEXED]
        if "\\" in extra:
            extra = _ESCAPE.sub(" ", extra)
        return f"{text[:INDEXED]}{_JOINT}{tool}{_JOINT}{extra}"
    return f"{text[:INDEXED]}{_JOINT}{tool}" if tool else text[:INDEXED]


def tokens(folded: str) -> Iterator[str]:
    """The tokens of a folded text, in order and with repeats."""
    if folded.isascii():
        for word in _ASCII_WORD.findall(folded):
            yield word[:LONGEST_WORD]
        return
    for paired, word in _RUN.findall(folded):
        if word:
            yield word[:LONGEST_WORD]
        else:
            for i in range(len(paired)):
                yield paired[i : i + 2]


_LETTERS = bytes(code if code < 128 and chr(code).isalnum() else ord(" ") for code in range(256))


def distinct(folded: str) -> set[str]:
    """The different tokens of a folded text: the same as those in order, a seventh faster for plain text."""
    if not folded.isascii():
        return set(tokens(folded))
    found = set(folded.encode().translate(_LETTERS).decode().split())
    return found if max(map(len, found), default=0) <= LONGEST_WORD else {word[:LONGEST_WORD] for word in found}


@dataclass(frozen=True)
class Term:
    """One thing that a query asks for: words of the text, or a ``field`` that is exactly ``text``.

    ``tokens``: (token, whether a longer one will do); all are in every text that matches. ``exact``: whether that is
    all there is to it; else what has the tokens must be tried with ``matches``.
    """

    text: str
    field: str = ""
    exclude: bool = False
    prefix: bool = False  # the last word may go on
    tokens: tuple[tuple[str, bool], ...] = ()
    exact: bool = True

    @property
    def wanted(self) -> "Term":
        """The same term, not excluded."""
        return replace(self, exclude=False)

    def matches(self, folded: str) -> bool:
        """Whether the folded document has it (whether or not it is excluded)."""
        return _pattern(self.text, self.prefix).search(folded) is not None


@dataclass(frozen=True)
class Query:
    """What is asked for: all of ``terms``."""

    terms: tuple[Term, ...] = ()

    @property
    def words(self) -> tuple[Term, ...]:
        """The terms about the text."""
        return tuple(term for term in self.terms if not term.field)

    @property
    def fields(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.field)

    @property
    def exact(self) -> bool:
        return all(term.exact for term in self.words)

    def only(self, *terms: Term) -> "Query":
        return Query(terms)

    def matches(self, text: str, tool: str = "", extra: str = "") -> bool:
        """Whether a document made of these has all words and none that is excluded. Fields are not looked at."""
        folded = fold(document(text, tool, extra))
        return all(term.matches(folded) is not term.exclude for term in self.words)


_TERM = re.compile(r'(-?)(?:(tool|agent|status|has|kind):)?(?:"([^"]*)("|$)|(\S+))')


def parse(text: str, prefix: bool = True) -> Query:
    """The query that *text* asks for; any text is one.

    Words are all wanted, the last one may be the beginning of a word (not with *prefix* false); quotes hold words
    together; ``-`` in front excludes; ``tool:``, ``agent:``, ``kind:``, ``status:`` and ``has:`` name one exactly.
    """
    found = []
    matches = list(islice(_TERM.finditer(text), MOST_TERMS))
    for match in matches:
        minus, field, quoted, _, plain = match.groups()
        said = quoted if quoted is not None else plain
        if plain is not None and not field and not minus and plain == "-":
            continue
        if not said.strip():
            continue
        if field:
            found.append(Term(said, field, bool(minus)))
            continue
        open_end = prefix and quoted is None and match is matches[-1] and match.end() == len(text) and not minus
        found.append(_words(_BLANKS.sub(" ", fold(said)).strip(), bool(minus), open_end))
    return Query(tuple(dict.fromkeys(term for term in found if term.text)))


def _words(folded: str, exclude: bool, open_end: bool) -> Term:
    pieces: list[tuple[str, bool]] = []
    runs = list(_RUN.finditer(folded))
    exact = len(runs) == 1 and runs[0].end() - runs[0].start() == len(folded)
    prefix = bool(runs) and runs[-1].end() == len(folded) and open_end
    for run in runs:
        paired, word = run.groups()
        if word:
            open_ended = prefix and run is runs[-1]
            if open_ended and len(word) < SHORTEST_PREFIX:
                # Of "red-s" the index is asked for "red"; for "s" alone it means the word.
                prefix = len(runs) > 1
                if prefix:
                    continue
            pieces.append((word[:LONGEST_WORD], len(word) >= LONGEST_WORD or (open_ended and prefix)))
        elif len(paired) == 1:
            pieces.append((paired, True))
        else:
            pieces += [(paired[i : i + 2], False) for i in range(len(paired) - 1)]
            exact = exact and len(paired) == 2
    return Term(folded, "", exclude, prefix, tuple(dict.fromkeys(pieces)), exact)


@lru_cache(maxsize=256)
def _pattern(folded: str, prefix: bool) -> re.Pattern[str]:
    """Where a folded term stands in a folded text: not within a longer word."""
    runs = list(_RUN.finditer(folded))
    parts, end = [], 0
    for run in runs:
        parts.append(re.escape(folded[end : run.start()]))
        word = run[2]
        long = word is not None and len(word) >= LONGEST_WORD
        parts.append(re.escape(word[:LONGEST_WORD]) + f"{_LETTER}*" if long else re.escape(run[0]))
        end = run.end()
    parts.append(re.escape(folded[end:]))
    before = f"(?<!{_ONE_OF})" if runs and runs[0].start() == 0 and runs[0][2] else ""
    after = f"(?!{_LETTER})" if runs and runs[-1].end() == len(folded) and runs[-1][2] and not prefix else ""
    return re.compile(before + "".join(parts).replace("\\ ", "\\s+") + after)


def marks(query: Query, text: str) -> list[tuple[int, int]]:
    """Where the wanted words of *query* stand in *text*: (start, end) in characters, ascending, none overlapping."""
    wanted = [term for term in query.words if not term.exclude]
    if not wanted or not text:
        return []
    if text.isascii():
        folded, places = text.lower(), list(range(len(text) + 1))
    else:
        parts: list[str] = []
        at: list[int] = []
        for i, letter in enumerate(text):
            part = fold(letter)
            parts.append(part)
            at += [i] * len(part)
        folded, places = "".join(parts), [*at, len(text)]
    spans = []
    for term in wanted:
        for match in islice(_pattern(term.text, term.prefix).finditer(folded), 50):
            start, end = places[match.start()], places[match.end() - 1] + 1
            spans.append((start, end))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


SNIPPET = 240  # characters


def snippet(query: Query, text: str, tool: str = "", extra: str = "") -> tuple[str, list[tuple[int, int]]]:
    """The part of an event's text (else of what has no column) around the first match, and the marks in it."""
    shown, found = text[:INDEXED], marks(query, text[:INDEXED])
    if not found and extra:
        rest = _ESCAPE.sub(" ", extra[:INDEXED])
        if in_rest := marks(query, rest):
            shown, found = rest, in_rest
    start = max(0, found[0][0] - SNIPPET // 3) if found else 0
    if start:  # at a blank, where one is near
        blank = shown.find(" ", start, start + 20)
        start = blank + 1 if 0 <= blank < found[0][0] else start
    cut = shown[start : start + SNIPPET]
    before, after = ("… " if start else ""), (" …" if start + SNIPPET < len(shown) else "")
    shift = len(before) - start
    kept = [(a + shift, min(b, start + len(cut)) + shift) for a, b in found if start <= a < start + len(cut)]
    return before + cut + after, kept
