"""Conversations of a client, as hypothesis strategies: every message, in every useful order."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from tests.gateway.protocols.postgres import messages as pg

Strategy = st.SearchStrategy[bytes]

STATEMENT_NAMES = st.sampled_from(["", "a", "b", "n" * 63 + "x", "n" * 63 + "y"])
PORTAL_NAMES = st.sampled_from(["", "", "p", "q"])

PLAIN = [
    "select 1",
    "select 3",
    "select 2 wide",
    "select 1/0",
    "select nope",
    "insert into t values (1)",
    "insert into deferred values (1)",
    "begin",
    "commit",
    "rollback",
    "do $$n$$",
    "copy t to stdout",
    "prepare a as select 1",
    "prepare a as select 2",
    "execute a",
    "deallocate a",
    "deallocate all",
    "discard all",
    "discard plans",
    "",
]
REFUSED = ["drop table t", "selec 1", "select from where"]
SETTING = [
    "set standard_conforming_strings = off",
    "set standard_conforming_strings = on",
    "select 'a\\b'",
]


def conversation(texts: list[str], length: int = 12) -> Strategy:
    """What a client sends, from sign-in to a Sync with which everything is answered."""
    text = st.sampled_from(texts)
    one = st.one_of(
        st.lists(text, min_size=1, max_size=3).map("; ".join).map(pg.query),
        st.builds(pg.parse, text, STATEMENT_NAMES),
        st.builds(bind, STATEMENT_NAMES, PORTAL_NAMES),
        st.builds(pg.execute, PORTAL_NAMES, st.sampled_from([0, 0, 1, 2])),
        st.builds(pg.describe_statement, STATEMENT_NAMES),
        st.builds(pg.describe_portal, PORTAL_NAMES),
        st.builds(pg.close_statement, STATEMENT_NAMES),
        st.builds(pg.close_portal, PORTAL_NAMES),
        st.just(pg.SYNC),
        st.just(pg.SYNC),
        st.just(pg.FLUSH),
        st.builds(pg.extended, text),
        st.builds(run_prepared, STATEMENT_NAMES),
        copying(),
    )
    return st.lists(one, min_size=1, max_size=length).map(b"".join).map(lambda said: said + pg.SYNC)


def bind(name: str, portal: str) -> bytes:
    return pg.bind([b"1", None], name, portal)


def run_prepared(name: str) -> bytes:
    return pg.bind([], name) + pg.execute() + pg.SYNC


def copying() -> Strategy:
    """A COPY with its data sent at once, in both protocols; a row may be bad."""
    data = st.lists(st.sampled_from([b"1\n", b"2\n", b"bad\n"]), max_size=3).map(
        lambda lines: b"".join(map(pg.copy_data, lines))
    )
    end = st.sampled_from([pg.COPY_DONE, pg.copy_fail("no")])
    copy = "copy t from stdin"
    simple = st.just(pg.query(copy))
    # A Sync before a Query: otherwise an error before it would have the target read the COPY's
    # data as nothing, and this test's reader the Query as a COPY.
    both = st.one_of(
        simple.map(lambda query: pg.SYNC + query),
        st.just(
            pg.SYNC
            # Names of its own: another Execute of it would read what follows as its data.
            + pg.close_statement("copy")
            + pg.close_portal("copy")
            + pg.parse(copy, "copy")
            + pg.bind(name="copy", portal="copy")
            + pg.execute("copy")
            + pg.SYNC
        ),
    )
    return st.builds(lambda begin, rows, last: begin + rows + last + pg.SYNC, both, data, end)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]


CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)
