"""Runs a stack until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from infra.devstack import status
from infra.devstack.plan import Options
from infra.devstack.stack import Stack, new_ports, prepare
from infra.devstack.state import Lock, StateDir, kill_leftovers
from infra.devstack.supervisor import Supervisor


def run(
    state: StateDir,
    options: Options,
    say: Callable[[str], None],
    when_ready: Callable[[Stack], None],
) -> None:
    """Prepare, start, keep running until SIGTERM, SIGINT or SIGHUP, stop.

    Raises BadStateDir, AlreadyRunning, Unusable or StartFailed. Nothing is left running in
    any case.
    """
    state.create()
    lock = Lock(state)
    ports = new_ports(state)
    try:
        if left := kill_leftovers(state):
            say(f"ended {left} process(es) that an earlier supervisor left")
        stack = prepare(state, options, ports, say)
        asyncio.run(_run(stack, say, when_ready))
    finally:
        status.withdraw(state)
        ports.release()
        lock.release()


async def _run(
    stack: Stack, say: Callable[[str], None], when_ready: Callable[[Stack], None]
) -> None:
    loop = asyncio.get_running_loop()

    def publish() -> None:
        try:
            status.publish(stack, supervisor)
        except OSError as error:
            # A full disk is no reason to stop what still runs.
            say(f"the status cannot be written: {error.strerror}")

    supervisor = Supervisor(
        stack.children, say, changed=publish, working_directory=stack.state.root
    )

    def stop(number: signal.Signals) -> None:
        say(f"stopping ({number.name})")
        supervisor.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    publish()

    async def announce() -> None:
        await supervisor.ready.wait()
        when_ready(stack)

    announcing = asyncio.create_task(announce())
    try:
        await supervisor.run()
    finally:
        announcing.cancel()
