"""What a statement is, by PostgreSQL's own grammar (libpg_query). Pure.

The parse tree is searched as JSON text rather than built as objects: it costs a tenth, and no
nesting is too deep. This is exact: inside a JSON string every quote is preceded by a backslash, so
that `{"`, `,"` and `":` never occur in what a person typed.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import Final

import msgspec
from pglast import parser

from gateway.policy import trees
from gateway.policy.diagnostics import said_more

_NODE: Final = 'Stmt":{'
_TOP: Final = re.compile(r'\{"stmt":\{"([A-Z]\w*)":\{')
_STRING: Final = r'"((?:[^"\\]|\\.)*)"'
_RELATION: Final = '"relname":"'
_SCHEMA: Final = '"schemaname":"'
_REST: Final = re.compile(r'(?:[^"\\]+|\\.)*')
# Parsing holds up every session: about a second for a million of these.
_PARTS: Final = re.compile(r"[,(]|[-+*/|](?![-+*/|])")
_PART: Final = ",(-+*/|"
_MOST_PARTS: Final = 500_000
_CURSOR: Final = re.compile(
    rf'\{{"stmt":\{{"(?:DeclareCursor|Fetch|ClosePortal)Stmt":\{{(?:"direction":"\w+",)?'
    rf'(?:"howMany":-?\d+,)?"portalname":{_STRING}(?:,"options":(\d+))?'
)
_HOLD: Final = 0x20
"""CURSOR_OPT_HOLD."""
_PREPARED: Final = re.compile(
    rf'(?:\{{"stmt":\{{"(?:Prepare|Deallocate)Stmt"|[{{,]"ExecuteStmt"):\{{"name":{_STRING}'
)
_TRANSACTION: Final = re.compile(
    rf'\{{"stmt":\{{"TransactionStmt":\{{"kind":"TRANS_STMT_(\w+)"(?:,"savepoint_name":{_STRING})?'
)
_FORGETTING: Final = re.compile(
    r'\{"stmt":\{"(?:DeallocateStmt":\{"isall":true|DiscardStmt":\{"target":"DISCARD_ALL")'
)
_RESTORING: Final = re.compile(
    r'\{"TransactionStmt":\{"kind":"TRANS_STMT_(?:COMMIT|ROLLBACK|PREPARE)'
)
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PASSWORD: Final = re.compile(r"passw\w*|pwd|secret|credential|identified\s+by", re.IGNORECASE)
_CONNECTION: Final = re.compile(
    r"(?:password|pwd)\s*=|://[^/\s:@]*:[^/\s@]*@|\bpassword\s+e?'", re.IGNORECASE
)
# Functions whose arguments may be pieces of a connection string.
_CONNECTING: Final = re.compile(r"dblink|postgres_fdw", re.IGNORECASE)
_CONFIGURING: Final = re.compile(r"set_config", re.IGNORECASE)
_QUOTE: Final = re.compile(r"['$]")
_OPERATORS: Final = re.compile(r"[~!@#^&|`?+\-*/%<>=]{256,}")
_STEPS: Final = 1_000_000_000
"""About a second of the lexer's time."""
_MOST: Final = 30_000
"""Statements of one text. Each is two events."""
_FORGETS: Final = frozenset({"deallocate", "discard"})
_NAMES_PREPARED: Final = frozenset({"prepare", "deallocate", "execute"})
_NAMES_CURSOR: Final = frozenset({"declare", "fetch", "close"})
_CONSTANTS: Final = frozenset({"SCONST", "USCONST", "BCONST", "XCONST"})

REDACTED: Final = "'<redacted>'"
_NEAR: Final = " at or near "
UNPARSEABLE: Final = "unparseable"
EMPTY: Final = "empty"
FUNCTION_CALL: Final = "function_call"

