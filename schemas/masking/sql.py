"""Masks SQL text, and says what its bind values need.

Three things hide a literal: it looks classified, whatever the statement; it becomes so once its
escapes or its concatenation are undone; or the statement touches something classified, so that
even `'Miller'` may be a value of a classified column. For the last there is one simple, safe rule
(docs/masking.md): every literal of more than three characters goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pglast.parser import ParseError, scan

from schemas.masking import detect
from schemas.masking.columns import Classification
from schemas.masking.masks import HIDDEN

_SHORT: Final = 3
"""Longest literal that stays in a statement that touches something classified."""

_STRINGS: Final = frozenset({"SCONST", "USCONST", "XCONST", "BCONST"})
_NUMBERS: Final = frozenset({"ICONST", "FCONST"})
_COMMENTS: Final = frozenset({"SQL_COMMENT", "C_COMMENT"})
_NAMES: Final = frozenset({"IDENT", "UIDENT"})
_PAGING: Final = frozenset({"LIMIT", "OFFSET", "FIRST_P", "NEXT"})
# Values whose columns stand elsewhere in the statement, or nowhere.
_POSITIONAL: Final = frozenset({"insert", "copy", "merge", "values", "row", "execute"})

_ESCAPED: Final = re.compile(r"\\|''|\|\||'\s+'|concat|U&|x'", re.IGNORECASE)
_JOINED: Final = re.compile(r"[\s|,]*(?:::\s*\w+[\s|,]*)?")
_CONTINUATION: Final = re.compile(r"'[ \t\f\v]*[\r\n]\s*'")
_E_ESCAPE: Final = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL
)
_E_SIMPLE: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_U_ESCAPE: Final = re.compile(r"\\(?:([0-9a-fA-F]{4})|\+([0-9a-fA-F]{6})|(\\))")
_HEX: Final = re.compile(r"\\x((?:\s*[0-9a-fA-F]{2})+)\s*")
_EXECUTE: Final = re.compile(r"\bexecute\b", re.IGNORECASE)
_DOLLAR: Final = re.compile(r"\$(\w*)\$")


@dataclass(frozen=True, slots=True)
class MaskedStatement:
    """`masks` as class:where.

    `sensitive`: bind values longer than three characters are masked; `positional`: all of them are;
    `parameters`: numbers of those that are whatever their length.
    """

    text: str
    masks: tuple[str, ...]
    sensitive: bool = False
    positional: bool = False
    parameters: frozenset[int] = frozenset()

    def hides(self, number: int, length: int) -> bool:
        """Whether bind value `number` (from 1), `length` characters long, is masked by rule."""
        return self.sensitive and (length > _SHORT or self.positional or number in self.parameters)


_Edit = tuple[int, int, str]
"""Start, end, what stands there instead."""


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    name: str


def mask_statement(text: str, classification: Classification) -> MaskedStatement:
    """`text` with its classified literals masked; still readable as SQL."""
    words = classification.words(text)
    # EXECUTE p('Miller') names neither the columns nor the tables its values are for.
    executes = bool(classification) and _EXECUTE.search(text) is not None
    if not (words or executes or detect.suspicious(text) or _ESCAPED.search(text)):
        return MaskedStatement(text, ())
    pieces = _scan(text)
    if pieces is None:
        return _mask_unscannable(text, classification)
    words |= classification.words(" ".join(_unescaped_words(text, pieces)))
    positional = executes or (
        bool(words)
        and any(text[piece.start : piece.end].lower() in _POSITIONAL for piece in pieces)
    )
    columns = [classification.by_name[word] for word in words if word in classification.by_name]
    sensitive = positional or bool(columns) or (bool(words) and _renames_columns(pieces))
    edits: list[_Edit] = []
    parameters: frozenset[int] = frozenset()
    kinds: set[str] = set()
    if sensitive:
        kinds |= {column.classification for column in columns} or {"classified"}
        edits, parameters = _mask_all(text, pieces, classification, positional)
    kinds |= _mask_decoded(text, pieces, edits)
    kinds |= _mask_found(text, edits)
    return MaskedStatement(
        _edited(text, edits),
        tuple(sorted(f"{kind}:statement" for kind in kinds)),
        sensitive,
        positional,
        parameters,
    )


def _scan(text: str) -> list[_Piece] | None:
    """PostgreSQL's own tokens, or None where they cannot be had or trusted."""
    # The scanner is C: a NUL ends its input in the middle of ours.
    if "\0" in text:
        return None
    try:
        tokens = scan(text)
    except (ParseError, UnicodeError):
        return None
    pieces = [_Piece(token.start, token.end + 1, token.name) for token in tokens]
    for piece in pieces:
        # 'a\' ends here for us and goes on for a session with standard_conforming_strings off.
        if piece.name == "SCONST" and text.endswith("\\'", piece.start, piece.end):
            return None
    return pieces


