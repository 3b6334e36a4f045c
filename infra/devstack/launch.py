"""Exec a command that dies with its supervisor: `launch.py PARENT_PID UID GID COMMAND...`.

UID and GID of -1 keep the user. The change of user happens here and not in the supervisor's
fork, because another user may be unable to reach the Python that runs this.

It is not imported by anything and imports next to nothing, because every child pays for it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, user, group = (int(argument) for argument in sys.argv[1:4])
    command = sys.argv[4:]
    if user != -1:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    # A supervisor that is killed cannot stop its children; the kernel can. Set last, because
    # a change of user clears it.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the supervisor died before its child started")
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
