"""Benchmarks: of the compiled modules, where `make compile` has made them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

COMPILED = Path(__file__).parents[1] / "build" / "compiled"
if COMPILED.is_dir():
    # What a wheel holds: for this process, and for those of a stack, which inherit it.
    sys.path.insert(0, str(COMPILED))
    os.environ["PYTHONPATH"] = str(COMPILED)
