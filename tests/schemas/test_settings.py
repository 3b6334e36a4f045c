from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from schemas import settings
from schemas.settings import Equality, SecretRef, Settings, SettingsError, load

ROOT = Path(__file__).parents[2]


def sections() -> Iterator[type[BaseModel]]:
    for _, value in inspect.getmembers(settings, inspect.isclass):
        if issubclass(value, BaseModel) and value.__module__ == settings.__name__:
            yield value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gatebook.yaml"


def test_every_setting_is_described() -> None:
    undescribed = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        # A section is described by its class.
        if not (field.description or _section_of(field.annotation))
    ]
    assert undescribed == []


def _section_of(annotation: Any) -> bool:
    names = re.findall(r"schemas\.settings\.(\w+)", str(annotation))
    return bool(names) and all(getattr(settings, name).__doc__ for name in names)


def test_every_setting_is_used() -> None:
    """A setting that nothing reads promises what does not happen."""
    code = "\n".join(
        path.read_text()
        for plane in ("gateway", "processors", "sinks", "infra", "cli", "schemas")
        for path in (ROOT / plane).rglob("*.py")
        if path.name != "settings.py"
    ) + inspect.getsource(SecretRef.read)
    unused = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name in section.model_fields
        if not re.search(rf"\.{name}\b", code)
    ]
    assert unused == []


def test_defaults_need_no_file() -> None:
    assert load(None).kafka.bootstrap_servers == "127.0.0.1:9092"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("kafak: {}", "kafak"),
        ("mask: {privat_key: x}", "mask.privat_key"),
        ("gateway: {journal: {deadline: 5}}", "gateway.journal.deadline"),
        ("targets: [{name: a, hots: b}]", "targets.0.hots"),
    ],
)
def test_an_unknown_key_is_refused_and_named(file: Path, text: str, key: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(key)):
        load(file)


@pytest.mark.parametrize(
    "text",
    [
        "mask: {batch_records: canary}",
        "mask: {private_key: canary}",
        "kafka: {password: canary}",
        "kafka: {security_protocol: canary}",
        "targets: canary",
        "clickhouse: {http_token: {value: canary}}",
        "mask: {private_key: {canary: x}}",
        "oidc: {issuer: [canary]}",
    ],
)
def test_a_wrong_value_is_never_echoed(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file)
    # Keys are named. Here the canary stands for a secret that was put in the wrong place.
    if "{canary:" not in text:
        assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["- a", "text", "a: [", "a: b: c", "\t- x", "! !"])
def test_what_is_no_mapping_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError):
        load(file)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(str(file))):
        load(file)


def test_two_targets_of_one_name_are_refused(file: Path) -> None:
    target = "{name: a, host: h, database: d, user: u, password: {env: X}}"
    file.write_text(f"targets: [{target}, {target}]")
    with pytest.raises(SettingsError, match="two targets are named a"):
        load(file)


def test_the_environment_overrides_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("mask: {batch_records: 7, group_id: file}")
    monkeypatch.setenv("GATEBOOK_MASK__BATCH_RECORDS", "8")
    loaded = load(file)
    assert (loaded.mask.batch_records, loaded.mask.group_id) == (8, "file")


def test_settings_cannot_be_changed_once_loaded() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().mask.group_id = "other"  # type: ignore[call-arg]


# --- secrets ---


