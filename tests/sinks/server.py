"""A ClickHouse server for tests: the embedded engine behind HTTP, writable, one database user.

Run as a process of its own: an engine belongs to one process. Speaks what clickhouse-connect
sends: the query in the URL or in the body, an insert's data after it, settings in the URL.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
from pathlib import Path

import chdb
import lz4.frame  # type: ignore[import-untyped]
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

PASSWORD = "the server's password"
_INSERT = re.compile(rb"(INSERT INTO .*?) FORMAT (\w+)\n", re.DOTALL)
_SETTING = re.compile(r"async_insert|insert_\w+|deduplicate_\w+|max_partitions_per_insert_block")


class Server:
    def __init__(self, path: str) -> None:
        self._connection = chdb.connect(path)
        self._lock = threading.Lock()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self.query, methods=["GET", "POST"])])

    async def query(self, request: Request) -> Response:
        if request.headers.get("authorization") is None:
            return PlainTextResponse("Code: 516. DB::Exception: no", status_code=403)
        body = await request.body()
        if request.headers.get("content-encoding") == "lz4":
            body = lz4.frame.decompress(body)
        sql = request.query_params.get("query", "").encode()
        data = sql + b"\n" + body if sql else body
        parameters = {
            name.removeprefix("param_"): value
            for name, value in request.query_params.items()
            if name.startswith("param_")
        }
        settings = ", ".join(
            f"{name} = '{value}'"
            for name, value in request.query_params.items()
            if _SETTING.fullmatch(name)
        )
        try:
            with self._lock:
                if "database" in request.query_params:
                    self._connection.query(f"USE `{request.query_params['database']}`")
                if (insert := _INSERT.match(data)) is not None:
                    return self._insert(insert, data[insert.end() :], settings)
                result = self._connection.query(data.decode(), "TabSeparated", params=parameters)
        except RuntimeError as error:
            code = re.search(r"Code: (\d+)", str(error))
            headers = {"X-ClickHouse-Exception-Code": code[1] if code else "1000"}
            return PlainTextResponse(str(error), status_code=500, headers=headers)
        return Response(result.bytes(), headers={"X-ClickHouse-Format": "TabSeparated"})

    def _insert(self, insert: re.Match[bytes], data: bytes, settings: str) -> Response:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self._connection.query(
                f"{insert[1].decode()} FROM INFILE '{file.name}'"
                f"{' SETTINGS ' + settings if settings else ''} FORMAT {insert[2].decode()}"
            )
        return Response(b"", headers={"X-ClickHouse-Summary": "{}"})


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    uvicorn.run(Server(str(folder)).app(), host="127.0.0.1", port=port, log_level="critical")
