"""The compiled modules (`make compile`) under the tests of the same modules in Python.

mypyc checks at run time what mypy only believes: what passes in Python can be a TypeError there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("schemas", "gateway", "processors", "sinks", "cli", "infra", "tests")
FILES = ("pyproject.toml", "setup.py", "README.md")
TESTS = (
    "tests/schemas",
    "tests/gateway/protocols",
    "tests/gateway/policy/test_sql.py",
    "tests/processors/test_mask.py",
    "tests/integration/test_gateway_psql.py",
    "tests/integration/test_gateway_row_limits.py",
)
IMPORTED = "import gateway.driver, gateway.protocols.postgres.session as it; print(it.__file__)"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the compiled modules beside them."""
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    if shutil.which("cc") is None or not headers.exists():
        pytest.skip("no C compiler, or no headers of Python")
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    # Optimised or not, the checks are the same.
    settings = {"GATEBOOK_COMPILE": "1", "MYPYC_OPT_LEVEL": "0"}
    made = run(tree, "setup.py", "-q", "build_ext", "--inplace", **settings)
    assert made.returncode == 0, made.stdout[-3000:]
    return tree


def run(tree: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_compiled_modules_pass_the_tests_of_those_in_python(tree: Path) -> None:
    file = run(tree, "-c", IMPORTED).stdout.strip()
    assert file.startswith(str(tree)) and file.endswith(".so")
    done = run(tree, "-m", "pytest", *TESTS)
    assert done.returncode == 0, done.stdout[-6000:]