_RENAMED: Final = {
    "variable_set": "set",
    "variable_show": "show",
    "create": "create_table",
    "view": "create_view",
    "index": "create_index",
    "rule": "create_rule",
    "alter_role_set": "alter_role",
    "declare_cursor": "declare",
    "close_portal": "close",
    "copy": "copy_to",
    "create_role": "create_role",
    "create_schema": "create_schema",
    "constraints_set": "set",
    "refresh_mat_view": "refresh_materialized_view",
}
_CREDENTIALS: Final = frozenset(
    {
        "create_role",
        "alter_role",
        "create_user_mapping",
        "alter_user_mapping",
        "create_foreign_server",
        "alter_foreign_server",
        "create_subscription",
        "alter_subscription",
        "create_foreign_table",
        "import_foreign_schema",
    }
)
# They may change settings under which the target reads the next text. A function of the target's
# own that sets them is its owner's.
_SETTING: Final = frozenset(
    {
        "set",
        "discard",
        "do",
        "call",
        "execute",
        "fetch",
        "load",
        "create_extension",
        "alter_extension",
    }
)
# They move data: a string in them is a value, unless it is itself a connection string.
_DATA: Final = frozenset(
    {
        "copy_file",
        "copy_from",
        "copy_to",
        "create_table_as",
        "create_view",
        "declare",
        "delete",
        "execute",
        "explain",
        "fetch",
        "insert",
        "merge",
        "prepare",
        "select",
        "select_for_update",
        "show",
        "update",
    }
)
# Functions of PostgreSQL's own, and of its contrib modules, that run SQL given as text, and the
# view whose update sets: they, too, change settings.
_SETTERS: Final = re.compile(
    r'"sval":"(?:set_config|(?:query|cursor|table|schema|database)_to_xml\w*'
    r'|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table)"|"relname":"pg_settings"'
)
_NO_KINDS: Final[frozenset[str]] = frozenset()


class Statement(msgspec.Struct, frozen=True):
    """One statement. `text` is what the target gets; `recorded` is it without credentials;
    `offset` is where it begins among others, in characters.

    `kind` is the outermost statement's, `kinds` also those nested in it (CTEs, EXPLAIN,
    PREPARE, rules). `forgets_all`: it is DEALLOCATE ALL or DISCARD ALL. `changes_settings`:
    running it may change how the next text is read; `restores_settings`: it may end a
    transaction in which that was changed.

    `prepared_name` is what a PREPARE makes, an EXECUTE runs or a DEALLOCATE forgets; `cursor_name`
    what a DECLARE makes (`holds_cursor`: WITH HOLD), a FETCH or MOVE reads or a CLOSE closes: empty
    for all of them. `transaction` is what it does to a transaction, if that is what it does.
    `replication`: it is a walsender's command, not SQL.

    An unparseable statement has the parser's message in `error` and the character where it
    occurred, from 1, in `position`; the client gets them under `sqlstate`, as the server itself
    would have said it.
    """

    text: str
    recorded: str
    kind: str
    kinds: frozenset[str]
    relations: tuple[str, ...]
    offset: int = 0
    prepared_name: str = ""
    cursor_name: str = ""
    holds_cursor: bool = False
    transaction: str = ""
    savepoint: str = ""
    replication: bool = False
    forgets_all: bool = False
    changes_settings: bool = False
    restores_settings: bool = False
    error: str = ""
    position: int = 0
    sqlstate: str = "42601"
    detail: str = ""
    hint: str = ""


def _kind(node: str) -> str:
    name = _WORD.sub("_", node.removesuffix("Stmt")).lower()
    return _RENAMED.get(name, name)


def _nodes(tree: str) -> set[str]:
    """Names of the statements' nodes, without the `Stmt`.

    Found by their ends: an expression would stop at every quote of the tree.
    """
    found: set[str] = set()
    end = tree.find(_NODE)
    while end >= 0:
        found.add(tree[tree.rfind('"', 0, end) + 1 : end])
        end = tree.find(_NODE, end + len(_NODE))
    # `selectStmt` is a field.
    return {name for name in found if name[:1].isupper()}


def kinds_of(tree: str) -> frozenset[str]:
    """Kinds of the statements in a parse tree's JSON text, nested ones included."""
    kinds = {_kind(node) for node in _nodes(tree)}
    if "copy_to" in kinds:
        if '"is_from":true' in tree:
            kinds.discard("copy_to")
            kinds.add("copy_from")
        if '"is_program":true' in tree:
            kinds.add("copy_program")
        if '"filename":' in tree and '"is_program":true' not in tree:
            kinds.add("copy_file")
    if '"intoClause":{' in tree:
        kinds.add("create_table_as")
    if '"lockingClause":[' in tree:
        kinds.add("select_for_update")
    return frozenset(kinds)


def _text(escaped: str) -> str:
    return str(json.loads(f'"{escaped}"')) if "\\" in escaped else escaped


