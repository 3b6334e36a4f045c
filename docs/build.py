"""`make docs`: writes configuration.md from the settings and checks every link.

A link to source names a symbol, as in [`Asking.take`](../gateway/protocols/postgres/asking.py):
the file must define it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.settings import Settings

DOCS = Path(__file__).parent
LINK = re.compile(r"\[(`?)([^\]`]+)`?\]\(([^)\s]+)\)")
HEAD = """# Configuration

One YAML file for the whole system; each process reads its own section. Any setting can be
overridden by a variable: `GATEBOOK_`, then its path in upper case with two underscores between
levels, for instance `GATEBOOK_GATEWAY__POSTGRES__PORT=6433`. An unknown setting is an error.

`gatebook up` writes such a file into its state folder (`gatebook.yaml`) and reads yours with
`--config`. This page is written by `make docs` from `schemas/settings.py`.
"""


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) is None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in get_args(annotation):
        yield from _sections(argument)


def _type(annotation: Any) -> str:
    if get_origin(annotation) is None:
        return str(getattr(annotation, "__name__", annotation))
    return re.sub(r"(?:[a-z_]+\.)+", "", str(annotation))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=False)
    if field.is_required():
        return "required"
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel):
        return ""
    return f"`{value}`"


def _rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    nested: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = list(_sections(field.annotation))
        repeated = get_origin(field.annotation) in (list, dict)
        nested += [(f"{path}{'[]' if repeated else ''}.", section) for section in inner]
        if field.description:
            kind = _type(field.annotation).replace("|", "\\|")
            yield f"| `{path}` | {kind} | {_default(field)} | {field.description} |"
    for path, section in nested:
        yield from _rows(section, path)


def configuration() -> str:
    """The page's text."""
    rows = _rows(Settings)
    return "\n".join(
        [HEAD, "| setting | type | default | what it does |", "|---|---|---|---|", *rows, ""]
    )


def broken_links(page: Path) -> Iterator[str]:
    """Links of a page that lead nowhere."""
    for quoted, text, target in LINK.findall(page.read_text()):
        path, _, _ = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            continue
        found = (page.parent / path).resolve()
        if not found.exists():
            yield f"{page.name}: {target} does not exist"
        elif quoted and found.suffix == ".py":
            name = text.removesuffix("()").rpartition(".")[2]
            pattern = rf"^\s*(?:async\s+)?(?:def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\b"
            if not re.search(pattern, found.read_text(), re.MULTILINE):
                yield f"{page.name}: {path} does not define {text}"


def pages() -> list[Path]:
    """Every page we write."""
    root = DOCS.parent
    return sorted([*DOCS.rglob("*.md"), *root.glob("*.md")])


def main() -> None:
    """Write and check; exits 1 with one line per broken link."""
    (DOCS / "configuration.md").write_text(configuration())
    broken = [line for page in pages() for line in broken_links(page)]
    print("\n".join(broken) or f"{len(pages())} pages, no broken link")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
