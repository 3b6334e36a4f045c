"""Who may cancel what."""

from __future__ import annotations

import asyncio

import pytest

from gateway.sessions import Sessions, cancel_proof


class Connection:
    """Is over when it was told `patience` times."""

    def __init__(self, sessions: Sessions | None = None, patience: int = 1) -> None:
        self.cancelled = self.told = 0
        self._sessions = sessions
        self._patience = patience

    def cancel(self) -> None:
        self.cancelled += 1

    def reconsider(self) -> None:
        raise AssertionError("not asked for")

    def shut_down(self) -> None:
        assert self._sessions is not None
        self.told += 1
        if self.told == self._patience:
            self._sessions.remove(self)


PROCESS_ID = 4711


@pytest.mark.parametrize("length", [4, 32])
def test_only_the_secret_the_client_was_told_cancels(length: int) -> None:
    sessions, connection = Sessions(), Connection()
    secret = sessions.add(connection)
    sessions.know(connection, PROCESS_ID, secret[:length])
    for wrong in (b"", secret[:3], secret[: length - 1], secret + b"x", b"\0" * length):
        assert not sessions.cancel(cancel_proof(PROCESS_ID, wrong))
    assert not sessions.cancel(cancel_proof(PROCESS_ID + 1, secret[:length]))
    assert connection.cancelled == 0
    assert sessions.cancel(cancel_proof(PROCESS_ID, secret[:length]))
    assert connection.cancelled == 1


def test_sessions_of_two_targets_may_have_one_process_id() -> None:
    sessions, one, other = Sessions(), Connection(), Connection()
    secrets = [sessions.add(connection) for connection in (one, other)]
    for connection, secret in zip((one, other), secrets, strict=True):
        sessions.know(connection, PROCESS_ID, secret[:4])
    assert sessions.cancel(cancel_proof(PROCESS_ID, secrets[1][:4]))
    assert (one.cancelled, other.cancelled) == (0, 1)
    sessions.remove(one)
    assert not sessions.cancel(cancel_proof(PROCESS_ID, secrets[0][:4]))
    assert sessions.cancel(cancel_proof(PROCESS_ID, secrets[1][:4]))


def test_a_session_of_another_node_is_not_ours_to_cancel() -> None:
    sessions, connection = Sessions(), Connection()
    secret = sessions.add(connection)
    sessions.know(connection, PROCESS_ID, secret[:4])
    sessions.remove(connection)
    assert not sessions.cancel(cancel_proof(PROCESS_ID, secret[:4]))
    assert len(sessions) == 0


def test_a_proof_is_of_one_session() -> None:
    assert cancel_proof(1, b"abcd") != cancel_proof(2, b"abcd")


async def test_all_are_told_to_end_and_those_that_do_not_are_told_again() -> None:
    sessions = Sessions()
    quick, slow = Connection(sessions), Connection(sessions, patience=2)
    sessions.add(quick)
    sessions.add(slow)
    await sessions.end(within_s=0.05)
    assert (quick.told, slow.told, len(sessions)) == (1, 2, 0)


async def test_without_a_session_there_is_nothing_to_wait_for() -> None:
    await asyncio.wait_for(Sessions().end(within_s=60), 5)
