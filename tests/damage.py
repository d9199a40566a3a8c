"""Damage to files, generated: what tests of readers share.

``damage(content, rng)`` gives a file's bytes with one fault: in the JSON's structure (a key dropped, a value of another
type, NaN, a number too large), or in the bytes themselves (cut off, another encoding, no text at all). ``PLACES`` puts
something else where the file was.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simcse_bench.errors import UserError

HUGE = "HUGE-NUMBER"  # replaced in the text: json would not write it
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e300, -1e300, 10**25, float("nan"), float("inf"), float("-inf"), HUGE, "", "x",
    "0", "NaN", "$x^$ [/b] <b>|\\", "a\nb", "\u202e\u2028", "\ud800", "x" * 3000, [], {}, [None], [[]], {"": None}, [1, 2, 3],
    ["a"], {"a": 1},
]  # fmt: skip


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every value inside JSON as (what holds it, key or index)."""
    found: list[tuple[Any, Any]] = []
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys)[:50]:
        found.append((content, key))
        found += places(content[key])
    return found


def damage(content: Any, rng: random.Random) -> tuple[str, bytes]:
    """What was done, and the bytes; ``content`` is left as it is."""
    if rng.random() < 0.25:
        name, change = rng.choice(list(_BYTES.items()))
        return name, change(json.dumps(content, ensure_ascii=False).encode(), rng)
    content = copy.deepcopy(content)
    inside = places(content)
    if not inside or rng.random() < 0.02:
        value = rng.choice(_VALUES)
        return f"whole: {value!r:.30}", _dumped(value)
    # as often near the top as deep below
    top = [(content, key) for key in (content if isinstance(content, dict) else range(len(content)))]
    holder, key = rng.choice(rng.choice([top, inside]))
    what = rng.choice(["drop", "value", "value", "value", "nest", "wrap", "rename", "swap", "double", "scale"])
    old = holder[key]
    if what == "drop":
        del holder[key]
    elif what == "value":
        holder[key] = rng.choice(_VALUES)
        what = f"{holder[key]!r:.30}"
    elif what == "nest":
        holder[key] = {"x": old}
    elif what == "wrap":
        holder[key] = [old]
    elif what == "rename" and isinstance(holder, dict):
        holder[rng.choice(["x", f"{key} ", "a\nb", ""])] = holder.pop(key)
    elif what == "swap":
        other, there = rng.choice(inside)
        holder[key] = (
            copy.deepcopy(other[there]) if there in (other if isinstance(other, dict) else range(len(other))) else None
        )
    elif what == "double":
        holder[key] = [*old, *old] if isinstance(old, list) else f"{old}{old}"
    else:
        scaled = isinstance(old, int | float) and not isinstance(old, bool)
        holder[key] = old * rng.choice([-1, 0, 1e9, 10**9, 0.5]) if scaled else str(old)
    return f"{what} at {key!r:.30}", _dumped(content)


def _dumped(content: Any) -> bytes:
    text = json.dumps(content)  # a lone surrogate as \ud800
    return text.replace(f'"{HUGE}"', "9" * 400).encode()


def _cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def _flip(raw: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]


_BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut off": _cut,
    "a byte changed": _flip,
    "twice": lambda raw, rng: raw * 2,
    "empty": lambda raw, rng: b"",
    "blank": lambda raw, rng: b" \n\n",
    "UTF-16": lambda raw, rng: raw.decode().encode("utf-16"),
    "UTF-8 with a mark": lambda raw, rng: b"\xef\xbb\xbf" + raw,
    "latin-1": lambda raw, rng: b'{"\xe9": "\xfc"}',
    "binary": lambda raw, rng: rng.randbytes(2000),
    "NUL": lambda raw, rng: b"\0" * 500,
    "deep": lambda raw, rng: b"[" * 100_000,
    "deep objects": lambda raw, rng: b'{"a":' * 50_000,
    "long number": lambda raw, rng: b"[" + b"9" * 10_000 + b"]",
    "no JSON": lambda raw, rng: b"<html></html>",
}


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


PLACES: dict[str, Callable[[Path], None]] = {"a pipe": _fifo, "a folder": _folder, "a dangling link": _dangling}


def told(error: UserError, *names: str) -> None:
    """Every problem is a line, not too long to read; one at least names the file."""
    assert error.problems
    for problem in error.problems:
        assert len(problem.splitlines()) == 1, problem
        assert len(problem) < 1000, problem
    assert any(name in problem for problem in error.problems for name in names), error.problems
