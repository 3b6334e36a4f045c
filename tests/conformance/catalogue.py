"""All suites, by the names that `make conformance SUITES=...` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.conformance import golang, node, orms, rust, suites
from tests.conformance.suites import Suite

ALL: Final[Mapping[str, Suite]] = {
    **suites.ALL,
    **orms.ALL,
    **golang.ALL,
    **rust.ALL,
    **node.ALL,
}
