"""The generated settings are settings, and hold no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.devstack import configuration
from infra.devstack.configuration import BadOverlay, ClickHouseServer, overlaid, read_overlay
from infra.devstack.conninfo import Conninfo
from infra.devstack.options import from_json, to_json
from infra.devstack.plan import Options, Plan, remember, remembered_ports
from infra.devstack.ports import Ports
from infra.devstack.shop import CLASSIFIED, Size
from infra.devstack.state import StateDir
from schemas import settings

TARGET = Conninfo("127.0.0.1", 15432, "shop", "gatebook_shop", "hunter2", "disable")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    folder = StateDir.at(tmp_path / "state")
    folder.create()
    return folder


def plan(tmp_path: Path, options: Options) -> Plan:
    return Plan.make(options, Ports({}, tmp_path / "ports"))


def generated(state: StateDir, tmp_path: Path, clickhouse: ClickHouseServer | None) -> Any:
    options = Options(clickhouse="x" if clickhouse else None)
    document = configuration.document(
        state, plan(tmp_path, options), "127.0.0.1:9092", TARGET, clickhouse
    )
    state.config_file.write_text(yaml.safe_dump(document))
    return document


def test_the_generated_file_is_a_valid_settings_file(state: StateDir, tmp_path: Path) -> None:
    generated(state, tmp_path, None)
    read = settings.load(state.config_file)
    assert read.oidc is not None
    assert read.oidc.ca_file == state.ca_file
    assert [recipient.name for recipient in read.recipients] == ["mask", "carol"]
    [target] = read.targets
    assert (target.name, target.host, target.port) == ("shop", "127.0.0.1", 15432)
    assert set(target.classified) == set(CLASSIFIED)
    assert read.gateway.policies is not None
    assert list(read.gateway.policies.glob("*.cedar"))


def test_secrets_are_references(state: StateDir, tmp_path: Path) -> None:
    server = ClickHouseServer.parse("https://reader:hunter3@ch.example:8443")
    generated(state, tmp_path, server)
    text = state.config_file.read_text()
    assert "hunter" not in text
    assert "reader" in text
    assert settings.load(state.config_file).clickhouse.url == "https://ch.example:8443"


def test_one_file_serves_every_gateway_by_environment(
    state: StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated(state, tmp_path, None)
    monkeypatch.setenv("GATEBOOK_GATEWAY__NAME", "gateway-2")
    monkeypatch.setenv("GATEBOOK_GATEWAY__POSTGRES__PORT", "6433")
    # Ours, and no setting.
    monkeypatch.setenv("GATEBOOK_STATE_DIR", str(state.root))
    gateway = settings.load(state.config_file).gateway
    assert (gateway.name, gateway.postgres.port) == ("gateway-2", 6433)
    assert gateway.postgres.certificate == state.tls / "server.pem"


def test_an_overlay_merges_sections_and_replaces_values() -> None:
    base = {"gateway": {"name": "a", "journal": {"deadline_s": 5}}, "targets": [1]}
    over = {"gateway": {"journal": {"deadline_s": 2}}, "targets": [2], "mask": {"batch_records": 9}}
    assert overlaid(base, over) == {
        "gateway": {"name": "a", "journal": {"deadline_s": 2}},
        "targets": [2],
        "mask": {"batch_records": 9},
    }
    assert base["gateway"] == {"name": "a", "journal": {"deadline_s": 5}}


@pytest.mark.parametrize(("text", "reason"), [("- a", "mapping"), ("a: [", "not YAML")])
def test_a_bad_overlay_says_why(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "over.yaml"
    file.write_text(text)
    with pytest.raises(BadOverlay, match=reason):
        read_overlay(file)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8123", ("http://127.0.0.1:8123", "default", "given")),
        ("https://a:b%40c@ch.example:8443", ("https://ch.example:8443", "a", "b@c")),
    ],
)
def test_clickhouse_urls(url: str, expected: tuple[str, str, str]) -> None:
    server = ClickHouseServer.parse(url, "given")
    assert (server.url, server.username, server.password) == expected
    assert server.password not in repr(server)


def test_a_clickhouse_url_that_is_none_is_refused() -> None:
    with pytest.raises(BadOverlay, match="http"):
        ClickHouseServer.parse("ch.example:8123")


def test_a_plan_has_a_port_for_each_part_and_none_twice(tmp_path: Path) -> None:
    made = plan(tmp_path, Options(gateways=3, brokers=3))
    ports = [
        made.postgres,
        made.clickhouse,
        made.issuer,
        made.mask_metrics,
        made.clickhouse_metrics,
    ]
    ports += [port for gateway in made.gateways for port in (gateway.postgres, gateway.metrics)]
    ports += [port for broker in made.brokers for port in (broker.broker, broker.controller)]
    assert len(ports) == len(set(ports)) == 5 + 6 + 6
    assert [gateway.name for gateway in made.gateways] == ["gateway-1", "gateway-2", "gateway-3"]


def test_parts_that_are_elsewhere_have_no_port(tmp_path: Path) -> None:
    made = plan(tmp_path, Options(kafka="k:9092", target="user=x", clickhouse="http://c:8123"))
    assert (made.brokers, made.postgres, made.clickhouse) == ((), None, None)


def test_the_next_start_finds_the_same_ports(state: StateDir, tmp_path: Path) -> None:
    ports = Ports({}, tmp_path / "ports")
    first = Plan.make(Options(), ports)
    remember(state, Options(), ports, "cluster")
    ports.release()
    again = Ports(remembered_ports(state), tmp_path / "ports")
    assert Plan.make(Options(), again) == first
    # A smaller stack in between does not forget the larger one's.
    remember(state, Options(gateways=1), again, "cluster")
    assert remembered_ports(state)["gateway-2"] == first.gateways[1].postgres


def test_what_is_kept_of_the_options_holds_no_password(state: StateDir, tmp_path: Path) -> None:
    options = Options(target="user=x password=hunter2", clickhouse="http://a:hunter2@c:8123")
    remember(state, options, Ports({}, tmp_path / "ports"), "cluster")
    assert "hunter2" not in state.plan_file.read_text()
    assert "hunter2" not in repr(options)


def test_options_survive_the_way_to_the_supervisor() -> None:
    options = Options(3, 3, Path("/a/b.yaml"), "k:1", "t", "c", Size(1, 2), ("kafka",))
    assert from_json(to_json(options)) == options
