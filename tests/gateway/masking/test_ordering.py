from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.masking.hidden import Column, Equality, Mask, Scans
from gateway.masking.ordering import Index, fixed, scans, settings
from gateway.masking.plan import plan
from gateway.masking.veil import Veil
from tests.gateway.masking.shop import HIDDEN

FULL, PARTIAL = Mask("pii", "full"), Mask("pii", "partial")
LOOKED_UP = Mask("pii", "full", equality=Equality("they say it", 3))
COLUMNS = {
    100: [
        Column("id", 1, "int4", "integer"),
        Column("ssn", 2, "text", "text", 0, FULL),
        Column("card", 3, "text", "text", 0, PARTIAL),
        Column("mail", 4, "text", "text", 0, LOOKED_UP),
        Column("pin", 5, "int4", "integer", 0, Mask("pii", "null")),
    ]
}


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ((100, (1,), ()), "any"),
        ((100, (1,), (2, 3)), "any"),
        ((100, (2,), ()), "any"),
        ((100, (2, 5), ()), "any"),
        ((100, (1, 2), ()), "none"),
        ((100, (2, 1), ()), "none"),
        # Its rows, with what shows, are all in it; or a WHERE of what shows leads to it.
        ((100, (2,), (1,)), "none"),
        # Several with one mask come in the order of what is masked.
        ((100, (3,), ()), "not alone"),
        ((100, (3, 2), (5,)), "not alone"),
        # One value is in no order.
        ((100, (4,), ()), "any"),
        ((100, (4, 2), ()), "none"),
        ((200, (1, 2), ()), "any"),
    ],
)
def test_an_order_that_tells_is_not_scanned(index: Index, expected: Scans) -> None:
    assert scans([index], COLUMNS) == expected
    assert scans([index, (100, (1,), ())], COLUMNS) == expected
    assert scans([(100, (1, 2), ()), index], COLUMNS) == "none"


def test_parts_of_a_document_tell() -> None:
    within = {100: [Column("doc", 1, "jsonb", "jsonb", 0, replace(FULL, parts=(object(),)))]}  # type: ignore[arg-type]
    assert scans([(100, (1,), ())], within) == "not alone"


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ("enable_seqscan", {"none"}),
        ("Enable_IndexScan", {"none"}),
        ("enable_sort", {"none"}),
        ("seq_page_cost", {"none"}),
        ("cpu_operator_cost", {"none"}),
        ("enable_indexonlyscan", {"none", "not alone"}),
        ("work_mem", set()),
    ],
)
def test_what_brings_the_order_back_cannot_be_set(setting: str, kept: set[Scans]) -> None:
    every: tuple[Scans, ...] = ("any", "not alone", "none")
    for each in every:
        held = each in kept
        assert fixed(each, setting) is held
        hidden = replace(HIDDEN, scans=each)
        for text in (
            f"set {setting} = 'off'",
            f"set local {setting} to 1",
            f"select set_config('{setting}', 'off', false)",
        ):
            assert (plan(text, hidden).action == "refuse") is held, text
        for text in (f"reset {setting}", f"set {setting} to default", "reset all", "discard all"):
            assert plan(text, hidden).action == "pass", text
        veil = Veil(hidden)
        for given in ({setting: "off"}, {"options": f"-c {setting.replace('_', '-')}=off"}):
            # A dash in a name is an underscore after `--` alone.
            assert bool(veil.startup(given)) is (held or "options" in given), given
        assert bool(veil.startup({"options": f"--{setting.replace('_', '-')}=off"})) is held
        assert veil.settings == settings(each)


def test_nothing_is_required_before_anything_is_known() -> None:
    assert Veil(None).settings is None
