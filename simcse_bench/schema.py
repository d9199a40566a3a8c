"""What our JSON files hold, as types: a file is read as its type, or told in a line; NaN and infinity are refused."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from simcse_bench.errors import UserError

T = TypeVar("T")
_SHOWN = 3  # problems of one file
# pydantic's kinds of error -> what was expected
_EXPECTED = {
    "missing": "it is missing",
    "dict_type": "expected an object",
    "dataclass_type": "expected an object",
    "model_type": "expected an object",
    "mapping_type": "expected an object",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "string_type": "expected text",
    "int_type": "expected an integer",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "none_required": "expected null",
    "too_short": "expected something in it",
}


def read_record(path: Path, kind: type[T], otherwise: str) -> T:
    """A JSON file of ours, checked: a dataclass, or the dict as it is written where ``kind`` is a TypedDict.

    Args:
        path: the file.
        kind: its type; numbers, texts and null are never taken for each other, further keys of a TypedDict are kept.
        otherwise: what the file is not and what to do, for the message: "not a report. Move it away."

    Raises:
        UserError: the file cannot be read, is no JSON, or something in it is missing or of another type.
    """
    return parse_record(read_bytes(path, otherwise), kind, str(path), otherwise)


def read_bytes(path: Path, otherwise: str) -> bytes:
    """The content of a file; UserError where it cannot be read, or is none: a pipe would be waited for."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: not a file: {otherwise}")
        return path.read_bytes()
    except OSError as error:
        advice = "." if isinstance(error, FileNotFoundError) else f": {otherwise}"
        raise UserError(f"{path}: {error.strerror or error}{advice}") from None


def parse_record(content: bytes, kind: type[T], where: str, otherwise: str) -> T:
    """``read_record`` of a file's content; ``where`` it is from, for the message."""
    from pydantic import ValidationError

    try:
        parsed = json.loads(content.decode(), parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable JSON ({error}): {otherwise}") from None
    try:
        _adapter(kind).validate_json(content, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [_shown(problem) for problem in error.errors(include_url=False, include_context=False)]
    else:
        if not is_dataclass(kind):
            return parsed  # type: ignore[no-any-return]
        problems = [f"{_printable(name)}: unknown" for name in parsed if name not in {f.name for f in fields(kind)}]
        if not problems:
            return kind(**parsed)
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise UserError(f"{where}: {otherwise} ({'; '.join(problems[:_SHOWN])}{more})")


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a file's type; a dataclass takes no further fields, as ``parse_record`` does."""
    schema: dict[str, Any] = _adapter(kind).json_schema()
    return schema | ({"additionalProperties": False} if is_dataclass(kind) else {})


def schema_version(schema: dict[str, Any]) -> int:
    """The version that a file of this JSON schema carries in its field "schema"; 1 where it has none."""
    parts = (schema, *schema.get("$defs", {}).values())
    versions = [
        part["properties"]["schema"].get("const", 1) for part in parts if "schema" in part.get("properties", {})
    ]
    return int(max(versions, default=1))


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _shown(problem: Any) -> str:
    """One of pydantic's problems: where it is and what was expected."""
    place = ".".join(_printable(str(part)) for part in problem["loc"])
    said = _EXPECTED.get(problem["type"], problem["msg"])
    if problem["type"] != "missing":
        found = json.dumps(problem["input"], ensure_ascii=False, default=str)
        found = _printable(found)
        said += f", found {found if len(found) <= 40 else found[:37] + '...'}"
    return f"{place}: {said}" if place else said


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number that a float can hold")
    return value


def _whole(text: str) -> int:
    _finite(text)  # a whole number is taken where a float is expected
    return int(text)
