"""A command that runs in our place: it gets our files, our terminal and our signals, and we end as it ended.

The command stays in our process group, so that job control and the terminal work as without us: what the terminal
sends (an interrupt, a suspension, a new size) it sends to both of us. What a process sends is sent to us alone, and is
passed on. The kernel tells the two apart (`si_code`), as it does for sudo(8). Linux only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Mapping

__all__ = ["Command", "end_like"]

_PASSED_ON = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
_WATCHED = _PASSED_ON | {signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD}
_ALWAYS = frozenset({signal.SIGHUP, signal.SIGCONT})
"""Also from the kernel: a terminal that goes away tells the leader of its session alone; twice does no harm."""
_SI_KERNEL = 0x80
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_SHELL = "/bin/sh"


class Command:
    """A running command. For the main thread, before any other is started: they inherit what is blocked here."""

    def __init__(self, argv: list[str], environ: Mapping[str, str]) -> None:
        """Start it, found by PATH. Raises `OSError` as execvp does: not there, or not to be executed."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it was ignored, its exit code would be lost
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            self._pid = _spawn(argv, environ, before)
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise

    def wait(self, tick: Callable[[], None], seconds: float) -> int:
        """Pass signals on until it has ended, with a tick every so many seconds; returns its wait status."""
        due = time.monotonic() + seconds
        while True:
            told = signal.sigtimedwait(_WATCHED, max(0.0, due - time.monotonic()))
            if told is None:
                tick()
                due = time.monotonic() + seconds
            elif told.si_signo != signal.SIGCHLD:
                self._pass_on(told)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return status

    def _pass_on(self, told: signal.struct_siginfo) -> None:
        number = told.si_signo
        by_a_process = told.si_code != _SI_KERNEL and told.si_pid != self._pid
        if by_a_process or number in _ALWAYS:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
        if number == signal.SIGTSTP:
            _stop()


def end_like(status: int) -> int:
    """End as a command with this wait status has ended: its exit code, or death by the same signal.

    Returns the exit code to use; 128 and the number of a signal that does not kill us.
    """
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    import resource  # noqa: PLC0415 - not everywhere

    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # it left one already
    with contextlib.suppress(OSError):  # SIGKILL takes no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    return 128 + number


def _spawn(argv: list[str], environ: Mapping[str, str], mask: Collection[int]) -> int:
    """The new process's id; a script without `#!` is a shell's, as for execvp."""
    try:
        return os.posix_spawnp(argv[0], argv, environ, setsigmask=mask, setsigdef=_IGNORED_BY_PYTHON)
    except OSError as error:
        path = shutil.which(argv[0])
        if error.errno != errno.ENOEXEC or path is None:
            raise
        shell = [_SHELL, path, *argv[1:]]
        return os.posix_spawn(_SHELL, shell, environ, setsigmask=mask, setsigdef=_IGNORED_BY_PYTHON)


def _stop() -> None:
    """Stop here, as the shell that waits for us expects, until somebody continues us."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
