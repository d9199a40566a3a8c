"""The exceptions a user is meant to see, and the sentence for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: printed without a traceback, exit code 2.

    Each problem says what was wrong (with the value), what was expected and what to do;
    all problems found are given at once.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class Unavailable(UserError):  # noqa: N818 (a state of the network)
    """What is asked for lies on the Hub, which cannot be reached, and not in its cache."""


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal ended the work after a checkpoint: what to do is the text, ``code`` the exit code."""

    def __init__(self, text: str, code: int):
        super().__init__(text)
        self.code = code


def printable(text: str) -> str:
    """A text for a terminal: what is in a damaged file must not steer it."""
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def first_line(error: BaseException) -> str:
    """What an error says, cut to its first line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest known name, else a full stop.

    A name without an owner (owner/name) is held against names without theirs.
    """
    by_lower = {(str(k) if "/" in name else str(k).rpartition("/")[2]).lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else "."


_SHOWN = 30  # so many names are read in an error; more stand in a list
_LISTS = {"task": "tasks", "suite": "suites"}  # kind -> its `simcse-bench ls`


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Error for a name that is not among the known ones of its kind (task, suite, pooling, ...)."""
    names = list(known)
    if kind in _LISTS and len(names) > _SHOWN:
        listed = f"`simcse-bench ls {_LISTS[kind]}` shows all {len(names)}."
        return UserError(f"unknown {kind} {name!r}{suggestion(name, names)} {listed}")
    return UserError(f"unknown {kind} {name!r}{suggestion(name, names)} Known: {', '.join(names) or 'none'}.")
