"""Statements that set, move or remove a comment that classifies its column. Pure.

`Facts.classifies` names the columns. What takes such a column away counts, too: whoever may not
classify must not make it anew without its class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.policy.catalog import Relation, is_temporary, name_of
from gateway.policy.reading.changes import Changes
from schemas.masking.comments import is_tagged

COMMENTS: Final = "pg_catalog.pg_description"
"""Where PostgreSQL keeps them; a superuser may write there."""
_LIKE_COMMENTS: Final = 1
_VIEWS: Final = frozenset("vm")
# Of ALTER TABLE: whose table it is decides whether its comments count, and whose child it is
# whether its parent's do.
_HANDING: Final = frozenset(
    {"AT_ChangeOwner", "AT_DetachPartition", "AT_DetachPartitionFinalize", "AT_DropInherit"}
)


class Classifying(Changes):
    """See the module."""

    def _says(self, relations: Iterable[Relation], column: str = "") -> None:
        """Tagged columns of these, or the one of that name, change what they say."""
        self._work.classifies |= {
            f"{relation.full}.{name_of(name)}"
            for relation in relations
            for name in relation.tagged
            if not column or name == column
        }

    def _family(self, found: Iterable[Relation]) -> list[Relation]:
        return [each for one in found for each in (one, *self._snapshot.descendants(one))]

    def _above(self, found: Iterable[Relation]) -> list[Relation]:
        return [each for one in found for each in self._snapshot.ancestors(one)]

    def _all_say(self, kinds: frozenset[str] = frozenset()) -> None:
        """Every tagged column there is, or of relations of these kinds."""
        self._says(one for one in self._snapshot.tagged if not kinds or one.kind in kinds)

    def _comments(self, names: list[str], found: list[Relation], comment: str | None) -> None:
        """COMMENT ON COLUMN."""
        column = names[-1]
        if not is_tagged(comment):
            self._says(found, column)
            return
        full = [relation.full for relation in found] or [name_of(*names[:-1])]
        self._work.classifies |= {f"{name}.{name_of(column)}" for name in full}

    def _dropped(self, found: list[Relation], cascades: bool) -> None:
        self._says(self._family(found))
        if cascades:
            self._all_say(_VIEWS)

    def _altered(self, value: dict[str, Any], found: list[Relation]) -> None:
        """ALTER TABLE and the like."""
        for entry in value.get("cmds", ()):
            command = entry.get("AlterTableCmd", {})
            kind = command.get("subtype", "")
            if kind == "AT_DropColumn":
                self._says(self._family(found), command.get("name", ""))
                if command.get("behavior") == "DROP_CASCADE":
                    self._all_say(_VIEWS)
            elif kind in _HANDING:
                self._says([*self._family(found), *self._above(found)])
                if kind.startswith("AT_Detach"):
                    part = command.get("def", {}).get("PartitionCmd", {}).get("name", {})
                    self._says(self._family(self._meant(part)))

    def _renamed(self, value: dict[str, Any], found: list[Relation]) -> None:
        """RENAME and SET SCHEMA: the comment goes along, what permits to see it clear does not."""
        kind = value.get("renameType", value.get("objectType", ""))
        if kind == "OBJECT_SCHEMA":
            schema = value.get("subname", "")
            self._says(one for one in self._snapshot.tagged if one.schema == schema)
        elif kind == "OBJECT_COLUMN":
            self._says(self._family(found), value.get("subname", ""))
        elif kind != "OBJECT_TABCONSTRAINT":
            self._says(found)

    def _copied_like(self, like: dict[str, Any], source: list[Relation], made: str) -> None:
        """CREATE TABLE (LIKE … INCLUDING COMMENTS)."""
        if like.get("options", 0) & _LIKE_COMMENTS and not is_temporary(made.partition(".")[0]):
            self._work.classifies |= {
                f"{made}.{name_of(name)}" for relation in source for name in relation.tagged
            }

    def _meant(self, relation: dict[str, Any]) -> list[Relation]:
        return self._resolver.relations(
            relation.get("schemaname", ""), relation.get("relname", ""), self._meaning, self._work
        )
