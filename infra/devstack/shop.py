"""The demo database `shop`: customers with personal data and their orders, the same every time.

Generating takes seconds and starting a stack should not, so the rows are kept as PostgreSQL
COPY text in the user's cache, by what determines them.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

VERSION = 2
"""Changes whenever the rows do."""
SEED = 20_261_124
PRODUCTS = (
    "Espresso machine", "Burr grinder", "Pour-over kettle", "Milk frother", "Filter papers",
    "Water filter", "Descaling tablets", "Single origin 250 g", "House blend 1 kg", "Decaf 500 g",
    "Cold brew jug", "Travel mug", "Cup set", "Knock box", "Tamper", "Cleaning brush",
)  # fmt: skip
AREA_CODES = ("202", "206", "212", "303", "312", "404", "415", "503", "512", "617", "702", "808")
STATUSES = ("delivered",) * 14 + ("shipped",) * 3 + ("placed",) * 2 + ("returned",)

SCHEMA = """
create table customers (
    id bigint primary key,
    name text not null,
    email text not null unique,
    phone text not null,
    ssn char(11) not null unique,
    card_number text not null,
    city text not null,
    created_at timestamptz not null
);
create table orders (
    id bigint primary key,
    customer_id bigint not null references customers,
    product text not null,
    amount numeric(10, 2) not null,
    ordered_at timestamptz not null,
    status text not null
);
"""
INDEX = "create index orders_customer_id on orders (customer_id)"

CLASSIFIED: dict[str, dict[str, str]] = {
    "public.customers.email": {"class": "pii", "mask": "email"},
    "public.customers.phone": {"class": "pii", "mask": "partial"},
    "public.customers.ssn": {"class": "pii", "mask": "full"},
    "public.customers.card_number": {"class": "pci", "mask": "partial"},
}
"""How the gateway's target `shop` classifies these columns."""


@dataclass(frozen=True, slots=True)
class Size:
    """Rows of each table."""

    customers: int = 20_000
    orders: int = 100_000


def copy_files(size: Size, cache: Path) -> tuple[Path, Path]:
    """COPY text of customers and of orders, generated on first use. Safe in parallel."""
    folder = cache / f"shop-{VERSION}-{size.customers}x{size.orders}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=cache) as work:
            complete = Path(work) / "rows"
            complete.mkdir(mode=0o755)
            _write(complete / "customers.copy", customers(size.customers))
            _write(complete / "orders.copy", orders(size.orders, size.customers))
            try:
                complete.rename(folder)
            except OSError:
                # Another process made the same rows meanwhile.
                if not folder.is_dir():
                    raise
    return folder / "customers.copy", folder / "orders.copy"


def _write(path: Path, rows: Iterator[tuple[object, ...]]) -> None:
    with path.open("w") as file:
        for row in rows:
            file.write("\t".join(str(value) for value in row) + "\n")


def customers(count: int) -> Iterator[tuple[object, ...]]:
    """Rows of `customers`, in the order of its columns."""
    from faker import Faker

    fake = Faker("en_US", use_weighting=False)
    fake.seed_instance(SEED)
    choose = random.Random(SEED)
    seen: set[str] = set()
    start = datetime.fromisoformat("2019-01-01T08:00:00+00:00")
    for number in range(1, count + 1):
        name = f"{fake.first_name()} {fake.last_name()}"
        local = name.lower().replace(" ", choose.choice(("", ".", "_"))).replace("'", "")
        yield (
            number,
            name,
            f"{local}{number}@{fake.free_email_domain()}",
            f"+1-{choose.choice(AREA_CODES)}-{choose.randint(220, 899)}"
            f"-{choose.randint(0, 9999):04}",
            _unique(lambda: str(fake.ssn()), seen),
            fake.credit_card_number(card_type=choose.choice(("visa16", "mastercard", "amex"))),
            fake.city(),
            start + timedelta(minutes=130 * number + choose.randint(0, 129)),
        )


def _unique(make: Any, seen: set[str]) -> str:
    while (value := make()) in seen:
        pass
    seen.add(value)
    return str(value)


def orders(count: int, customer_count: int) -> Iterator[tuple[object, ...]]:
    """Rows of `orders`, in the order of its columns."""
    choose = random.Random(SEED + 1)
    start = datetime.fromisoformat("2024-01-01T08:00:00+00:00")
    for number in range(1, count + 1):
        yield (
            number,
            # A few customers order most.
            1 + int(customer_count * choose.random() ** 2),
            choose.choice(PRODUCTS),
            f"{choose.lognormvariate(3.4, 0.8):.2f}",
            start + timedelta(minutes=13 * number + choose.randint(0, 12)),
            choose.choice(STATUSES),
        )


async def seed(connection: Any, size: Size, cache: Path) -> None:
    """Create and fill the tables in one transaction, unless they are there.

    `connection` is an asyncpg connection of the role that is to own them.
    """
    import asyncio

    if await connection.fetchval("select to_regclass('public.orders') is not null"):
        return
    customers_file, orders_file = await asyncio.to_thread(copy_files, size, cache)
    async with connection.transaction():
        await connection.execute(SCHEMA)
        await connection.copy_to_table("customers", source=customers_file, format="text")
        await connection.copy_to_table("orders", source=orders_file, format="text")
        await connection.execute(INDEX)
    await connection.execute("analyze")
