"""A target as a person without `see_clear` meets it, without a server."""

from __future__ import annotations

from gateway.masking.hidden import Column, Equality, Hidden, Mask, Relation

EMAIL = "public.customers.email"
LOOK_UP = Equality("customers give their address", 3)

CUSTOMERS = Relation(
    16400,
    "public",
    "customers",
    (
        Column("id", 1, "int8", "bigint"),
        Column("name", 2, "text", "text"),
        Column("email", 3, "text", "text", 0, Mask("pii", "email", equality=LOOK_UP, origin=EMAIL)),
        Column("ssn", 4, "bpchar", "character(11)", 11, Mask("pii", "full")),
        Column("card", 5, "text", "text", 0, Mask("pci", "token")),
        Column("born", 6, "date", "date", 0, Mask("pii", "year")),
        Column("city", 7, "text", "text"),
    ),
)
HIDDEN = Hidden(
    database="shop",
    protected={("public", "customers"): CUSTOMERS},
    known=frozenset({("public", "customers"), ("public", "orders"), ("hr", "customers")}),
    path=("public",),
    functions=frozenset({"upper", "lower", "length", "count", "max", "left", "coalesce"}),
    shadowing=frozenset({"peek", "masked_name"}),
    operators=frozenset({"@@@"}),
    token_keys={"pci": b"k" * 32},
)
