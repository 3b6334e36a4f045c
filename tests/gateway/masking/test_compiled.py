"""The compiled loop against the one in Python, on any rows, whole or broken."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.masking import pump
from gateway.masking.hidden import Column, Mask
from gateway.masking.pump import Pump, PumpError
from tests.gateway.masking.test_pump import row

SOURCE = Path(pump.__file__).with_name("_rows.pyx")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("compiled")
    code, library = folder / "_rows.c", folder / "_rows.so"
    cythonize = [sys.executable, "-m", "cython", "-3", str(SOURCE), "-o", str(code)]
    subprocess.run(cythonize, check=True, capture_output=True)
    include = f"-I{sysconfig.get_paths()['include']}"
    build = [compiler, "-O1", "-shared", "-fPIC", include, str(code), "-o", str(library)]
    done = subprocess.run(build, check=False, capture_output=True, text=True)
    if "Python.h" in done.stderr:
        pytest.skip("no headers of Python")
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("_rows", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MASKS = [
    Column("a", 1, "text", "text", 0, Mask("pii", "full")),
    Column("b", 2, "text", "text", 0, Mask("pii", "email")),
    Column("c", 3, "text", "text", 0, Mask("pii", "partial")),
    Column("d", 4, "text", "text", 0, Mask("pci", "token")),
    Column("e", 5, "int4", "integer", 0, Mask("pii", "null")),
    Column("f", 6, "bpchar", "character(6)", 6, Mask("pii", "email")),
    Column("g", 7, "varchar", "character varying(2)", 2, Mask("pii", "literal", "gone")),
]
VALUES = st.none() | st.one_of(
    st.binary(max_size=24),
    st.text(max_size=16).map(str.encode),
    st.text("ab.@ -1234567890\n", max_size=24).map(str.encode),
    st.emails().map(str.encode),
)
COLUMNS = st.dictionaries(st.integers(0, 6), st.sampled_from(MASKS), max_size=5)
ROWS = st.lists(st.lists(VALUES, min_size=5, max_size=8), max_size=4)


def outcome(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except (PumpError, ValueError):
        return "refused"


@given(COLUMNS, ROWS, st.data())
@settings(max_examples=600, deadline=None)
def test_both_mask_alike(
    compiled: ModuleType,
    columns: dict[int, Column],
    rows: list[list[bytes | None]],
    data: st.DataObject,
) -> None:
    sent = bytearray(b"".join(row(*each) for each in rows))
    if sent and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(sent) - 1))
        sent[at] = data.draw(st.integers(0, 255))
    if sent and data.draw(st.booleans()):
        del sent[data.draw(st.integers(0, len(sent))) :]
    it = Pump(columns, "utf-8", {"pci": b"k" * 32})
    expected = outcome(lambda: it.rows_in_python(bytes(sent)))
    assert outcome(lambda: compiled.mask_rows(bytes(sent), it._rules, it._value)) == expected
