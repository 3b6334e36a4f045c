"""The documentation is complete and leads somewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
assert _spec is not None and _spec.loader is not None
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)


def test_configuration_page_is_the_one_the_settings_make() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == build.configuration()


@pytest.mark.parametrize("page", build.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(build.broken_links(page)) == []


def test_a_link_to_a_missing_symbol_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def there() -> None: ...\n")
    page = tmp_path / "page.md"
    page.write_text("[`there`](module.py) [`gone`](module.py) [x](nowhere.md)")
    assert len(list(build.broken_links(page))) == 2
