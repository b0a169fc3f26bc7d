"""Exit codes and signals in words."""

from __future__ import annotations

from signal import Signals

_SIGNALS = {
    "SIGKILL": "the kernel does that when memory runs out, and people do with kill -9",
    "SIGTERM": "somebody asked it to stop: a person, a service manager, or the machine that shuts down",
    "SIGINT": "somebody interrupted it",
    "SIGHUP": "its terminal or session was closed",
    "SIGSEGV": "native code, as of an extension module, used memory that is not its own; with PYTHONFAULTHANDLER=1 in"
    " the task's environment the log says where",
    "SIGBUS": "native code could not reach memory, or a file that is mapped into it: it was cut, or the disk is full",
    "SIGABRT": "native code gave itself up, as after a failed assertion or a damaged heap",
    "SIGILL": "the processor does not know an instruction: a package was built for another one",
    "SIGFPE": "native code divided by zero",
    "SIGPIPE": "it wrote to a pipe or connection that nobody reads",
    "SIGXCPU": "it used more CPU time than its limit (ulimit -t)",
    "SIGXFSZ": "it wrote a larger file than its limit (ulimit -f)",
    "SIGSYS": "it made a system call that is forbidden here (seccomp)",
}

_CODES = {
    126: "as shells say of a command that may not be executed",
    127: "as shells say of a command that was not found",
}

_SHELL = 128
"""Added by shells and containers to the number of the signal that ended a command."""


def signal_name(number: int) -> str:
    """Return a signal's name; ``signal N`` for one that has none here."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def in_words(exit_code: int) -> str:
    """Return how a process ended, and what that usually means; a negative code is the signal that ended it."""
    if exit_code < 0:
        name = signal_name(-exit_code)
        return _joined(f"was ended by signal {-exit_code}, {name}", _SIGNALS.get(name))
    said = f"ended with code {exit_code}"
    if exit_code in _CODES:
        return _joined(said, _CODES[exit_code])
    if _SHELL < exit_code < _SHELL + 65 and (name := signal_name(exit_code - _SHELL)).startswith("SIG"):
        return _joined(f"{said}, as shells say of a command that was ended by {name}", _SIGNALS.get(name))
    return said


def _joined(said: str, meaning: str | None) -> str:
    return f"{said}: {meaning}" if meaning else said
