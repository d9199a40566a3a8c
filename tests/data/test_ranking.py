"""Ranking tasks: a user's own file, EvalRank from STS files, and what is said of bad input."""

import json

import pytest
import yaml

from simcse_bench.data.ranking import read_ranking
from simcse_bench.data.registry import load_task
from simcse_bench.errors import UserError

ROWS = [
    {"query": "a dog runs", "positives": ["the dog is running", "dogs  run"]},
    {"query": "a cat sleeps", "positives": ["the cat is asleep"]},
]
PAIRS = [(5.0, "a", "b"), (4.0, "b", "a"), (4.2, "c", "c"), (3.9, "d", "a"), (0.0, "e", "f")]


@pytest.fixture
def task(tmp_path):
    """A task file beside a file of queries; returns what reads them."""

    def made(rows, **fields):
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "queries.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        source = {"format": "jsonl", "path": "queries.jsonl"}
        content = {"kind": "ranking", "source": source, "splits": {"test": {"test": None}}} | fields
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_task("own", tmp_path)

    return made


def test_a_users_file(task):
    data = read_ranking(task(ROWS), "test", "raw", None)
    assert data.queries == ("a dog runs", "a cat sleeps")
    assert data.positives == (("the dog is running", "dogs  run"), ("the cat is asleep",))
    assert data.pool == ("a dog runs", "a cat sleeps", "the dog is running", "dogs  run", "the cat is asleep")
    assert data.candidates == ()
    assert data.head(1).pool == ("a dog runs", "the dog is running", "dogs  run")


def test_candidates_of_each_query(task):
    rows = [row | {"candidates": ["x", "y", "x"]} for row in ROWS]
    data = read_ranking(task(rows), "test", "raw", None)
    assert data.candidates == (("x", "y"), ("x", "y"))
    assert data.pool[-2:] == ("x", "y")
    assert data.fingerprint() != read_ranking(task(ROWS), "test", "raw", None).fingerprint()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROWS[0], "{"], r"queries\.jsonl:2: expected \{\"query\": \"\.\.\.\", \"positives\""),
        ([{"query": "a"}], "queries.jsonl:1: expected"),
        ([{"query": "a", "positives": []}], "queries.jsonl:1: expected"),
        ([{"query": "a", "positives": "b"}], "queries.jsonl:1: expected"),
        ([{"query": "a", "positives": ["b", 3]}], "queries.jsonl:1: expected"),
        ([{"query": " ", "positives": ["b"]}], "queries.jsonl:1: expected"),
        ([{"query": "a", "positives": ["b"], "candidates": []}], "queries.jsonl:1: expected"),
        ([{"query": "a", "positives": ["b"], "negatives": ["c"]}], "queries.jsonl:1: expected"),
        (["[]"], "queries.jsonl:1: expected"),
        ([ROWS[0] | {"candidates": ["x"]}, ROWS[1]], "the query 'a cat sleeps' has no candidates, others have"),
        ([], "0 queries in .*, expected at least one"),
    ],
)
def test_bad_rows(task, rows, said):
    with pytest.raises(UserError, match=said) as error:
        read_ranking(task(rows), "test", "raw", None)
    assert len(error.value.problems) == 1


def test_a_count_that_is_not_met(task):
    with pytest.raises(UserError, match=r"own/test: 2 queries in .*, expected 3"):
        read_ranking(task(ROWS, splits={"test": {"test": 3}}), "test", "raw", None)


@pytest.fixture
def evalrank(tmp_path):
    """An STS task of two splits, and a ranking task built from it by a rule."""

    def made(rule, rows=PAIRS, **fields):
        for split in ("dev", "test"):
            part = rows[:3] if split == "dev" else rows[3:]
            text = "".join(f"{g}\t{a}\t{b}\n" for g, a, b in part)
            (tmp_path / f"{split}.tsv").write_text(text, encoding="utf-8")
        source = {"format": "tsv", "path": "{split}.tsv"}
        sts = {"source": source, "splits": {"dev": {"dev": None}, "test": {"test": None}}}
        (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(sts), encoding="utf-8")
        built = {"format": "sts", "positives": {"pairs": rule}}
        content = {"kind": "ranking", "source": built, "splits": {"test": {"pairs": None}}, "center": True} | fields
        (tmp_path / "rank.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_task("rank", tmp_path)

    return made


def test_built_from_pairs(evalrank):
    """Each direction once, a pair of a sentence with itself too; both directions are one unit; all splits are read."""
    data = read_ranking(evalrank(4), "test", "senteval", None)
    assert list(zip(data.queries, data.positives, strict=True)) == [("a", ("b",)), ("b", ("a",)), ("c", ("c",))]
    assert data.unit[0] == data.unit[1] != data.unit[2]
    assert data.pool == ("a", "b", "c", "d", "e", "f")


def test_the_best_share_in_the_order_of_the_file(evalrank):
    rows = [(4.0, "a", "b"), (4.0, "c", "d"), (5.0, "e", "f"), (4.0, "g", "h")]
    data = read_ranking(evalrank("50 %", rows), "test", "senteval", None)
    assert [q for q in data.queries if q in "aceg"] == ["a", "e"]


def test_bad_rules(evalrank):
    for rule in ("all", "0 %", "120 %", None, [4], True):
        with pytest.raises(UserError, match="positives: expected the lowest gold score of a positive pair"):
            evalrank(rule)
    with pytest.raises(UserError, match=r"no pair is positive by \{'pairs': 6\}"):
        read_ranking(evalrank(6), "test", "senteval", None)
    with pytest.raises(UserError, match="rank/pairs: 5 pairs, expected 7"):
        read_ranking(evalrank(4, splits={"test": {"pairs": 7}}), "test", "senteval", None)
    with pytest.raises(UserError, match="positives: expected an entry for each STS task that the splits name"):
        evalrank(4, splits={"test": {"stsb": None}})


def test_of_what_is_no_sts_task(evalrank, tmp_path):
    source = {"format": "sts", "positives": {"mrpc": 1}}
    evalrank(4)
    with pytest.raises(UserError, match="task 'rank' is built from 'mrpc', a transfer task; expected STS tasks"):
        read_ranking(evalrank(4, source=source, splits={"test": {"mrpc": None}}), "test", "senteval", tmp_path)


def test_the_data_folder_of_what_it_is_built_from(senteval):
    from simcse_bench.data.pairs import needs_root

    assert needs_root(load_task("evalrank-stsb"))
    data = read_ranking(load_task("evalrank-stsb"), "test", "senteval", senteval)
    assert len(data) == len(set(zip(data.queries, data.positives, strict=True)))
    assert data.fingerprint() != read_ranking(load_task("evalrank-stsb"), "test", "raw", senteval).fingerprint()
