"""What a gateway says at its start."""

from __future__ import annotations

import resource

import pytest
from structlog.testing import capture_logs

from gateway.__main__ import _warn_of_file_limit


@pytest.mark.parametrize(
    ("limit", "warns"),
    [(1_024, True), (2_099, True), (2_100, False), (resource.RLIM_INFINITY, False)],
)
def test_a_limit_of_open_files_that_is_too_low_is_said(
    monkeypatch: pytest.MonkeyPatch, limit: int, warns: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    with capture_logs() as logs:
        _warn_of_file_limit(1_000)
    said = [(line["event"], line["limit"], line["needed"]) for line in logs]
    assert said == ([("open_files_limit_is_low", limit, 2_100)] if warns else [])
