from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.masking.choosing import chooses


def hidden(schema: str, name: str) -> frozenset[str] | None:
    return frozenset({"ssn", "pay"}) if (schema, name) == ("public", "people") else None


@pytest.mark.parametrize(
    "definition",
    [
        "SELECT id FROM public.people WHERE pay > 500",
        "SELECT id FROM public.people ORDER BY pay",
        "SELECT id FROM public.people GROUP BY id, pay",
        "SELECT city FROM public.people GROUP BY city HAVING max(pay) > 5",
        "SELECT DISTINCT ssn FROM public.people",
        "SELECT DISTINCT ON (pay) id FROM public.people",
        "SELECT o.id FROM public.orders o JOIN public.people p ON p.ssn = o.ssn",
        "SELECT o.id FROM public.orders o JOIN public.people p USING (ssn)",
        "SELECT id FROM public.orders NATURAL JOIN public.people",
        "SELECT id FROM public.orders WHERE EXISTS (SELECT FROM public.people p WHERE p.pay > 1)",
        "SELECT o.id FROM public.orders o WHERE o.id IN (SELECT p.pay FROM public.people p)",
        "SELECT x.id FROM (SELECT people.id, people.pay AS p FROM public.people) x WHERE x.p > 5",
        "WITH x(a, b) AS (SELECT id, pay FROM public.people) SELECT a FROM x WHERE b > 5",
        "SELECT x.a FROM (SELECT id, pay FROM public.people) x(a, b) WHERE x.b > 5",
        "SELECT a FROM public.people p(a, b, c) WHERE b > 5",
        "SELECT ssn FROM public.people UNION SELECT word FROM public.plain",
        "SELECT word FROM public.plain EXCEPT SELECT ssn FROM public.people",
        "SELECT ssn FROM public.people UNION ALL SELECT word FROM public.plain ORDER BY 1",
        "SELECT p.id FROM public.people p, LATERAL unnest(string_to_array(p.ssn, '-')) u(v)",
        "SELECT id, unnest(string_to_array(ssn, '-')) AS u FROM public.people",
        "SELECT id FROM public.people LIMIT (SELECT max(pay) FROM public.people)",
        "SELECT p.id FROM public.people p WHERE p.* IS DISTINCT FROM NULL",
        "SELECT id FROM public.people p WHERE row_to_json(p)::text LIKE '%1%'",
        "SELECT x.id FROM (SELECT id, rank() OVER (ORDER BY pay) AS r FROM public.people) x"
        " WHERE x.r < 3",
        "not a definition",
    ],
)
def test_which_rows_there_are_depends_on_what_is_hidden(definition: str) -> None:
    assert chooses(definition, hidden)


@pytest.mark.parametrize(
    "definition",
    [
        "SELECT id, ssn, pay FROM public.people WHERE city = 'Rome' ORDER BY id",
        "SELECT city, max(ssn) AS top, count(*) AS n FROM public.people GROUP BY city",
        "SELECT id, ssn FROM public.people WHERE ssn IS NOT NULL",
        "SELECT o.id, p.ssn FROM public.orders o JOIN public.people p ON p.id = o.person_id",
        "SELECT o.id FROM public.orders o, public.people p WHERE o.pay > 5 AND p.id = o.id",
        "SELECT ssn AS a FROM public.people UNION ALL SELECT word FROM public.plain",
        "SELECT x.s FROM (SELECT id, ssn AS s FROM public.people) x WHERE x.id > 5",
        "WITH x AS (SELECT id, ssn FROM public.people) SELECT id, ssn FROM x WHERE id > 5",
        "SELECT v.a FROM (VALUES (1), (2)) v(a), public.people p WHERE v.a = p.id",
        "SELECT id, rank() OVER (ORDER BY pay) AS r FROM public.people",
        "SELECT id FROM public.orders WHERE pay > 5",
    ],
)
def test_which_rows_there_are_does_not(definition: str) -> None:
    assert not chooses(definition, hidden)


@given(st.text())
def test_no_text_is_a_crash(text: str) -> None:
    assert isinstance(chooses(text, hidden), bool)