def _relations(tree: str) -> tuple[str, ...]:
    names: set[str] = set()
    before, at = 0, tree.find(_RELATION)
    while at >= 0:
        start = at + len(_RELATION)
        name = _text(_string(tree, start))
        # Of a relation's fields it stands right before the name.
        near = tree.rfind(_SCHEMA, before, at) + len(_SCHEMA)
        schema = _string(tree, near) if near > before else ""
        if schema and near + len(schema) + len('",') == at:
            name = f"{_text(schema)}.{name}"
        names.add(name)
        before, at = start, tree.find(_RELATION, start)
    return tuple(sorted(names))


def _string(tree: str, start: int) -> str:
    """The string that begins at `start`, as it is escaped."""
    found = _REST.match(tree, start)
    return found.group() if found is not None else ""


def redact(text: str, kinds: frozenset[str]) -> str:
    """`text` with every string constant replaced where one of them may be a credential."""
    if UNPARSEABLE in kinds:
        return _cut(text) if _PASSWORD.search(text) or _CONNECTION.search(text) else text
    speaks = not kinds <= _DATA or _CONFIGURING.search(text)
    if kinds & _CREDENTIALS or (speaks and _PASSWORD.search(text)) or _CONNECTING.search(text):
        return _without_constants(text, re.compile(""))
    if _CONNECTION.search(text):
        return _without_constants(text, _CONNECTION)
    return text


def _without_constants(text: str, which: re.Pattern[str]) -> str:
    """`text` without its string constants that match."""
    try:
        tokens = parser.scan(text)
    except (parser.ParseError, ValueError, UnicodeError):
        return _cut(text)
    pieces, kept = [], 0
    for token in tokens:
        if token.name in _CONSTANTS and which.search(text[token.start : token.end + 1]):
            pieces += [text[kept : token.start], REDACTED]
            kept = token.end + 1
    return "".join((*pieces, text[kept:]))


def _cut(text: str) -> str:
    """`text` up to where a credential may begin: the rest of it is no statement we understand."""
    ends = [found.start() for found in _QUOTE.finditer(text)][:1]
    ends += [found.end() for found in _PASSWORD.finditer(text)][:1]
    return f"{text[: min(ends)]} {REDACTED}" if ends else text


def unparseable(
    text: str,
    message: str,
    position: int = 0,
    sqlstate: str = "42601",
    *,
    detail: str = "",
    hint: str = "",
) -> Statement:
    """A statement that is refused for what it is, whoever asks."""
    kinds = frozenset({UNPARSEABLE})
    recorded = redact(text, kinds)
    if recorded != text:
        # What the parser stumbled over, and quotes, may be the credential.
        message = message.partition('"')[0].removesuffix(_NEAR).strip()
    return Statement(
        text,
        recorded,
        UNPARSEABLE,
        kinds,
        (),
        error=message,
        position=position,
        sqlstate=sqlstate,
        detail=detail,
        hint=hint,
    )


def function_call(oid: int) -> Statement:
    """A call of the function with this OID, past SQL. It may do whatever functions do."""
    text = f"FUNCTION CALL {oid}"
    kinds = frozenset({FUNCTION_CALL})
    return Statement(text, text, FUNCTION_CALL, kinds, (), changes_settings=True)


def refused(statement: Statement, message: str, sqlstate: str) -> Statement:
    """The same statement, refused whoever asks."""
    return msgspec.structs.replace(
        statement,
        kind=UNPARSEABLE,
        kinds=frozenset({UNPARSEABLE}),
        error=message,
        sqlstate=sqlstate,
    )


def _single(text: str, tree: str, offset: int = 0) -> Statement:
    top = _TOP.search(tree)
    kinds = kinds_of(tree)
    if top is None or not kinds:
        return unparseable(text, "the statement is not understood")
    kind = _kind(top.group(1))
    if kind == "copy_to" and "copy_from" in kinds:
        kind = "copy_from"
    prepared = _PREPARED.search(tree) if kinds & _NAMES_PREPARED else None
    cursor = _CURSOR.search(tree) if kinds & _NAMES_CURSOR else None
    step = _TRANSACTION.search(tree) if "transaction" in kinds else None
    return Statement(
        text,
        redact(text, kinds),
        kind,
        kinds,
        _relations(tree),
        offset=offset,
        prepared_name=_text(prepared.group(1)) if prepared else "",
        cursor_name=_text(cursor.group(1)) if cursor else "",
        holds_cursor=bool(cursor and int(cursor.group(2) or 0) & _HOLD),
        transaction=step.group(1) if step else "",
        savepoint=_text(step.group(2) or "") if step else "",
        forgets_all=bool(kinds & _FORGETS) and _FORGETTING.search(tree) is not None,
        changes_settings=bool(kinds & _SETTING) or _SETTERS.search(tree) is not None,
        restores_settings="transaction" in kinds and _RESTORING.search(tree) is not None,
    )


