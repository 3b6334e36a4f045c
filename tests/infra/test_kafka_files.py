"""Lock file, Java and server.properties."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.kafka import jars, java, server


def cluster(size: int, folder: Path = Path("/srv/kafka")) -> server.Cluster:
    nodes = tuple(server.Node(n, 9091 + n, 9291 + n, folder / str(n)) for n in range(1, size + 1))
    return server.Cluster("LkU3OEVBNTcwNTJENDM2Qg", nodes)


def test_the_lock_pins_every_jar_once() -> None:
    locked = jars.read_lock(jars.LOCK.read_text())
    assert len(locked) == 92
    assert len({jar.file_name for jar in locked}) == 92
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in locked)
    assert {jar.version for jar in locked if jar.group == "org.apache.kafka"} == {jars.VERSION}


@pytest.mark.parametrize("line", ["a:b:1", "a:b sha256:" + "0" * 64, "a:b:1 sha256:12"])
def test_a_broken_lock_names_its_line(line: str) -> None:
    with pytest.raises(jars.JarsUnavailable, match="line 2"):
        jars.read_lock(f"# comment\n{line}\n")


def test_kafka_home_is_used_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert jars.libs() == tmp_path / "libs"
    with pytest.raises(jars.JarsUnavailable, match="KAFKA_HOME"):
        jars.ensure()
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-4.3.1.jar").touch()
    jars.ensure()


def test_another_lock_has_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    before = jars.libs()
    changed = tmp_path / "jars.lock"
    changed.write_text(jars.LOCK.read_text() + "# changed\n")
    monkeypatch.setattr(jars, "LOCK", changed)
    assert jars.libs() != before


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25.0.2" 2026-01-20 LTS', 25),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("bash: java: command not found", 0),
    ],
)
def test_java_versions(output: str, version: int) -> None:
    assert java.parse_version(output) == version


def test_an_old_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = java.find()
    assert found.executable != old
    assert found.version >= java.MINIMUM


@pytest.mark.parametrize(("size", "replicas", "in_sync"), [(1, "1", "1"), (3, "3", "2")])
def test_durability_follows_the_cluster(size: int, replicas: str, in_sync: str) -> None:
    whole = cluster(size)
    for node in whole.nodes:
        settings = server.properties(whole, node)
        assert settings["offsets.topic.replication.factor"] == replicas
        assert settings["transaction.state.log.replication.factor"] == replicas
        assert settings["min.insync.replicas"] == in_sync
        assert settings["unclean.leader.election.enable"] == "false"
        assert settings["auto.create.topics.enable"] == "false"
        assert len(settings["controller.quorum.voters"].split(",")) == size


def test_every_listener_is_on_loopback() -> None:
    whole = cluster(3)
    for node in whole.nodes:
        settings = server.properties(whole, node)
        for key in ("listeners", "advertised.listeners", "controller.quorum.voters"):
            hosts = re.findall(r"(?://|@)([^:,]*):", settings[key])
            assert hosts, key
            assert set(hosts) == {"127.0.0.1"}, key


def test_a_backslash_in_a_path_is_escaped() -> None:
    assert server.render({"log.dirs": "/a\\b"}) == "log.dirs=/a\\\\b\n"


def test_cluster_ids_are_22_characters_and_no_option() -> None:
    ids = {server.new_cluster_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(len(identifier) == 22 and identifier[0] != "-" for identifier in ids)
