"""Damage to a file, as it comes about: cut, overwritten, edited by hand, saved in another encoding, replaced."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**70,
    10**400,
    0.5,
    1e308,
    "",
    "x",
    "1",
    "\0",
    "a\nb",
    "../../x",
    "x" * 5000,
    [],
    ["x"],
    {},
    {"x": 1},
]
RAW = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"[" * 20_000, b'"\\ud800"', b'"\xff"', b"'x'", b"undefined"]


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Content damaged in a way that any file can be."""
    at = rng.randrange(len(content) + 1)
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
        lambda: content[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 9))) + content[at:],
        lambda: content[:at] + content[at + rng.randint(1, 20) :],
        lambda: content + content,
        lambda: content[:at] + bytes(rng.randint(1, 4096)),
        lambda: b"",
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: content.decode("utf-8", "replace").encode("latin-1", "replace") + b"\xe9",
        lambda: rng.randbytes(len(content)),
    ]
    return rng.choice(ways)()


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """One value of a JSON file dropped, nulled, of another type, nested, renamed, or no JSON at all."""
    parsed = json.loads(content)
    places = list(_places(parsed))
    where = copy.deepcopy(parsed)
    inner, (*way, last) = where, rng.choice(places)
    for step in way:
        inner = inner[step]
    kind = rng.randrange(6)
    if kind == 0:
        del inner[last]
    elif kind == 1 and isinstance(last, str):
        inner[last + "x"] = inner.pop(last)
    elif kind == 2:
        inner[last] = [inner[last]]
    elif kind == 3:
        inner[last] = "<<raw>>"
        return json.dumps(where).encode().replace(b'"<<raw>>"', rng.choice(RAW), 1)
    else:
        inner[last] = rng.choice(ODD)
    return json.dumps(where).encode()


def damage_text(content: bytes, rng: random.Random) -> bytes:
    """One to four signs that mean something to a reader of tables put into a text, or ``damage_bytes``."""
    if rng.random() < 0.3:
        return damage_bytes(content, rng)
    whole = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(whole) + 1)
        whole[at:at] = rng.choice(
            [
                b'"',
                b"'",
                b",",
                b"\t",
                b"\n",
                b"\r",
                b"\r\n",
                b"\0",
                b"\\",
                b'""',
                b"{",
                b"\xff",
                "\u2028".encode(),
                b":",
                b"- ",
            ]
        )
    return bytes(whole)


def replace_file(path: Path, rng: random.Random) -> None:
    """Something else in a file's place."""
    path.unlink()
    way = rng.randrange(4)
    if way == 0:
        path.mkdir()
    elif way == 1:
        path.symlink_to(path)
    elif way == 2:
        path.symlink_to("/dev/null")


def _places(content: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for step, value in inner:
        yield (*way, step)
        yield from _places(value, (*way, step))
