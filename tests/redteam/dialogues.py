"""Messages in orders that no driver sends them in, each a way to a classified value."""

from __future__ import annotations

from typing import Final

from tests.gateway.protocols.postgres import messages as pg

_SYNC: Final = pg.message("S")
_FLUSH: Final = pg.message("H")
_READ: Final = "select ssn, email, code from people order by id"
_SECRET: Final = "select ssn || '' as s from people order by id"


def _run(text: str, *, binary: bool = False) -> bytes:
    return pg.parse(text) + pg.bind(results=(int(binary),)) + pg.execute()


# Each part ends with a Query or a Sync, and is sent when the one before it is answered.
DIALOGUES: Final[dict[str, tuple[bytes, ...]]] = {
    "binary results, never described": (_run(_READ, binary=True) + _SYNC,),
    "formats by column": (
        pg.parse(_READ) + pg.bind(results=(0, 1, 0)) + pg.describe_portal() + pg.execute() + _SYNC,
    ),
    "one name prepared twice, the harmless one first": (
        pg.parse("select name from people", "a") + _SYNC,
        pg.close_statement("a") + pg.parse(_READ, "a") + pg.bind((), "a") + pg.execute() + _SYNC,
    ),
    "prepared in SQL, bound by message": (
        pg.query(f"prepare a as {_READ}"),
        pg.bind((), "a") + pg.execute() + _SYNC,
    ),
    "prepared by message, executed in SQL": (
        pg.parse(_READ, "a") + _SYNC,
        pg.query("execute a"),
    ),
    "declared in SQL, executed as a portal": (
        pg.query("begin"),
        pg.query(f"declare a cursor for {_READ}"),
        pg.describe_portal("a") + pg.execute("a", 3) + pg.execute("a") + _SYNC,
    ),
    "a portal fetched from in SQL": (
        pg.query("begin"),
        pg.parse(_READ) + pg.bind((), "", "a") + pg.execute("a", 2) + _SYNC,
        pg.query("fetch all from a"),
    ),
    "a portal suspended, others between": (
        pg.query("begin"),
        pg.parse(_READ, "a")
        + pg.bind((), "a", "p")
        + pg.execute("p", 1)
        + _run("select name from people", binary=True)
        + pg.execute("p", 1)
        + _FLUSH
        + pg.execute("p")
        + _SYNC,
    ),
    "two portals of one statement": (
        pg.parse(_READ, "a")
        + pg.bind((), "a", "p")
        + pg.bind((), "a", "q", results=(1,))
        + pg.execute("q", 2)
        + pg.execute("p")
        + pg.execute("q")
        + _SYNC,
    ),
    "a pipeline over a failure": (
        _run("select 1") + pg.parse("select broken") + _run(_SECRET) + _SYNC + _run(_READ) + _SYNC,
    ),
    "described before it is bound otherwise": (
        pg.parse("select name from people", "a")
        + pg.describe_statement("a")
        + pg.close_statement("a")
        + pg.parse(_READ, "a")
        + pg.bind((), "a", results=(1,))
        + pg.execute()
        + _SYNC,
    ),
    "parameters of a row's type and of none": (
        pg.parse("select id from people where ssn > $1 order by id")
        + pg.bind((b"5",))
        + pg.execute()
        + _SYNC,
        pg.parse("select id from people where salary > $1 order by id", oids=(20,))
        + pg.bind((b"500",))
        + pg.execute()
        + _SYNC,
    ),
    "many statements in one message": (
        pg.query(f"select 1; {_READ}; {_SECRET}; table people"),
        pg.query("begin; declare c cursor for table people; fetch all from c; commit"),
    ),
    "binary COPY": (pg.query("copy people (id, ssn, salary) to stdout (format binary)"),),
    "COPY by messages": (_run("copy people (id, ssn) to stdout") + _SYNC,),
    "a binary cursor": (
        pg.query("begin; declare c binary cursor for select ssn, salary, born from people"),
        pg.query("fetch 2 from c"),
        pg.parse("fetch all from c") + pg.bind() + pg.execute() + _SYNC,
    ),
    "settings between prepare and execute": (
        pg.parse("select label, ssn from people order by id", "a") + _SYNC,
        pg.query("set datestyle to sql; set bytea_output to escape"),
        pg.bind((), "a") + pg.execute() + _SYNC,
    ),
    "changes that return": (
        pg.query("begin"),
        _run("update people set name = 'x' returning id, ssn, code", binary=True) + _SYNC,
        _run("delete from people where salary > 500 returning id") + _SYNC,
        pg.query("rollback"),
    ),
    "a long chain of prepared names": (
        pg.query(f"prepare a as {_SECRET}"),
        pg.query("prepare b as execute a"),
        pg.query("execute a; deallocate a"),
        pg.parse(_SECRET, "a") + pg.bind((), "a", "c") + pg.execute("c") + _SYNC,
    ),
    "a cursor over a change of the table": (
        pg.query("begin"),
        pg.parse(_READ, "a") + pg.bind((), "a", "p") + pg.execute("p", 1) + _SYNC,
        pg.query("alter table plain add column extra int"),
        pg.execute("p") + _SYNC,
        pg.query("rollback"),
    ),
}