def _unescaped_words(text: str, pieces: list[_Piece]) -> Iterator[str]:
    """Names and strings whose spelling hides what they say."""
    for piece in pieces:
        raw = text[piece.start : piece.end]
        if piece.name in _NAMES and raw[0] in 'uU"':
            yield _folded(raw)
        elif piece.name in _STRINGS:
            decoded = _content(raw)
            if decoded != raw[1:-1]:
                yield decoded


def _renames_columns(pieces: list[_Piece]) -> bool:
    """Whether columns may go by other names: WITH, or `customers AS c(a, b)`."""
    names = [piece.name for piece in pieces]
    return "WITH" in names or any(
        (a in _NAMES or a == "AS") and b in _NAMES and c == "ASCII_40"
        for a, b, c in zip(names, names[1:], names[2:], strict=False)
    )


def _mask_all(
    text: str, pieces: list[_Piece], classification: Classification, positional: bool
) -> tuple[list[_Edit], frozenset[int]]:
    """(edits by rule, numbers of the parameters that stand where a classified value does)."""
    edits: list[_Edit] = []
    parameters: set[int] = set()
    nearest_is_classified = positional
    previous = ""
    for piece in pieces:
        word = text[piece.start : piece.end].lower()
        if piece.name in _COMMENTS:
            hidden = f"-- {HIDDEN}" if piece.name == "SQL_COMMENT" else f"/* {HIDDEN} */"
            edits.append((piece.start, piece.end, hidden))
            continue
        if piece.name in _STRINGS:
            if nearest_is_classified or len(_content(text[piece.start : piece.end])) > _SHORT:
                edits.append((piece.start, piece.end, f"'{HIDDEN}'"))
        elif piece.name in _NUMBERS:
            long = nearest_is_classified or piece.end - piece.start > _SHORT
            if long and previous not in _PAGING:
                edits.append((piece.start, piece.end, HIDDEN))
        elif piece.name == "PARAM":
            if nearest_is_classified:
                parameters.add(int(word[1:]))
        elif piece.name in _NAMES or word in classification.by_name:
            nearest_is_classified = positional or _folded(word) in classification.by_name
        previous = piece.name
    return edits, frozenset(parameters)


def _mask_decoded(text: str, pieces: list[_Piece], edits: list[_Edit]) -> set[str]:
    """Literals that look classified when unescaped, or when read as one with their neighbours."""
    kinds: set[str] = set()
    run: list[tuple[_Piece, str]] = []

    def close() -> None:
        if len(run) > 1:
            joined = "".join(content for _, content in run)
            apart = sum(len(detect.find(content, whole=True)) for _, content in run)
            found = detect.find(joined, whole=True)
            if len(found) > apart:
                kinds.update(finding.kind for finding in found)
                edits.extend((p.start, p.end, f"'{HIDDEN}'") for p, _ in run)
        run.clear()

    for piece in pieces:
        if piece.name not in _STRINGS:
            continue
        raw = text[piece.start : piece.end]
        content = _content(raw)
        found = detect.find(content, whole=True)
        # Without escapes it shows in the raw text as well: it is masked there, and the rest of the
        # literal stays.
        if found and ("\\" in raw or len(found) > len(detect.find(raw))):
            kinds.update(finding.kind for finding in found)
            edits.append((piece.start, piece.end, f"'{HIDDEN}'"))
        if run and not _JOINED.fullmatch(text, run[-1][0].end, piece.start):
            close()
        run.append((piece, content))
    close()
    return kinds


