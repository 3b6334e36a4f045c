"""Compiles the gateway's hot modules with mypyc, from the same typed Python, where asked to.

    GATEBOOK_COMPILE=1 pip wheel .      a wheel with compiled modules
    make compile                        the same into build/compiled, for `make bench`

Without it the package is pure Python: slower, identical, and what the tests run;
tests/compiled runs those of the compiled modules again with them.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import setup

HOT = [
    "schemas/binary.py",
    "schemas/chain.py",
    "schemas/codec.py",
    "schemas/commitments.py",
    "schemas/ids.py",
    "schemas/sealing.py",
    "schemas/statements.py",
    "gateway/driver.py",
    "gateway/policy/sql.py",
    "gateway/recorder.py",
    "gateway/protocols/postgres/answering.py",
    "gateway/protocols/postgres/asking.py",
    "gateway/protocols/postgres/names.py",
    "gateway/protocols/postgres/pipeline.py",
    "gateway/protocols/postgres/portals.py",
    "gateway/protocols/postgres/requests.py",
    "gateway/protocols/postgres/session.py",
    "gateway/protocols/postgres/wire.py",
]


def extensions() -> list[Any]:
    """Extension modules to build; none unless GATEBOOK_COMPILE=1."""
    if os.environ.get("GATEBOOK_COMPILE") != "1":
        return []
    from Cython.Build import cythonize
    from mypyc.build import mypycify

    rows = cythonize(["gateway/masking/_rows.pyx"], build_dir="build/cython", quiet=True)
    level = os.environ.get("MYPYC_OPT_LEVEL", "3")
    return [*mypycify(HOT, opt_level=level, debug_level="0"), *rows]


setup(ext_modules=extensions())