def test_a_secret_is_read_from_a_file_or_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("from file\n")
    monkeypatch.setenv("A_SECRET", "from environment")
    assert SecretRef.model_validate({"file": file}).read() == "from file"
    assert SecretRef.model_validate({"env": "A_SECRET"}).read() == "from environment"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({}, "exactly one"),
        ({"env": "A", "file": "/b"}, "exactly one"),
        ({"env": "NOT_SET"}, "NOT_SET is not set"),
        ({"file": "/nowhere/secret"}, "/nowhere/secret"),
    ],
)
def test_a_secret_that_cannot_be_read_names_its_reference(
    reference: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(SettingsError, match=message):
        SecretRef.model_validate(reference).read()


_TARGET = "targets: [{name: a, host: h, database: d, user: u, password: {env: X}, %s}]"


def test_a_column_is_as_its_class_says_unless_it_says_otherwise(file: Path) -> None:
    file.write_text(
        _TARGET % "classes: {pii: {mask: email, use: refuse, equality: {reason: x, budget: 2}}}, "
        "classified: {s.t.a: {class: pii}, s.t.b: {class: pii, mask: full, equality: null}, "
        "s.t.c: {class: pci, mask: partial}}"
    )
    [target] = load(file).targets
    a, b, c = (target.classified[f"s.t.{name}"] for name in "abc")
    assert (a.mask, a.use, a.equality) == ("email", "refuse", Equality(reason="x", budget=2))
    assert (b.mask, b.use, b.equality) == ("full", "refuse", None)
    assert (c.mask, c.use, c.equality) == ("partial", "rewrite", None)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("classified: {s.t.a: {class: pii, equality: true}}", "`reason` and a `budget`"),
        ("classes: {pii: {equality: false}}", "`reason` and a `budget`"),
        ("classified: {s.t.a: {class: pii, equality: {budget: 1}}}", "reason"),
        ("classified: {s.t.a: {class: pii, equality: {reason: x, budget: 0}}}", "budget"),
        ("classified: {s.t.a: {class: pii, equality: {reason: '', budget: 1}}}", "reason"),
        ("classes: {pii: {class: pii}}", "class"),
        ("classes: {pii: {mask: bucket}}", "size"),
        ("classes: {pii: 3}, classified: {s.t.a: {class: pii}}", "classes.pii"),
        ("classes: {pii: {use: pass}}", "use"),
        ("classes: [], classified: {s.t.a: {class: pii}}", "classes"),
    ],
)
def test_a_class_that_is_not_one_is_refused(file: Path, given: str, why: str) -> None:
    file.write_text(_TARGET % given)
    with pytest.raises(SettingsError, match=re.escape(why)):
        load(file)


def test_parts_are_masked_as_their_class_says(file: Path) -> None:
    file.write_text(
        _TARGET % "classes: {pii: {mask: email, use: refuse, equality: {reason: x, budget: 2}}, "
        "pci: {mask: partial}}, classified: {s.t.a: {class: pii, parts: {/a: {}, /b~1c: "
        "{class: pci}, /d/*/0: {mask: full, class: other}}}}"
    )
    [target] = load(file).targets
    column = target.classified["s.t.a"]
    assert (column.mask, column.use, column.equality) == ("full", "refuse", None)
    assert {
        pointer: (part.classification, part.mask) for pointer, part in column.parts.items()
    } == {
        "/a": ("", "email"),
        "/b~1c": ("pci", "partial"),
        "/d/*/0": ("other", "full"),
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("parts: {ssn: {}}", "JSON Pointer"),
        ("parts: {'': {}}", "JSON Pointer"),
        ("parts: {/a/: {}}", "JSON Pointer"),
        ("parts: {/a~2b: {}}", "JSON Pointer"),
        ("parts: {/a: {}, '#/b': {}}", "no. 2"),
        ("parts: {'/a/*/*/*': {}}", "more than 2"),
        ("mask: partial, parts: {/a: {}}", "no `mask`"),
        ("equality: {reason: x, budget: 1}, parts: {/a: {}}", "no `equality`"),
        ("parts: {/a: {use: refuse}}", "use"),
        ("parts: {/a: {mask: bucket}}", "size"),
        ("parts: {/a: 5}", "parts"),
    ],
)
def test_what_is_no_part_is_refused(file: Path, given: str, why: str) -> None:
    file.write_text(_TARGET % f"classified: {{s.t.a: {{class: pii, {given}}}}}")
    with pytest.raises(SettingsError, match=re.escape(why)):
        load(file)
