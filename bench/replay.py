"""History decided again by other policies, every text another: decisions per second of CPU.

What `gatebook policy replay` does with the rows it has read. `refused` is what the policies tried
refuse, so that those in force are asked as well.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import msgspec

from bench.decide import PERMIT, packs
from cli.replay import ALLOCATIONS, summed
from gateway.policy.cases import snapshot
from gateway.policy.decide import Policies, checked
from gateway.policy.replay import Past, Replay
from gateway.policy.resolve import Resolver

ROUNDS = 3
NUMBER = 5_000
SHOP = {
    "tables": {
        "public.orders": {"columns": ["id!", "customer_id!", "status", "amount"]},
        "public.customers": {"columns": ["id!", "name", "email", "city"]},
    }
}
TEXT = (
    "select o.id as a{0}, c.name from orders o join customers c on c.id = o.customer_id"
    " where o.status = 's{0}' and o.amount > 10"
)
LIMITED = f"{TEXT} limit 5"


def history(text: str) -> list[bytes]:
    """As ClickHouse answers: each text once."""
    past = Past(
        "https://i", "a1", "alice", ("support",), "", "person", "psql", "10.0.0.1", "shop",
        "execute", "", -1, "ALLOW", ("all",), "", 1,
    )  # fmt: skip
    texts = (text.format(number) for number in range(NUMBER))
    return [msgspec.json.encode(msgspec.structs.replace(past, statement=one)) for one in texts]


def decoded(lines: list[bytes]) -> Iterator[Past]:
    """Its rows."""
    decoder = msgspec.json.Decoder(Past)
    return map(decoder.decode, lines)


def rate(lines: list[bytes], tried: Policies, current: Policies) -> float:
    """Decisions per second of CPU."""
    replay = Replay(tried, current, {"shop": Resolver(snapshot(SHOP))})
    began = time.process_time()
    distinct, said = summed(replay, decoded(lines))
    assert distinct == NUMBER and len(said) == 1
    return NUMBER / (time.process_time() - began)


def main() -> None:
    """Print the figures."""
    # As the command does.
    gc.set_threshold(ALLOCATIONS)
    tried, current = packs(), checked([PERMIT])
    for name, text in (("as before", LIMITED), ("refused", TEXT)):
        lines = history(text)
        best = max(rate(lines, tried, current) for _ in range(ROUNDS))
        print(f"{name:10} {best:,.0f} decisions per second of CPU, all texts different", flush=True)
