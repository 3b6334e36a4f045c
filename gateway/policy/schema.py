"""The published Cedar schema, and what is wrong with policies by it. Pure."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import cedarpy


@functools.cache
def text() -> str:
    """`gatebook.cedarschema`."""
    return (resources.files("gateway.policy") / "gatebook.cedarschema").read_text()


@functools.cache
def _schema() -> Any:
    return cedarpy.Schema.from_str(text())


def problems(policies: str) -> list[str]:
    """What is wrong with policies that parse: unknown names, wrong types. Each in one line."""
    result = cedarpy.validate_policies(policies, _schema())
    if result.validation_passed:
        return []
    return [" ".join(str(error).split()) for error in result.errors]
