"""The papers' tables: the row of a model under its protocol only."""

from pathlib import Path

import pytest

from simcse_bench.data.registry import load_suites
from simcse_bench.papers import published

FOLDER = Path(published.__file__).parent
FAMILY = [(suite, file) for suite, files in published._FAMILY.items() for file in files]


def test_published_rows_only_for_the_same_protocol():
    name = "princeton-nlp/unsup-simcse-bert-base-uncased"
    found = published.published_row(name, "simcse", "all", "spearman", "test", "sts")
    assert (found.scores["sickr"], found.average) == (72.23, 76.25)
    assert published.published_row(name, "simcse", "wmean", "spearman", "test", "sts").average == 76.46
    for wrong in (("mteb", "all", "spearman", "test"), ("simcse", "mean", "spearman", "test"),
                  ("simcse", "all", "pearson", "test"), ("simcse", "all", "spearman", "dev")):  # fmt: skip
        assert published.published_row(name, *wrong, "sts") is None
    assert published.published_row("somebody/else", "simcse", "all", "spearman", "test", "sts") is None
    large = published.published_row(
        "princeton-nlp/sup-simcse-bert-large-uncased", "simcse", "all", "spearman", "test", "sts"
    )
    assert (large.scores, large.average) == ({}, 82.21)
    mini = published.published_row("all-MiniLM-L6-v2", "mteb", "all", "spearman", "test", "sts")
    assert mini.scores["sickr"] == 77.58
    assert "sickr_test" not in mini.scores


def test_every_published_row_of_the_catalog_exists():
    from simcse_bench.models.catalog import MODELS

    for name, spec in MODELS.items():
        if spec.published:
            protocol = "mteb" if "MiniLM" in name else "simcse"
            suites = ("sts", "transfer") if spec.language == "en" else (f"sts-{spec.language}",)
            measured = [(suite, "accuracy" if suite == "transfer" else "spearman") for suite in suites]
            rows = [published.published_row(name, protocol, "all", metric, "test", suite) for suite, metric in measured]
            assert any(rows), name


def test_a_checkpoint_for_transfer_tasks_is_not_held_against_the_one_for_sts():
    for kind, stated in (("sts", [True, False]), ("trans", [False, True])):
        name = f"voidism/diffcse-bert-base-uncased-{kind}"
        measured = (("spearman", "sts"), ("accuracy", "transfer"))
        rows = [published.published_row(name, "simcse", "all", metric, "test", suite) for metric, suite in measured]
        assert [row is not None for row in rows] == stated


@pytest.mark.parametrize(("suite", "file"), FAMILY)
def test_a_family_table_has_its_source_and_every_average_is_the_mean_of_its_seven(suite, file):
    """Within what rounding leaves; the first line names the averages that papers state otherwise."""
    source = (FOLDER / f"{file}.csv").read_text("utf-8").splitlines()[0]
    assert source.startswith("# ")
    assert "x100" in source
    otherwise = source.partition("not the mean of the seven: ")[2].rstrip(".").split(", ")
    tasks = load_suites()[suite]
    for fields in published.read_table(file):
        assert list(fields) == ["model", "backbone", *tasks, "avg"]
        scores = [fields[task] for task in tasks if fields[task]]
        if not scores:  # only the average is stated
            assert "average" in source, fields["model"]
            continue
        assert len(scores) == len(tasks)
        decimals = max(len(score.partition(".")[2]) for score in (*scores, fields["avg"]))
        off = abs(sum(map(float, scores)) / len(scores) - float(fields["avg"]))
        assert (off > 10.0**-decimals + 1e-9) == (fields["model"] in otherwise), (fields["model"], off)


def test_every_table_of_the_family_is_read():
    names = {path.stem for path in FOLDER.glob("*.csv")}
    assert names >= {file for _, file in FAMILY}
    listed = {file for _, file in FAMILY} | {file for file, *_ in published._TABLES.values()}
    assert {name for name in names if name.endswith(("_sts", "_transfer"))} <= listed


@pytest.mark.parametrize(("suite", "row", "source", "average"), [
    ("sts", "DiffCSE-BERT-base", "DiffCSE thesis, Table 2.1", 78.49),
    ("sts", "RankCSE ListMLE-BERT-base", "Awesome-Sentence-Embedding", 80.36),
    ("sts", "IS-CSE-BERT-base", "IS-CSE README", 78.30),
    ("transfer", "DiffCSE trans-RoBERTa-base", "DiffCSE thesis, Table 2.2", 87.04),
])  # fmt: skip
def test_the_family_by_average(suite, row, source, average):
    rows = published.family_rows(suite)
    averages = [r.average for r in rows]
    assert averages == sorted(averages, reverse=True)
    assert len({(r.row, r.source) for r in rows}) == len(rows) == len({r.row for r in rows})
    (found,) = [r for r in rows if r.row == row]
    assert (found.source, found.average) == (source, average)
    assert found.row.endswith(f"-{found.backbone}")


def test_bert_large_has_its_tasks_from_the_collection_and_only_an_average_from_simcse():
    unsup, sup = (f"princeton-nlp/{kind}-simcse-bert-large-uncased" for kind in ("unsup", "sup"))
    rows = [published.published_row(m, "simcse", "all", "spearman", "test", "sts") for m in (unsup, sup)]
    assert [(r.average, len(r.scores), r.source) for r in rows] == [
        (78.41, 7, "Awesome-Sentence-Embedding"),
        (82.21, 0, "SimCSE README"),
    ]
