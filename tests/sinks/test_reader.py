"""Reading the history with the clients people use, and with those they should not have."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import clickhouse_connect
import httpx
import pytest
import zstandard
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from sinks.reader import NotLoopback, Query, Reader, _Execution, require_loopback
from sinks.serve import Service
from sinks.store import Store
from tests.sinks.conftest import TOKEN, insert, settings_in
from tests.sinks.recorded import Stream, context, many

pytestmark = pytest.mark.integration

STATEMENTS = 50
AUTHENTICATED = {"X-ClickHouse-User": "someone", "X-ClickHouse-Key": TOKEN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    """A history of 50 statements, for the whole module: readers change nothing."""
    made = Store.open(settings_in(folder))
    insert(made, many(STATEMENTS, "gateway-1/a/0"))
    yield made
    made.close()


@contextmanager
def serving(reader: Reader) -> Iterator[str]:
    service = Service(reader.app(), "127.0.0.1", 0)
    thread = threading.Thread(target=asyncio.run, args=(service.run(),))
    thread.start()
    yield service.url
    service.stop()
    thread.join()
    reader.close()


@pytest.fixture(scope="module")
def url(store: Store, folder: Path) -> Iterator[str]:
    """The endpoint."""
    del store  # it has the engine open
    with serving(Reader(settings_in(folder))) as made:
        yield made


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """Someone with the token."""
    with httpx.Client(base_url=url, headers=AUTHENTICATED, timeout=30) as client:
        yield client


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_clickhouse_connect(url: str) -> None:
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=port(url), username="alice", password=TOKEN, database="audit"
    )
    assert str(client.server_version).startswith("26.")
    found = client.query("SELECT * FROM queries ORDER BY started_at LIMIT 2")
    assert found.column_names[:3] == ("started_at", "actor", "groups")
    assert [row[1] for row in found.result_rows] == ["user0", "user1"]
    assert client.command("SELECT count() FROM queries") == STATEMENTS
    assert len(client.query_df("SELECT * FROM sessions")) == 8
    assert client.query_arrow("SELECT actor FROM sessions").num_rows == 8
    bound = client.query(
        "SELECT {text:String}, {list:Array(UInt8)}, {none:Nullable(String)}",
        parameters={"text": "a\t'b\\\n", "list": [1, 2], "none": None},
    )
    assert bound.result_rows == [("a\t'b\\\n", [1, 2], None)]
    with client.query_rows_stream("SELECT number, 'x' FROM numbers(200000)") as stream:
        assert sum(row[0] for row in stream) == 200000 * 199999 // 2
    empty = client.query("SELECT actor, rows FROM queries WHERE 0")
    assert (empty.column_names, empty.result_rows) == (("actor", "rows"), [])
    client.close()


@pytest.mark.parametrize("compress", ["gzip", "zstd", False])
def test_clickhouse_connect_with_compression(url: str, compress: str | bool) -> None:
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=port(url), access_token=TOKEN, compress=compress
    )
    rows = client.query("SELECT number, toString(number) FROM numbers(100000)").result_rows
    assert rows[-1] == (99999, "99999")
    client.close()


async def test_clickhouse_connect_async(url: str) -> None:
    client = await clickhouse_connect.get_async_client(
        host="127.0.0.1", port=port(url), password=TOKEN, database="audit"
    )
    counts = await asyncio.gather(
        *[client.command("SELECT count() FROM queries") for _ in range(20)]
    )
    assert counts == [STATEMENTS] * 20
    await client.close()


def test_clickhouse_connect_reports_errors_with_their_numbers(url: str) -> None:
    client = clickhouse_connect.get_client(host="127.0.0.1", port=port(url), password=TOKEN)
    late = "SELECT throwIf(number = 2900000) FROM numbers(3000000)"
    for query, code in (
        ("SELECT nope", 47),
        ("SELECT * FROM nope", 60),
        ("SELEC", 62),
        (late, 395),
    ):
        with pytest.raises(ClickHouseError) as raised:
            client.query(query).result_rows  # noqa: B018 (read when asked for)
        assert getattr(raised.value, "code", None) == code, query
    client.close()


@pytest.mark.parametrize(
    "credential",
    [
        {"headers": {"X-ClickHouse-Key": TOKEN}},
        {"headers": {"Authorization": f"Bearer {TOKEN}"}},
        {"headers": {"Authorization": "Basic " + b64encode(f"u:{TOKEN}".encode()).decode()}},
        {"params": {"user": "u", "password": TOKEN}},
    ],
)
def test_each_way_to_say_the_token(url: str, credential: dict[str, dict[str, str]]) -> None:
    params = {"query": "SELECT 1", **credential.get("params", {})}
    answer = httpx.get(url, params=params, headers=credential.get("headers"))
    assert (answer.status_code, answer.text) == (200, "1\n")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-ClickHouse-Key": ""},
        {"X-ClickHouse-Key": TOKEN[:-1]},
        {"X-ClickHouse-Key": TOKEN + "x"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + b64encode(TOKEN.encode()).decode()},
        {"Authorization": "Negotiate x"},
        # A wrong header is not saved by a right one of another kind.
        {"X-ClickHouse-Key": "wrong", "Authorization": f"Bearer {TOKEN}"},
    ],
)
def test_without_the_token_nothing_is_read(url: str, headers: dict[str, str]) -> None:
    for query in ("SELECT 1", ""):
        answer = httpx.post(url, content=query, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
        assert answer.text.startswith("Code: 516. DB::Exception: Authentication failed")
        assert "(AUTHENTICATION_FAILED)" in answer.text
        assert TOKEN not in answer.text


def test_ping_needs_no_token(url: str) -> None:
    assert httpx.get(f"{url}/ping").text == "Ok.\n"


def test_a_query_in_the_url_in_the_body_and_in_both(http: httpx.Client) -> None:
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"
    assert http.post("/", content="SELECT 1").text == "1\n"
    assert http.post("/", params={"query": "SELECT 1,"}, content="2").text == "1\t2\n"
    assert http.get("/").text == "Ok.\n"


def test_formats(http: httpx.Client) -> None:
    def ask(query: str, **params: str) -> httpx.Response:
        return http.post("/", content=query, params=params)

    assert ask("SELECT 1 AS a", default_format="CSVWithNames").text == '"a"\n1\n'
    assert ask("SELECT 1 AS a FORMAT JSONEachRow", default_format="CSV").text == '{"a":1}\n'
    answer = ask("SELECT 1 AS a", default_format="JSON")
    assert answer.json()["data"] == [{"a": 1}]
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["X-ClickHouse-Format"] == "JSON"
    header = http.post("/", content="SELECT 1", headers={"X-ClickHouse-Format": "CSV"})
    assert header.headers["X-ClickHouse-Format"] == "CSV"
    assert ask("SELECT 1", default_format="no such").status_code == 400
    assert ask("SELECT 1", default_format="Nope").status_code >= 400
    assert ask("SELECT number FROM numbers(0)", default_format="CSV").text == ""
    chosen = ask("SELECT toInt64(1) AS a", default_format="JSON",
                 output_format_json_quote_64bit_integers="1")  # fmt: skip
    assert chosen.json()["data"] == [{"a": "1"}]


def test_parameters_are_bound_by_the_engine(http: httpx.Client) -> None:
    params = {"param_who": "user1' OR 1 --", "query": "SELECT {who:String}"}
    assert http.get("/", params=params).text == "user1\\' OR 1 --\n"
    params = {
        "param_who": "user1",
        "query": "SELECT count() FROM queries WHERE actor = {who:String}",
    }
    assert http.get("/", params=params).text == "7\n"


def test_the_database_is_chosen_per_request(http: httpx.Client) -> None:
    assert http.get("/", params={"query": "SELECT currentDatabase()"}).text == "audit\n"
    other = {"query": "SELECT currentDatabase()", "database": "system"}
    assert http.get("/", params=other).text == "system\n"
    assert http.get("/", params={"query": "SELECT currentDatabase()"}).text == "audit\n"
    missing = http.get("/", params={"query": "SELECT 1", "database": "no`such"})
    assert missing.status_code == 404
    assert "Code: 81." in missing.text


def test_compressed_requests_and_answers(http: httpx.Client) -> None:
    packed = gzip.compress(b"SELECT 1")
    assert http.post("/", content=packed, headers={"Content-Encoding": "gzip"}).text == "1\n"
    packed = zstandard.compress(b"SELECT 1")
    assert http.post("/", content=packed, headers={"Content-Encoding": "zstd"}).text == "1\n"
    for name in ("gzip", "zstd"):
        params = {"enable_http_compression": "1", "query": "SELECT repeat('x', 9999)"}
        answer = http.get("/", params=params, headers={"Accept-Encoding": name})
        assert answer.headers["Content-Encoding"] == name
        assert len(answer.text) == 10_000
    bomb = gzip.compress(b" " * 50_000_000)
    refused = http.post("/", content=bomb, headers={"Content-Encoding": "gzip"})
    assert "too large" in refused.text
    assert http.post("/", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 400
    assert http.post("/", content=b"x", headers={"Content-Encoding": "snappy"}).status_code == 400
    assert http.get("/", params={"query": "SELECT 1", "compress": "1"}).status_code == 501


def test_large_queries_are_refused(http: httpx.Client) -> None:
    assert "too large" in http.post("/", content="SELECT 1" + " " * 2_000_000).text


WRITES = [
    "INSERT INTO audit_events (event_id) VALUES (generateUUIDv4())",
    "INSERT INTO audit_events (event_id) SELECT generateUUIDv4()",
    "INSERT INTO FUNCTION file('{tmp}/out', 'CSV', 'x UInt8') VALUES (1)",
    "INSERT INTO audit_events FROM INFILE '{tmp}/in' FORMAT CSV",
    "ALTER TABLE audit_events DELETE WHERE 1",
    "DELETE FROM audit_events WHERE 1",
    "TRUNCATE TABLE audit_events",
    "DROP TABLE audit_events",
    "DROP VIEW queries",
    "RENAME TABLE audit_events TO x",
    "CREATE TABLE x (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a UInt8)",
    "CREATE OR REPLACE VIEW queries AS SELECT 1",
    "CREATE FUNCTION x AS a -> a",
    "ATTACH TABLE x FROM '/tmp' (a UInt8) ENGINE = MergeTree ORDER BY a",
    "OPTIMIZE TABLE audit_events FINAL",
    "SYSTEM SHUTDOWN",
    "SYSTEM KILL",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "SET allow_ddl = 1",
    "USE system",
    "GRANT ALL ON *.* TO default",
    "BACKUP TABLE audit_events TO File('{tmp}/out')",
    "EXECUTE AS default SELECT 1",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/passwd'",
    "SELECT 1; DROP TABLE audit_events",
    "SELECT 1; SET readonly = 0; DROP TABLE audit_events",
    "SELECT 1;\n\n;DROP TABLE audit_events",
    "SELECT 1 /* ; */; -- \nDROP TABLE audit_events",
]
FILES = [
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT \"file\"('/etc/passwd')",
    "SELECT /* x */ file /* ( */ ('/etc/passwd')",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "WITH '/etc/passwd' AS p SELECT file(p)",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM (SELECT * FROM view(SELECT * FROM file('/etc/passwd', 'LineAsString')))",
    "SELECT * FROM loop(file('/etc/passwd', 'LineAsString'))",
    "DESCRIBE TABLE file('/etc/passwd')",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM sqlite('/etc/passwd', 'x')",
    "SELECT * FROM icebergLocal('/etc')",
    "SELECT * FROM fileCluster('default', '/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'x String')",
    "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
    "SELECT * FROM remoteSecure('127.0.0.1', 'system', 'one')",
    "SELECT * FROM cluster('default', 'system', 'one')",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/x', 'CSV', 'x String')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM executable('id', 'TSV', 'x String')",
    "SELECT * FROM Python(reader)",
    "SELECT * FROM Python('reader')",
    "SELECT * FROM python(self)",
    "SELECT 1 INTO OUTFILE '{tmp}/out'",
    "SELECT 1 into/**/outfile '{tmp}/out' TRUNCATE",
    "SELECT 1 INTO OUTFILE '{tmp}/out' AND STDOUT FORMAT CSV",
    "EXPLAIN SELECT 1 INTO OUTFILE '{tmp}/out'",
    "SHOW TABLES INTO OUTFILE '{tmp}/out'",
    "SELECT ‘x’ INTO OUTFILE ‘{tmp}/out’",
    "SELECT $$x$$ INTO OUTFILE $$ {tmp}/out $$",
]


@pytest.mark.parametrize("query", WRITES + FILES)
def test_hostile_queries_change_nothing_and_reach_nothing(
    http: httpx.Client, query: str, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("1\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    answer = http.post("/", content=query.replace("{tmp}", str(tmp_path)).encode())
    assert answer.status_code >= 400, answer.text
    assert answer.text.startswith("Code: ")
    assert "root:" not in answer.text
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert http.post("/", content="SELECT count() FROM queries").text == f"{STATEMENTS}\n"


@pytest.mark.parametrize("query", WRITES[:24])
def test_writes_are_refused_as_a_server_refuses_them(http: httpx.Client, query: str) -> None:
    answer = http.post("/", content=query)
    assert "(READONLY)" in answer.text or "(SYNTAX_ERROR)" in answer.text
    assert answer.headers["X-ClickHouse-Exception-Code"] in ("164", "62")


def test_settings_in_the_url_raise_no_limit(http: httpx.Client) -> None:
    for name, value in (
        ("readonly", "0"), ("allow_ddl", "1"), ("max_memory_usage", "0"),
        ("format_schema_path", "/etc"), ("output_format_json_x", "'; DROP TABLE audit_events; --"),
    ):  # fmt: skip
        http.get("/", params={"query": "SELECT 1", name: value})
    query = "SELECT getSetting('readonly'), getSetting('max_memory_usage') > 0"
    params = {"query": query, "readonly": "0", "max_memory_usage": "0"}
    assert http.get("/", params=params).text == "1\t1\n"


def test_a_query_is_stopped_at_its_time_limit(http: httpx.Client) -> None:
    started = time.monotonic()
    endless = {"query": "SELECT count() FROM system.numbers", "max_execution_time": "0.5"}
    answer = http.get("/", params=endless)
    assert "(TIMEOUT_EXCEEDED)" in answer.text
    assert time.monotonic() - started < 10


def test_results_and_memory_are_bounded(http: httpx.Client) -> None:
    large = "SELECT repeat('x', 1000) FROM numbers(1000000)"
    answer = http.post("/", content=f"{large} FORMAT JSON")
    assert "(TOO_MANY_ROWS_OR_BYTES)" in answer.text
    hungry = "SELECT length(groupArray(number)) FROM numbers(1000000000)"
    assert "(MEMORY_LIMIT_EXCEEDED)" in http.post("/", content=hungry).text


def test_text_that_looks_like_code_is_only_text(http: httpx.Client) -> None:
    texts = ("Python(reader)", "INTO OUTFILE", "file(/etc/passwd)", "; DROP TABLE x", "{x:UInt8}")
    for text in texts:
        assert http.post("/", content=f"SELECT '{text}'").text == f"{text}\n"


def test_a_client_that_does_not_read_is_let_go(folder: Path, store: Store) -> None:
    del store  # it has the engine open
    reader = Reader(settings_in(folder).model_copy(update={"query_timeout_s": 0.5}))
    with serving(reader) as url, socket.create_connection(("127.0.0.1", port(url))) as stuck:
        body = b"SELECT number FROM system.numbers FORMAT CSV"
        stuck.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nX-ClickHouse-Key: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (TOKEN.encode(), len(body), body)
        )
        assert stuck.recv(12) == b"HTTP/1.1 200"
        assert reader._open == 1
        deadline = time.monotonic() + 30
        while reader._open and time.monotonic() < deadline:
            time.sleep(0.02)
        assert reader._open == 0


def test_clients_that_leave_early_free_their_queries(url: str) -> None:
    """Several at a time: a query may be closed while a thread fetches for it."""

    def leave(_: int) -> None:
        for _ in range(40):
            with httpx.stream(
                "POST", url, content="SELECT number FROM system.numbers FORMAT CSV",
                headers=AUTHENTICATED, timeout=60,
            ) as answer:  # fmt: skip
                next(answer.iter_bytes())

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(leave, range(4)))
    assert httpx.post(url, content="SELECT 1", headers=AUTHENTICATED, timeout=10).text == "1\n"


def test_a_query_is_freed_by_the_thread_that_fetches_for_it(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies when a stream is cancelled under the thread that fetches from it."""
    del url  # the engine is open
    query = Query("SELECT number FROM system.numbers", "audit", "CSV", {}, {}, "q")
    execution = _Execution(Reader(settings_in(folder)), query)
    fetching, closed = threading.Event(), threading.Event()
    freed: list[int] = []

    def fetch(_: _Execution) -> bytes:
        fetching.set()
        assert closed.wait(10)
        return b"1"

    free = _Execution._free

    def noted(it: _Execution) -> None:
        freed.append(threading.get_ident())
        free(it)

    monkeypatch.setattr(_Execution, "_fetch", fetch)
    monkeypatch.setattr(_Execution, "_free", noted)
    assert execution.next()
    reading = threading.Thread(target=execution.next)
    reading.start()
    assert fetching.wait(10)
    execution.close()
    assert freed == []
    closed.set()
    reading.join()
    execution.close()
    assert freed == [reading.ident]
    assert execution.next() is None


def test_the_writer_goes_on_while_readers_read(http: httpx.Client, store: Store) -> None:
    answers: list[str] = []

    def read() -> None:
        endless = {"query": "SELECT count() FROM system.numbers", "max_execution_time": "8"}
        answers.append(http.get("/", params=endless).text)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    stream = Stream("gateway-1/w/0")
    for number in range(5):
        event = stream.event("SessionOpened", context())
        insert(store, [event], first=1000 + number)
    still = [reader.is_alive() for reader in readers]
    for reader in readers:
        reader.join()
    assert still == [True] * 4, "five inserts took longer than the readers' eight seconds"
    assert all("(TIMEOUT_EXCEEDED)" in answer for answer in answers)


def test_only_loopback_addresses_are_bound() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        require_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(NotLoopback):
            require_loopback(host)


def test_a_refused_client_says_why(url: str) -> None:
    with pytest.raises(DatabaseError, match="516"):
        clickhouse_connect.get_client(host="127.0.0.1", port=port(url), password="wrong")
