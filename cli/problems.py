"""What a command tells a person instead of a traceback."""

from __future__ import annotations


class Problem(Exception):
    """Something the person can act on; printed as one message, with an exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
