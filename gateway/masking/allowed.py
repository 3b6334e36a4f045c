"""What a person who may not see everything may still use. What is not listed is refused.

Beside functions.txt, those of pg_catalog that the target declares IMMUTABLE may be called: they
depend on their arguments alone, and those are masked already. Of the system catalogs those are
missing from catalogs.txt that hold values of columns, other people's statements, or secrets; of the
settings those that change what a name means or what messages show.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final


def _words(name: str) -> frozenset[str]:
    return frozenset(files("gateway.masking").joinpath(name).read_text().split())


FUNCTIONS: Final = _words("functions.txt")
CATALOGS: Final = _words("catalogs.txt")
SETTINGS: Final = _words("settings.txt")

_MESSAGES: Final = frozenset({"notice", "warning", "error"})
"""Below these a server tells a client its plans."""
_ENCODINGS: Final = frozenset({"utf8", "unicode", "sqlascii"})
_CHATTY: Final = frozenset(
    {"auto_explain", "pgaudit", "pg_hint_plan", "pg_stat_statements", "plpgsql", "plperl",
     "pltcl", "plpython", "plv8"}
)  # fmt: skip


def setting(name: str, value: str) -> bool:
    """Whether SET name = value is harmless; settings with a dot are an application's own."""
    name = name.lower()
    if name == "client_min_messages":
        return value.lower() in _MESSAGES
    if name == "client_encoding":
        # Into another, what cannot be converted is an error that tells of it.
        return re.sub("[-_ ]", "", value.lower()) in _ENCODINGS
    prefix, dot, _ = name.partition(".")
    if dot:
        return prefix not in _CHATTY
    return name in SETTINGS or name.startswith(("enable_", "geqo_"))
