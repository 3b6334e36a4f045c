"""Who can open what is sealed, from a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from cli.main import app
from gateway.recipients import recipients_of, warnings
from infra.devstack.certificates import ensure_recipient
from schemas.settings import Settings, SettingsError

NAMES = ("mask", "carol", "dave", "erin")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in NAMES:
        ensure_recipient(tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem")
    return tmp_path


def person(keys: Path, name: str, key: str | None = None) -> dict[str, str]:
    return {"name": name, "public_key": str(keys / f"{key or name}.pub.pem")}


def board(keys: Path, *members: dict[str, str], threshold: int = 2) -> dict[str, Any]:
    people = list(members) or [person(keys, name) for name in NAMES[1:]]
    return {"name": "audit-board", "threshold": threshold, "members": people}


def settings(*recipients: dict[str, Any]) -> Settings:
    return Settings.model_validate({"recipients": list(recipients)})


def test_recipients_that_open_alone_and_quorums_stand_side_by_side(keys: Path) -> None:
    made = recipients_of(settings(person(keys, "mask"), board(keys)))
    assert [name for name, _ in made.keys] == ["mask"]
    (quorum,) = made.quorums
    assert (quorum.name, quorum.threshold) == ("audit-board", 2)
    assert [name for name, _ in quorum.members] == ["carol", "dave", "erin"]
    assert warnings(made) == []


def test_a_member_who_opens_alone_is_warned_about_by_key_not_by_name(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = person(keys, "somebody", "dave")
    assert warnings(recipients_of(settings(alone, board(keys)))) == [
        "recipients: dave of audit-board is a recipient, too, and opens everything alone"
    ]
    monkeypatch.setenv("GATEBOOK_STATE_DIR", str(keys / "none"))
    config = keys / "gatebook.yaml"
    (keys / "policies").mkdir()
    (keys / "policies" / "all.cedar").write_text(
        '@id("all") permit (principal in Group::"dba", action, resource);'
    )
    members = "\n".join(
        f"    - {{name: {name}, public_key: {keys / name}.pub.pem}}" for name in NAMES[1:]
    )
    config.write_text(
        f"recipients:\n- {{name: somebody, public_key: {keys}/dave.pub.pem}}\n"
        f"- name: audit-board\n  threshold: 2\n  members:\n{members}\n"
    )
    arguments = ["policy", "check", str(keys / "policies"), "--config", str(config)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "warning: recipients: dave of audit-board" in done.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 1}, "threshold"),
        ({"threshold": 4}, "4 of 3 members"),
        ({"members": []}, "members"),
        ({"public_key": "x"}, "public_key"),
        ({"threshold": None}, "threshold"),
    ],
)
def test_a_quorum_that_makes_no_sense_is_refused(
    keys: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        settings({**board(keys), **change})


def test_one_person_is_one_member(keys: Path) -> None:
    twice = board(keys, person(keys, "carol"), person(keys, "carol", "dave"))
    with pytest.raises(ValidationError, match="one name"):
        settings(twice)
    with pytest.raises(SettingsError, match="one key"):
        recipients_of(settings(board(keys, person(keys, "carol"), person(keys, "dave", "carol"))))


def test_a_key_that_cannot_be_read_is_named(keys: Path) -> None:
    missing = board(keys, person(keys, "carol"), person(keys, "nobody"))
    with pytest.raises(SettingsError, match=r"nobody\.pub\.pem"):
        recipients_of(settings(missing))