def _mask_found(text: str, edits: list[_Edit]) -> set[str]:
    """What looks classified anywhere in the text: comments, numbers and names included."""
    kinds: set[str] = set()
    for finding in detect.find(text):
        if any(start <= finding.start and finding.end <= end for start, end, _ in edits):
            continue
        kinds.add(finding.kind)
        value = text[finding.start : finding.end]
        edits.append((finding.start, finding.end, detect.mask(finding.kind, value)))
    return kinds


def _edited(text: str, edits: list[_Edit]) -> str:
    """`text` with its edits made; of edits that overlap, both ranges go."""
    out: list[str] = []
    at = 0
    for start, end, replacement in sorted(edits):
        if start >= at:
            out += text[at:start], replacement
        at = max(at, end)
    out.append(text[at:])
    return "".join(out)


def _folded(name: str) -> str:
    """A quoted or Unicode-escaped name, as PostgreSQL would fold it for comparison."""
    if name[:2].lower() == "u&":
        name = _undo_unicode(name[2:])
    if name.startswith('"'):
        name = name[1:-1].replace('""', '"')
    return name.lower()


def _content(raw: str) -> str:
    """What a string constant says, escapes undone as generously as any setting would."""
    prefix, _, rest = raw.partition("'")
    if raw.startswith("$"):
        quote = raw.index("$", 1) + 1
        return raw[quote:-quote]
    body = _CONTINUATION.sub("", rest[:-1]).replace("''", "'")
    match prefix.lower():
        case "u&":
            return _undo_unicode(body)
        case "x":
            return _unhex(body)
        case "b":
            return body
    if "\\" not in body:
        return body
    hexadecimal = _HEX.fullmatch(body)
    if hexadecimal:
        return _unhex(hexadecimal[1])
    return _E_ESCAPE.sub(_undo_escape, body)


def _undo_escape(match: re.Match[str]) -> str:
    for group, base in ((1, 16), (2, 16), (3, 16), (4, 8)):
        if match[group]:
            return _character(int(match[group], base))
    return _E_SIMPLE.get(match[5], match[5])


def _undo_unicode(body: str) -> str:
    return _U_ESCAPE.sub(
        lambda match: "\\" if match[3] else _character(int(match[1] or match[2], 16)), body
    )


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else "\ufffd"


def _unhex(body: str) -> str:
    try:
        return bytes.fromhex(body).decode("latin-1")
    except ValueError:
        return body


def _mask_unscannable(text: str, classification: Classification) -> MaskedStatement:
    """Every quoted string of a text that PostgreSQL's scanner does not take.

    Where a quote's end is in doubt, everything from the first quote to the last goes.
    """
    if "\\" in text and "'" in text:
        first, last = text.index("'"), text.rindex("'") + 1
        # An odd number of quotes leaves the last string open.
        end = len(text) if text.count("'") % 2 else last
        edits = [(first, end, f"'{HIDDEN}'")]
    else:
        edits = [(start, end, f"'{HIDDEN}'") for start, end in _quoted(text)]
    sensitive = bool(classification)
    kinds = {"unscannable"} if edits else set()
    if sensitive:
        for number in re.finditer(r"\d{4,}", text):
            edits.append((number.start(), number.end(), HIDDEN))
    kinds |= _mask_found(text, edits)
    return MaskedStatement(
        _edited(text, edits),
        tuple(sorted(f"{kind}:statement" for kind in kinds)),
        sensitive,
        sensitive,
    )


def _quoted(text: str) -> Iterable[tuple[int, int]]:
    at = 0
    while at < len(text):
        quote, dollar = text.find("'", at), _DOLLAR.search(text, at)
        if quote < 0 and dollar is None:
            return
        if dollar is None or 0 <= quote < dollar.start():
            end = text.find("'", quote + 1)
            start, length = quote, 1
        else:
            start, length = dollar.start(), len(dollar[0])
            end = text.find(dollar[0], dollar.end())
        at = len(text) if end < 0 else end + length
        yield start, at
