"""`simcse-bench schema`: the types of our files as JSON schemas, versioned."""

import json

import pytest

from simcse_bench.cli.listing import SCHEMAS


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_printed_with_its_version(cli, name):
    done = cli("schema", name)
    assert done.code == 0, done.err
    schema = json.loads(done.out)
    assert schema["$id"] == f"simcse-bench/{name}/{2 if name in ('encode', 'pairs', 'tokens') else 1}"
    assert {"properties", "anyOf", "additionalProperties"} & set(schema)


def test_the_schemas_are_listed(cli):
    for done in (cli("schema"), cli("ls", "schemas")):
        assert done.code == 0
        assert all(f"simcse-bench/{name}/" in done.out for name in SCHEMAS)
    assert "unknown schema 'reprot'; did you mean 'report'" in cli("schema", "reprot").err


def test_what_a_report_must_hold_stands_in_its_schema(cli):
    schema = json.loads(cli("schema", "report").out)
    assert {"key", "model", "tasks", "limit"} <= set(schema["required"])
    assert schema["$defs"]["Provenance"]["required"] == ["name"]
