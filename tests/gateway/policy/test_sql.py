"""What a statement is: kinds that policies decide by, and texts without credentials."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.policy import sql
from gateway.policy.sql import REDACTED, Analyser, Statement, analyse

# --- kinds ---


def one(text: str) -> Statement:
    (statement,) = analyse(text)
    return statement


@pytest.mark.parametrize(
    ("text", "kind", "kinds"),
    [
        ("select 1", "select", {"select"}),
        ("table t", "select", {"select"}),
        ("values (1)", "select", {"select"}),
        ("(select 1)", "select", {"select"}),
        ("select 1 union select 2", "select", {"select"}),
        ("insert into t values (1)", "insert", {"insert", "select"}),
        ("insert into t default values", "insert", {"insert"}),
        ("update t set a = 1", "update", {"update"}),
        ("delete from t", "delete", {"delete"}),
        (
            "merge into t using s on t.a = s.a when matched then delete",
            "merge",
            {"merge"},
        ),
        ("truncate t", "truncate", {"truncate"}),
        ("drop table t", "drop", {"drop"}),
        ("drop role r", "drop_role", {"drop_role"}),
        ("drop owned by r", "drop_owned", {"drop_owned"}),
        ("create table t (a int)", "create_table", {"create_table"}),
        ("create view v as select 1", "create_view", {"create_view", "select"}),
        ("create index on t (a)", "create_index", {"create_index"}),
        ("alter table t add b int", "alter_table", {"alter_table"}),
        ("create role r", "create_role", {"create_role"}),
        ("create user u", "create_role", {"create_role"}),
        ("alter role r set a = 1", "alter_role", {"alter_role"}),
        ("grant r to s", "grant_role", {"grant_role"}),
        ("grant select on t to r", "grant", {"grant"}),
        ("revoke select on t from r", "grant", {"grant"}),
        ("begin", "transaction", {"transaction"}),
        ("commit", "transaction", {"transaction"}),
        ("savepoint s", "transaction", {"transaction"}),
        ("set a = 1", "set", {"set"}),
        ("reset all", "set", {"set"}),
        ("set role r", "set", {"set"}),
        ("set constraints all deferred", "set", {"set"}),
        ("show a", "show", {"show"}),
        ("do $$begin end$$", "do", {"do"}),
        ("call p()", "call", {"call"}),
        ("lock t", "lock", {"lock"}),
        ("listen c", "listen", {"listen"}),
        ("notify c", "notify", {"notify"}),
        ("vacuum t", "vacuum", {"vacuum"}),
        ("alter system set a = 1", "alter_system", {"alter_system"}),
        ("load 'x'", "load", {"load"}),
        ("checkpoint", "check_point", {"check_point"}),
        ("copy t to stdout", "copy_to", {"copy_to"}),
        ("copy t from stdin", "copy_from", {"copy_from"}),
        ("copy t to '/tmp/x'", "copy_to", {"copy_to", "copy_file"}),
        ("copy t from '/tmp/x'", "copy_from", {"copy_from", "copy_file"}),
        ("copy t to program 'x'", "copy_to", {"copy_to", "copy_program"}),
        ("copy t from program 'x'", "copy_from", {"copy_from", "copy_program"}),
    ],
)
def test_kinds(text: str, kind: str, kinds: set[str]) -> None:
    assert (one(text).kind, one(text).kinds) == (kind, kinds)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("with d as (delete from t returning *) select * from d", "delete"),
        ("with i as (insert into t values (1) returning *) table i", "insert"),
        ("select * from (with u as (select 1) select * from u) x", "select"),
        ("explain analyze delete from t", "delete"),
        ("explain (analyze) with d as (delete from t returning 1) select 1", "delete"),
        ("prepare p as delete from t", "delete"),
        ("explain analyze execute p", "execute"),
        ("create table x as execute p", "execute"),
        ("declare c cursor for select * from t for update", "select_for_update"),
        ("copy (delete from t returning *) to stdout", "delete"),
        ("copy (select 1) to program 'rm -rf /'", "copy_program"),
        ("select * into x from t", "create_table_as"),
        ("with x as (select 1) select * into y from x", "create_table_as"),
        ("create materialized view v as select 1", "create_table_as"),
        ("select 1 for update", "select_for_update"),
        ("select * from (select * from t for share) x", "select_for_update"),
        ("create rule r as on select to t do instead delete from u", "delete"),
        ("create rule r as on insert to t do also (delete from u; update v set a = 1)", "update"),
        ("create function f() returns int begin atomic delete from t; end", "delete"),
        ("create schema s create table t (a int)", "create_table"),
        ("drop/**/table/**/t", "drop"),
        ("-- select 1\ndrop table t", "drop"),
        ("/* /* nested */ select 1 */ drop table t", "drop"),
        ("DrOp TaBlE t", "drop"),
        ("\t\n\fdrop table t", "drop"),
        (";;;drop table t;;;", "drop"),
        ("explain verbose explain_me.t() ", sql.UNPARSEABLE),
    ],
)
def test_nothing_hides_in_another_statement(text: str, hidden: str) -> None:
    assert hidden in one(text).kinds


@pytest.mark.parametrize(
    "text",
    [
        """select '{"DropStmt":{', '{"stmt":{"DropStmt":{"'""",
        """select '"is_program":true', '"intoClause":{', '"lockingClause":['""",
        r"""select E'\",\"DropStmt\":{', $x${"DeleteStmt":{$x$""",
        """select 1 as "{""DropStmt"":{" """,
        """select 1 as "a{", 2 as "DropStmt", 3 as ",", 4 as "DeleteStmt" """,
        """select 'relname', 1 as "relname" """,
    ],
)
def test_what_a_person_typed_is_never_taken_for_the_tree(text: str) -> None:
    assert one(text).kinds == {"select"}
    assert one(text).relations == ()


def test_each_of_several_statements_is_known_by_its_own_text() -> None:
    text = "select 'ü;'; /* ; */ drop table t; -- ;\n update t set a = $$;$$"
    found = analyse(text)
    assert [statement.kind for statement in found] == ["select", "drop", "update"]
    assert [statement.text.strip() for statement in found] == [
        "select 'ü;'",
        "drop table t",
        "update t set a = $$;$$",
    ]


@pytest.mark.parametrize("text", ["", ";", " ; ; ", "-- only this", "/* and this */", "\n"])
def test_nothing_is_no_statement(text: str) -> None:
    assert analyse(text) == ()


# --- relations ---


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("select * from a, s.b join c using (x)", ("a", "c", "s.b")),
        ("select * from db.s.a", ("s.a",)),
        ('select * from "A ""quoted"" name"', ('A "quoted" name',)),
        ('select * from "weird\\back"', ("weird\\back",)),
        (r"""select * from U&"\0061bc" """, ("abc",)),
        ('select * from "ü"."é"', ("ü.é",)),
        ("select 1 where exists (select from a where b in (select c from d))", ("a", "d")),
        ("insert into a select * from b", ("a", "b")),
        ("copy a to stdout", ("a",)),
        ("truncate a, b", ("a", "b")),
        ("update a set x = 1 from b", ("a", "b")),
        ("select a.b from c", ("c",)),
        ("select 1", ()),
    ],
)
def test_relations(text: str, relations: tuple[str, ...]) -> None:
    assert one(text).relations == relations


# --- prepared statements and settings ---


@pytest.mark.parametrize(
    ("text", "name", "forgets_all"),
    [
        ("prepare p as select 1", "p", False),
        ('prepare "P q" as select 1', "P q", False),
        ("execute P", "p", False),
        ("execute p(1, 'x')", "p", False),
        ("deallocate prepare p", "p", False),
        ('deallocate "all"', "all", False),
        ("deallocate all", "", True),
        ("discard all", "", True),
        ("discard plans", "", False),
        ("select 'discard all'", "", False),
        ("prepare p as select 'DISCARD_ALL'", "p", False),
        ("explain analyze execute P(1)", "p", False),
        ("create table t as execute p", "p", False),
    ],
)
def test_names_of_prepared_statements(text: str, name: str, forgets_all: bool) -> None:
    assert (one(text).prepared_name, one(text).forgets_all) == (name, forgets_all)


@pytest.mark.parametrize(
    ("text", "changes", "restores"),
    [
        ("select set_config('a', 'b', false)", True, False),
        ("select pg_catalog.set_config('a', 'b', false)", True, False),
        (r"""select U&"set\005fconfig"('a', 'b', false)""", True, False),
        ("insert into t select set_config('a', 'b', false)", True, False),
        ("prepare p as select set_config('a', 'b', false)", True, False),
        ("set a = b", True, False),
        ("reset a", True, False),
        ("discard all", True, False),
        ("do $$begin end$$", True, False),
        ("call p()", True, False),
        ("execute p", True, False),
        ("fetch c", True, False),
        ("explain analyze execute p", True, False),
        ("load 'x'", True, False),
        ("create extension x", True, False),
        ("select query_to_xml('select set_' || 'config(1)', true, false, '')", True, False),
        ("select * from ts_stat('select f()')", True, False),
        ("update pg_settings set setting = 'off'", True, False),
        ("select 1", False, False),
        ("begin", False, False),
        ("commit", False, True),
        ("end", False, True),
        ("rollback to savepoint s", False, True),
        ("abort", False, True),
        ("prepare transaction 'x'", False, True),
        ("savepoint s", False, False),
        ("insert into t values (1)", False, False),
    ],
)
def test_what_may_change_how_texts_are_read(text: str, changes: bool, restores: bool) -> None:
    assert (one(text).changes_settings, one(text).restores_settings) == (changes, restores)


# --- credentials ---

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"create role r password '{SECRET}'",
        f"create user u with encrypted password '{SECRET}'",
        f"alter role r password '{SECRET}'",
        f"ALTER USER r PASSWORD E'a\\'{SECRET}'",
        f"alter role r password $${SECRET}$$",
        f"alter role r password $x${SECRET}$x$",
        f"alter role r password U&'{SECRET}'",
        f"alter role r password'{SECRET}'",
        f"alter role \"o'brien\" password '{SECRET}'",
        f"alter role r /* it's */ password '{SECRET}' -- isn't it",
        f"alter role r password 'a''{SECRET}'",
        f"alter role r password\n'a'\n'{SECRET}'",
        f"alter role r password 'ü{SECRET}'",
        f"create user mapping for u server s options (user 'x', password '{SECRET}')",
        f"alter user mapping for u server s options (set password '{SECRET}')",
        f"create server s foreign data wrapper w options (password '{SECRET}')",
        f"create subscription s connection 'host=h password={SECRET}' publication p",
        f"alter subscription s connection 'host=h password={SECRET}'",
        f"do $$ begin execute 'alter role r password ''{SECRET}'''; end $$",
        f"create function f() returns void language sql as 'alter role r password ''{SECRET}'''",
        f"alter system set primary_conninfo = 'host=h password={SECRET}'",
        f"create foreign table t (a int) server s options (password '{SECRET}')",
        f"copy t from program 'curl --password {SECRET} http://h'",
        f"select dblink_connect('host=h password={SECRET}')",
        f"select * from dblink('postgres://u:{SECRET}@h/d', 'select 1') as t(a int)",
        f"set my.password = '{SECRET}'",
        f"select set_config('my.password', '{SECRET}', false)",
        f"select dblink_connect('host=h passw' || 'ord={SECRET}')",
        f"select dblink_connect(format('host=h password=%s', '{SECRET}'))",
        f"select dblink_exec('host=h', 'alter role r password ''{SECRET}''')",
        f"select run('alter role r password ''{SECRET}''')",
        f"select * from dblink($$host=h password='{SECRET}'$$, 'x') as t(a int)",
        f"import foreign schema a from server s into b options (x '{SECRET}')",
        # What does not parse.
        f"alter role r password '{SECRET}",
        f"alter role r password $${SECRET}",
        f"alter role r password {SECRET}",
        f"alter role r passwort '{SECRET}' password",
        f"alter user r identified by '{SECRET}'",
        f"alter user r identified by {SECRET}",
        f"create role r pasword '{SECRET}' ; select 'password'",
        f"alter role r password E'\\'{SECRET}",
        f"select 1 from where password = '{SECRET}'",
        f"select dblink_connect('host=h password={SECRET}",
        f"/* password */ alter role r \"{SECRET}\" ) '{SECRET}'",
    ],
)
def test_a_credential_is_never_recorded(text: str) -> None:
    for statement in analyse(text):
        assert SECRET not in statement.recorded
        assert SECRET not in statement.error
        assert SECRET in statement.text


def test_what_is_no_credential_stays() -> None:
    text = "select * from users where name = 'bob' and password_hash = 'x'"
    assert one(text).recorded == text
    redacted = one("alter role r valid until '2030-01-01' password 'x' connection limit 3")
    assert redacted.recorded == (
        f"alter role r valid until {REDACTED} password {REDACTED} connection limit 3"
    )
    assert one("select from where name = 'bob'").recorded == "select from where name = 'bob'"


@given(
    before=st.text(max_size=20),
    secret=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x2FF), min_size=6, max_size=20),
    after=st.text(max_size=20),
)
def test_whatever_surrounds_it(before: str, secret: str, after: str) -> None:
    quoted = secret.replace("'", "''")
    # Typed outside of the constant as well, it is no credential there.
    assume(quoted not in before and quoted not in after)
    text = f"{before} alter role r password '{quoted}' {after}"
    for statement in analyse(text):
        if "alter role" in statement.recorded and statement.kind == "alter_role":
            assert quoted not in statement.recorded.partition("password")[2]


# --- texts that are not understood ---


def test_long_lines_of_signs_are_no_operators() -> None:
    banner = "-" * 500 + "\n"
    text = "".join(f"{banner}-- part {number}\n{banner}" for number in range(1_000)) + "select 1"
    assert one(text).kind == "select"


def test_a_text_has_so_many_statements_at_most() -> None:
    assert len(analyse("select 1;" * 30_000)) == 30_000
    (refused,) = analyse("select 1;" * 30_001)
    assert (refused.kind, refused.sqlstate) == (sql.UNPARSEABLE, "54000")


@pytest.mark.parametrize(
    ("text", "error", "position"),
    [
        ("selec 1", 'syntax error at or near "selec"', 1),
        ("select 1 frm t wher a", 'syntax error at or near "t"', 14),
        ("select 'ü' frm t wher a", 'syntax error at or near "t"', 16),
        ("select 'open", 'unterminated quoted string at or near "\'open"', 8),
        ("select", "", 0),
        ("select 1; selec 2", 'syntax error at or near "selec"', 11),
        ("select 1 + ", "syntax error at end of input", 12),
    ],
)
def test_errors_are_the_servers_own(text: str, error: str, position: int) -> None:
    statement = one(text)
    assert (statement.error, statement.position) == (error, position)
    assert (statement.kind == sql.UNPARSEABLE) is bool(error)


@pytest.mark.parametrize("text", ["select 1\0; drop table t", "\0", "select '\0'", "\ud800"])
def test_characters_that_no_text_has_are_refused(text: str) -> None:
    assert one(text).kind == sql.UNPARSEABLE


@pytest.mark.parametrize(
    "text",
    [
        "select " + "(" * 50_000 + "1" + ")" * 50_000,
        "select " + "- " * 50_000 + "1",
        "select " + "not " * 20_000 + "true",
        "select 1" + " + 1" * 50_000,
        "select " + "array[" * 20_000 + "]" * 20_000,
        "select * from t where " + " or ".join(["a = 1"] * 20_000),
        "select 1 " + "union select 1 " * 10_000,
        "with a as (" * 3_000 + "select 1" + ") select 1" * 3_000,
        "select '" + "x" * 5_000_000 + "'",
        "select 1;" * 20_000,
        "/*" * 100_000,
        "select $a$" + "$b$" * 100_000,
        '"' * 100_001,
        "select 1" + "+" * 200_000 + "1",
        "select 1 /*" + "*" * 200_000 + "*/",
        "select 1 -- password = '" + "/*" * 100_000,
    ],
    ids=lambda text: f"{text[:16]}... ({len(text)})",
)
def test_deep_and_huge_texts_are_judged_in_time_and_without_a_crash(text: str) -> None:
    begun = time.process_time()
    found = analyse(text)
    assert time.process_time() - begun < 5
    assert found
    assert {one.kind for one in found} <= {"select", sql.UNPARSEABLE}


@given(st.text(max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    for statement in analyse(text):
        assert statement.kind and statement.kind in statement.kinds | {"copy_to"}
        assert statement.text in text


# --- remembering ---


def test_recent_texts_are_remembered_and_old_ones_forgotten() -> None:
    analyser = Analyser(max_bytes=10_000)
    first = analyser("select '1'")
    assert analyser("select '1'") is first
    for number in range(100):
        analyser(f"select {number} -- {'x' * 500}")
    assert analyser("select '1'") is not first
    assert analyser("select '1'") == first


def test_a_huge_text_is_not_kept() -> None:
    analyser = Analyser()
    text = f"select '{'x' * 100_000}'"
    assert analyser(text) is not analyser(text)


@pytest.mark.parametrize("part", [",1", "+1", "-1", "/1", "||1"])
def test_a_text_whose_parsing_would_hold_up_everybody_is_refused(part: str) -> None:
    refused = one("select 1" + part * 600_000)
    assert (refused.kind, refused.sqlstate) == ("unparseable", "54001")


@pytest.mark.parametrize(
    ("text", "name", "holds"),
    [
        ('declare "C" cursor for select 1', "C", False),
        ("declare C binary insensitive cursor without hold for select 1", "c", False),
        ("declare C scroll cursor with hold for select 1", "c", True),
        ("fetch C", "c", False),
        ("fetch absolute -3 from c", "c", False),
        ("fetch backward all in c", "c", False),
        ('move relative 32 from "q""{x"', 'q"{x', False),
        ("close c", "c", False),
        ("close all", "", False),
        ('select \'{"stmt":{"FetchStmt":{"portalname":"c"\'', "", False),
    ],
)
def test_a_cursor_is_named(text: str, name: str, holds: bool) -> None:
    assert (one(text).cursor_name, one(text).holds_cursor) == (name, holds)


@pytest.mark.parametrize(
    ("text", "step", "savepoint"),
    [
        ("begin isolation level serializable", "BEGIN", ""),
        ("end", "COMMIT", ""),
        ("abort", "ROLLBACK", ""),
        ("rollback and chain", "ROLLBACK", ""),
        ("prepare transaction 'x'", "PREPARE", ""),
        ("savepoint S", "SAVEPOINT", "s"),
        ('release savepoint "S"', "RELEASE", "S"),
        ("rollback to s", "ROLLBACK_TO", "s"),
        ("select 1", "", ""),
    ],
)
def test_a_step_of_a_transaction(text: str, step: str, savepoint: str) -> None:
    assert (one(text).transaction, one(text).savepoint) == (step, savepoint)


def test_texts_that_differ_in_numbers_are_parsed_once_and_keep_their_own() -> None:
    analyser = Analyser()
    (first,) = analyser("select a from t where b = 17 limit 5")
    (second,) = analyser("select a from t where b = 4 limit 1000")
    assert second.text == second.recorded == "select a from t where b = 4 limit 1000"
    assert second == sql.analyse(second.text)[0]
    assert (first.text, first.relations) == ("select a from t where b = 17 limit 5", ("t",))


@pytest.mark.parametrize(
    "text",
    [
        "select a from t where b = '17'",
        "select a -- 17\n from t",
        'select a from "t 17"',
        "select $1 from t",
        "select $$17$$",
        "select a /* 17 */ from t",
        "select é from t",
    ],
)
def test_where_numbers_may_stand_in_something_else_there_is_no_shape(text: str) -> None:
    assert sql.shape(text) is None


def test_numbers_that_are_parts_of_names_stay() -> None:
    assert sql.shape("select t1.c2 from t1 where a_3 = 42 and x = 1.5") == (
        "select t1.c2 from t1 where a_3 = 0 and x = 1.5"
    )
