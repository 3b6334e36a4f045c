"""The settings document of a stack: what each process reads from gatebook.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import yaml

from infra.devstack import shop
from infra.devstack.conninfo import Conninfo
from infra.devstack.plan import Plan
from infra.devstack.state import StateDir

POLICIES = Path(__file__).with_name("policies")
AUDITORS = ("carol",)
TARGET = "shop"


class BadOverlay(Exception):
    """The file given with --config does not fit."""


@dataclass(frozen=True, slots=True, repr=False)
class ClickHouseServer:
    """A ClickHouse server that is not ours. No `repr`: it holds the password."""

    url: str
    username: str
    password: str

    @classmethod
    def parse(cls, text: str, password: str = "") -> ClickHouseServer:
        """Split `http(s)://user:password@host:port`; `password` serves when it names none."""
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadOverlay("--clickhouse needs http://host:port or https://host:port")
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        return cls(
            urlunsplit(bare),
            unquote(parts.username or "default"),
            unquote(parts.password or "") or password,
        )


def document(
    state: StateDir,
    plan: Plan,
    bootstrap_servers: str,
    target: Conninfo,
    clickhouse: ClickHouseServer | None,
) -> dict[str, Any]:
    """The whole settings document (schemas/settings.py)."""
    return {
        "kafka": {"bootstrap_servers": bootstrap_servers},
        "oidc": {"issuer": issuer_url(plan), "audience": "gatebook", "ca_file": str(state.ca_file)},
        "recipients": [
            {"name": name, "public_key": str(state.keys / f"{name}.pub.pem")}
            for name in ("mask", *AUDITORS)
        ],
        "targets": [
            {
                "name": TARGET,
                "host": target.host,
                "port": target.port,
                "database": target.database,
                "user": target.user,
                "password": {"file": str(state.target_password)},
                "sslmode": target.sslmode,
                **({"ca_file": target.sslrootcert} if target.sslrootcert else {}),
                "classified": shop.CLASSIFIED,
            }
        ],
        "gateway": {
            "postgres": {
                "host": "127.0.0.1",
                "certificate": str(state.tls / "server.pem"),
                "private_key": str(state.tls / "server.key"),
            },
            "policies": str(POLICIES),
            "desk": {"unsealers": ["auditors"], "erasers": ["auditors"]},
        },
        "mask": {
            "private_key": {"file": str(state.keys / "mask.pem")},
            "state_dir": str(state.root / "mask"),
            "metrics_port": plan.mask_metrics,
        },
        "clickhouse": {
            **(
                {
                    "url": clickhouse.url,
                    "username": clickhouse.username,
                    "password": {"file": str(state.clickhouse_token)},
                }
                if clickhouse
                else {
                    "path": str(state.root / "clickhouse"),
                    "http_port": plan.clickhouse,
                    "http_token": {"file": str(state.clickhouse_token)},
                    "vault_token": {"file": str(state.vault_token)},
                }
            ),
            "metrics_port": plan.clickhouse_metrics,
        },
        "run_dir": str(state.run),
    }


def issuer_url(plan: Plan) -> str:
    """The development issuer's `iss`."""
    return f"https://localhost:{plan.issuer}"


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: sections merge key by key, anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        current = result.get(key)
        both = isinstance(value, Mapping) and isinstance(current, Mapping)
        result[key] = overlaid(current, value) if both else value  # type: ignore[arg-type]
    return result


def read_overlay(path: Path) -> dict[str, Any]:
    """The mapping in an operator's YAML file. Raises BadOverlay."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise BadOverlay(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError:
        raise BadOverlay(f"{path} is not YAML") from None
    if not isinstance(content, dict):
        raise BadOverlay(f"{path} must hold a mapping")
    return content
