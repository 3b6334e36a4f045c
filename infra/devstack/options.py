"""Options as JSON, for the way from the command line to the supervisor's process."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from infra.devstack import shop
from infra.devstack.plan import Options


def to_json(options: Options) -> str:
    """Text that `from_json` reads. It may hold passwords: for a pipe, not for a file."""
    return json.dumps(asdict(options), default=str)


def from_json(text: str) -> Options:
    """Options that `to_json` wrote."""
    fields = json.loads(text)
    return Options(
        **{
            **fields,
            "config": Path(fields["config"]) if fields["config"] else None,
            "size": shop.Size(**fields["size"]),
            "only": tuple(fields["only"]),
        }
    )
