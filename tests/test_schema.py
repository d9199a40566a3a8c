"""Files read as their types: nothing is turned into another type, and what is wrong is told with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired

import pytest
from typing_extensions import TypedDict

from simcse_bench.errors import UserError
from simcse_bench.schema import json_schema, parse_record, read_record


class Part(TypedDict):
    n: int
    value: NotRequired[float | None]


class Whole(TypedDict):
    parts: Mapping[str, Part]
    values: list[float]


@dataclass(frozen=True)
class Kept:
    part: Part
    sizes: tuple[int, ...] = ()


def problem(content, kind=Whole):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(UserError) as raised:
        parse_record(raw, kind, "f.json", "not a whole. Move it away.")
    assert "\n" not in str(raised.value)
    return str(raised.value)


GOOD = {"parts": {"a": {"n": 1, "value": 2, "more": [1]}}, "values": [1, 2.5], "later": {}}


def test_what_is_read_is_what_was_written():
    read = parse_record(json.dumps(GOOD).encode(), Whole, "f.json", "")
    assert read == GOOD
    assert [type(v) for v in read["values"]] == [int, float]
    kept = parse_record(b'{"part": {"n": 1, "more": 2}, "sizes": [3]}', Kept, "f.json", "")
    assert kept == Kept({"n": 1, "more": 2}, [3])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "f.json: not a whole. Move it away. (expected an object, found [])"),
        (GOOD | {"values": [1, True]}, "values.1: expected a number, found true"),
        (GOOD | {"values": "x" * 99}, 'values: expected a list, found "xxx'),
        (GOOD | {"parts": {"a": {"n": "1"}}}, 'parts.a.n: expected an integer, found "1"'),
        (GOOD | {"parts": {"a": {}}}, "parts.a.n: it is missing"),
        ({}, "(parts: it is missing; values: it is missing)"),
        (GOOD | {"values": [None] * 9}, "; and 6 more)"),
        (b'{"values": [NaN]}', "not readable JSON (NaN is no number)"),
        (b'{"values": [1e999]}', "1e999 is no number that a float can hold"),
        (b"[" * 10**6, "not readable JSON"),
        (b"\xff\xfe", "not readable JSON"),
        (b"", "not readable JSON"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(content, said):
    assert said in problem(content)


def test_an_unknown_field_of_a_dataclass():
    assert problem({"part": {"n": 1}, "size": []}, Kept) == "f.json: not a whole. Move it away. (size: unknown)"


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_record(tmp_path / "x.json", Whole, "")
    with pytest.raises(UserError, match="Is a directory"):
        read_record(tmp_path, Whole, "")


def test_the_schema_names_what_is_required():
    schema = json_schema(Whole)
    assert schema["required"] == ["parts", "values"]
    assert schema["$defs"]["Part"]["required"] == ["n"]
