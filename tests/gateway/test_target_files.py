"""What of the targets has changed, and why a set cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.target_files import Difference, TargetFiles, between, digest
from gateway.watch import stamp
from schemas.settings import Target, load

NAMES = st.dictionaries(st.text(max_size=3), st.integers(0, 2))


@given(NAMES, NAMES)
def test_what_was_with_the_difference_is_what_is(
    before: dict[str, int], now: dict[str, int]
) -> None:
    added, changed, removed = between(before, now)
    kept = {name: each for name, each in before.items() if name not in (*changed, *removed)}
    assert kept | {name: now[name] for name in (*added, *changed)} == now
    assert not set(added) & before.keys() and set(removed) <= before.keys() - now.keys()
    assert all(before[name] != now[name] for name in changed)


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "host": "h", "database": "d", "user": "u", "password": {"env": "SHOP_PASSWORD"}, **changes,
    }  # fmt: skip


def target(name: str, **changes: Any) -> Target:
    return Target.model_validate({"name": name, **entry(**changes)})


def test_a_digest_is_of_what_targets_say_in_any_order() -> None:
    one, other = target("a"), target("b", classified={"s.t.c": {"class": "pii"}})
    assert digest([one, other]) == digest([other, one]) != digest([one])
    assert digest([target("a", port=1)]) != digest([one])
    assert digest([target("a", password={"env": "OTHER"})]) != digest([one])


class Folder:
    """Settings with one target, and a folder of policies for others."""

    def __init__(self, root: Path) -> None:
        self.config = root / "gatebook.yaml"
        self.targets = root / "policies" / "targets"
        self.targets.mkdir(parents=True)
        self.write([{"name": "shop", **entry()}])
        self.files = TargetFiles(self.config, load(self.config))

    def write(self, targets: list[dict[str, Any]], **others: Any) -> None:
        gateway = {"policies": str(self.targets.parent)}
        document = {"gateway": gateway, "targets": targets, **others}
        self.config.write_text(yaml.safe_dump(document))

    def put(self, file: str, text: str | None = None, **changes: Any) -> Path:
        path = self.targets / f"{file}.yaml"
        path.write_text(yaml.safe_dump(entry(**changes)) if text is None else text)
        return path

    def names(self) -> set[str]:
        found = self.files.load()
        assert found.targets is not None, found.reason
        return set(found.targets)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("SHOP_PASSWORD", "geheim")
    return Folder(tmp_path)


def test_targets_of_the_settings_and_of_files_are_loaded(folder: Folder) -> None:
    assert folder.names() == {"shop"}
    folder.put('o"dd näme')
    assert folder.names() == {"shop", 'o"dd näme'}


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("host: [geheim", {}, "crm.yaml is not YAML, line 1"),
        ("a: 2026-99-99", {}, "crm.yaml is not YAML"),
        ("[" * 5000, {}, "crm.yaml is not YAML"),
        ("{1: geheim}", {}, "crm.yaml must hold a mapping"),
        ("[geheim]", {}, "crm.yaml must hold a mapping"),
        ("\x00geheim", {}, "crm.yaml is not YAML"),
        ("", {}, "crm.yaml: host: Field required"),
        (None, {"passwort": "geheim"}, "crm.yaml: passwort: Extra inputs"),
        (None, {"port": "geheim"}, "crm.yaml: port: "),
        (None, {"name": "shop"}, "two targets are named shop"),
        (None, {"password": {"env": "NOT_SET"}}, "target crm: environment variable NOT_SET"),
        (None, {"password": {"file": "/nowhere"}}, "target crm: cannot read secret file /nowhere"),
        (None, {"token_key": {"env": "SHOP_PASSWORD"}}, "targets.crm: token_key has less than 32"),
    ],
)
def test_a_file_that_is_no_target_says_why_and_never_what_it_holds(
    folder: Folder, text: str | None, changes: dict[str, Any], said: str
) -> None:
    folder.put("crm", text, **changes)
    loaded = folder.files.load()
    assert loaded.targets is None and said in loaded.reason
    assert "geheim" not in loaded.reason
    folder.put("crm")
    assert folder.names() == {"shop", "crm"}


def test_settings_that_are_broken_elsewhere_say_so_without_their_content(folder: Folder) -> None:
    folder.config.write_text("oidc: {issuer: geheim: x}")
    assert folder.files.load().reason == f"{folder.config} is not YAML, line 1"
    folder.config.write_bytes(b"\xff\xfegeheim")
    assert folder.files.load().reason == f"{folder.config} is not UTF-8"
    folder.write([], mask={"batch": 3})
    assert folder.files.load().reason == "mask.batch: Extra inputs are not permitted"
    folder.config.unlink()
    assert folder.files.load().reason.startswith("cannot read ")


def test_other_settings_that_have_changed_are_named(folder: Folder) -> None:
    assert folder.files.load().others == ()
    folder.write([], mask={"batch_records": 3})
    loaded = folder.files.load()
    assert (loaded.targets, loaded.others) == ({}, ("mask",))


def test_a_secret_that_changes_is_seen_also_of_a_set_that_lacks_it(
    folder: Folder, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    folder.put("crm", password={"file": str(secret)})
    assert folder.files.load().targets is None
    before = stamp(folder.files.files())
    secret.write_text("geheim")
    assert stamp(folder.files.files()) != before
    assert folder.names() == {"shop", "crm"}


def test_a_key_of_tokens_that_changes_changes_its_target(folder: Folder, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    folder.put("crm", token_key={"file": str(key)})
    first = folder.files.load().targets
    key.write_text("l" * 32)
    second = folder.files.load().targets
    assert first is not None and second is not None
    assert between(first, second) == Difference((), ("crm",), ())
    assert "kkkk" not in repr(first)
