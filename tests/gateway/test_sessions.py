"""Who may cancel what."""

from __future__ import annotations

import pytest

from gateway.sessions import Sessions, cancel_proof


class Connection:
    def __init__(self) -> None:
        self.cancel_secret = b""
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1

    def shut_down(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("length", [4, 32])
def test_only_the_secret_the_client_was_told_cancels(length: int) -> None:
    sessions, connection = Sessions(), Connection()
    process_id, secret = sessions.add(connection)
    connection.cancel_secret = secret[:length]
    for wrong in (b"", secret[:3], secret[: length - 1], secret + b"x", b"\0" * length):
        assert sessions.cancel(process_id, cancel_proof(process_id, wrong))
    assert connection.cancelled == 0
    assert sessions.cancel(process_id, cancel_proof(process_id, secret[:length]))
    assert connection.cancelled == 1


def test_a_session_of_another_node_is_not_ours_to_cancel() -> None:
    sessions, connection = Sessions(), Connection()
    process_id, secret = sessions.add(connection)
    sessions.remove(process_id)
    assert not sessions.cancel(process_id, cancel_proof(process_id, secret))
    assert len(sessions) == 0


def test_a_proof_is_of_one_session() -> None:
    assert cancel_proof(1, b"abcd") != cancel_proof(2, b"abcd")