def _has_too_many_parts(text: str) -> bool:
    # Counting the characters is a hundredth of the work, and mostly enough.
    most = sum(text.count(part) for part in _PART)
    return most > _MOST_PARTS and len(_PARTS.findall(text)) > _MOST_PARTS


def _takes_long(text: str) -> bool:
    """Whether the lexer, which reads operators again from each of their characters, would run for
    seconds in which nobody else is served.
    """
    return len(text) ** 2 > _STEPS and (
        sum((run.end() - run.start()) ** 2 for run in _OPERATORS.finditer(text)) > _STEPS
    )


def analyse(text: str) -> tuple[Statement, ...]:
    """The statements of a Query or Parse message, in order; none for an empty text.

    A text that does not parse is one unparseable statement, since PostgreSQL, too, parses all of
    it before it executes the first.
    """
    if "\0" in text:
        # The parser would read no further.
        return (unparseable(text, "the statement is not understood"),)
    if len(text) > _MOST_PARTS and _has_too_many_parts(text):
        return (unparseable(text, "a statement has too many parts", sqlstate="54001"),)
    if _takes_long(text):
        return (unparseable(text, "a comment or an operator is too long", sqlstate="54001"),)
    try:
        tree = trees.tree(text)
        count = tree.count('{"stmt":{')
        if count == 0:
            return ()
        if count > _MOST:
            text_too_long = f"a query may have at most {_MOST} statements"
            return (unparseable(text, text_too_long, sqlstate="54000"),)
        if count == 1:
            return (_single(text, tree),)
        slices = parser.split(text, only_slices=True)
        if len(slices) != count:
            return (unparseable(text, "the statements cannot be told apart"),)
        return tuple(_single(text[part], trees.tree(text[part]), part.start) for part in slices)
    except parser.ParseError as error:
        message = str(error.args[0]) if error.args else "syntax error"
        index = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0
        if message.endswith("at end of input"):
            # A server points behind the last character, the library at the first.
            index = len(text)
        detail, hint = said_more(text, message)
        return (unparseable(text, message, index + 1, detail=detail, hint=hint),)
    except (ValueError, UnicodeError, RecursionError, MemoryError):
        return (unparseable(text, "the statement is not understood"),)


_SHAPE: Final = re.compile(r"[A-Za-z0-9_\s.,()=<>*+;-]*")
_NUMBER: Final = re.compile(r"(?<![\w.])[0-9]+(?![\w.])")
_LONGEST_SHAPE: Final = 4096


def shape(text: str) -> str | None:
    """The text without its numbers, where nothing else in it can hold one."""
    if len(text) > _LONGEST_SHAPE or _SHAPE.fullmatch(text) is None or "--" in text:
        return None
    return _NUMBER.sub("0", text)


class Analyser:
    """`analyse`, remembering recent texts up to `max_bytes` of them.

    Texts that differ in numbers alone are the same kinds of statements on the same relations, and
    are parsed once.
    """

    _LARGEST = 64 * 1024
    _MOST_SHAPES = 2_000

    def __init__(self, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._known: OrderedDict[str, tuple[Statement, ...]] = OrderedDict()
        self._shapes: OrderedDict[str, Statement] = OrderedDict()
        self._bytes = 0
        self._max = max_bytes

    def __call__(self, text: str) -> tuple[Statement, ...]:
        known = self._known.get(text)
        if known is not None:
            return known
        shaped = shape(text)
        template = self._shapes.get(shaped) if shaped is not None else None
        if template is not None:
            return (msgspec.structs.replace(template, text=text, recorded=text),)
        statements = analyse(text)
        if shaped is not None and len(statements) == 1:
            (only,) = statements
            if not only.error and only.text == only.recorded == text:
                self._shapes[shaped] = only
                if len(self._shapes) > self._MOST_SHAPES:
                    self._shapes.popitem(last=False)
                return statements
        if len(text) <= self._LARGEST:
            self._known[text] = statements
            self._bytes += self._cost(text, statements)
            while self._bytes > self._max:
                self._bytes -= self._cost(*self._known.popitem(last=False))
        return statements

    @staticmethod
    def _cost(text: str, statements: tuple[Statement, ...]) -> int:
        return len(text) + 512 * max(1, len(statements))
