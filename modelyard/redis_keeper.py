"""The keeper of an embedded Redis: the parent of redis-server, and what ends it.

Redis must outlive the workers, also when whoever started all of them is killed by `kill -9`: they
still have answers to store. So the server is not tied to its owner but to this process, which
learns by two pipes who is left. The owner alone holds the other end of our standard input. The
owner *and its workers* hold the write end of the pipe `users`; nobody writes to it.

- `users` is at its end: nobody needs the server any more, and it is ended.
- Standard input is at its end: the owner is gone. Its workers have `drain_s` to end.
- SIGTERM, how an owner stops it in order: the server is ended.
- The server ended by itself: so do we, in the same way.

On Linux the kernel sends the server a SIGTERM when we are killed (`PR_SET_PDEATHSIG`, see
prctl(2)); elsewhere a keeper that is killed leaves it running. A worker gets such a signal from
the kernel too (see `modelyard.processes`); elsewhere it runs on, and loses its Redis after
`drain_s`.

It is started by its path and imports the standard library only, so that it is small and quick.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def start_server(
    command: Sequence[str], lock_descriptors: Sequence[int]
) -> "subprocess.Popen[bytes]":
    """Start the server, tied to our life; it holds the lock of its data as long as it lives."""
    keeper = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def tie_to_keeper() -> None:
        if libc is not None and libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM)) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != keeper:  # killed before prctl: nobody would send the signal
            os._exit(1)

    return subprocess.Popen(  # noqa: S603 - the command line of whoever started us
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        stderr=sys.stderr.fileno(),
        pass_fds=lock_descriptors,
        start_new_session=True,
        preexec_fn=tie_to_keeper,  # noqa: PLW1509 - this process has no other threads
    )


def wait_until_unneeded(
    server: "subprocess.Popen[bytes]", owner: int, users: int, signals: int, drain_s: float
) -> None:
    """Return when the server ended or should end."""
    deadline: float | None = None
    with selectors.DefaultSelector() as selector:
        for descriptor in (owner, users, signals):
            selector.register(descriptor, selectors.EVENT_READ)
        while server.poll() is None:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                say(f"the workers did not end within {drain_s:g} s; Redis ends now")
                return
            for key, _ in selector.select(left_s):
                read = os.read(key.fd, 4096)
                if (key.fd == signals and signal.SIGTERM in read) or (key.fd == users and not read):
                    return
                if key.fd == owner and not read:
                    selector.unregister(owner)
                    deadline = time.monotonic() + drain_s
                    say(f"the owner is gone; Redis ends with its workers, in {drain_s:g} s at most")


def end(server: "subprocess.Popen[bytes]", stop_s: float) -> None:
    """Let the server write its data and end; kill it after `stop_s`."""
    server.terminate()
    try:
        server.wait(stop_s)
    except subprocess.TimeoutExpired:
        say(f"Redis did not end within {stop_s:g} s of SIGTERM and is killed")
        server.kill()
        server.wait()


def end_like(returncode: int) -> None:
    """End this process by the signal or with the exit code that the server ended with."""
    if returncode >= 0:
        sys.exit(returncode)
    number = -returncode
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def say(what: str) -> None:
    """Write a line into the log of Redis, which is our standard error."""
    print(f"{os.getpid()}:keeper: {what}", file=sys.stderr, flush=True)  # noqa: T201


def main(arguments: Sequence[str]) -> None:
    """Run `USERS LOCKS DRAIN_S STOP_S COMMAND...`; LOCKS are descriptors with commas between.

    The process id of the server is the only line of standard output.
    """
    users, locks, drain_s, stop_s, *command = arguments
    # Signals become bytes in a pipe, so that one wait is enough for all that can happen.
    signals, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    try:
        server = start_server(command, [int(lock) for lock in locks.split(",") if lock])
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{command[0]}: {error}")
    try:
        print(server.pid, flush=True)  # noqa: T201
        wait_until_unneeded(server, sys.stdin.fileno(), int(users), signals, float(drain_s))
    finally:
        end(server, float(stop_s))
    end_like(server.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
