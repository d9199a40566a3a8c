"""Searching training text, and scoring without what was found: through the command line, numbers by hand."""

import csv
import gzip
import json

import pytest
from scipy import stats

from simcse_bench.data.corpus import open_corpus
from simcse_bench.data.labelled import read_labelled
from simcse_bench.data.pairs import data_folder, read_task_pairs
from simcse_bench.data.reading import read_task
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.errors import UserError
from simcse_bench.evaluation.evaluate import evaluate
from simcse_bench.evaluation.exclusion import leave_out
from simcse_bench.evaluation.overlap import find_overlaps
from simcse_bench.models.open import open_model
from simcse_bench.reports.again import eval_command
from simcse_bench.reports.overlap import read_overlap, save_overlap
from simcse_bench.reports.pair_records import load_pairs
from simcse_bench.reports.report import Report


@pytest.fixture
def own(tasks_dir, tmp_path):
    """The user's task, and training text with three of its sentences: exact, in capitals, and inside a longer line."""
    task = load_task("own", tasks_dir)
    pairs = read_task_pairs(task, "test", "senteval", None)
    long = max(pairs.right, key=lambda s: len(set(s.split())))
    lines = [
        "nothing of it",
        pairs.left[3],
        "",
        pairs.left[7].upper(),
        f"before this , {long} and behind it",
        pairs.left[3],
    ]
    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return task, pairs, text, long


def search(own, tasks_dir, **more):
    return find_overlaps(open_corpus(str(own[2])), [own[0]], where=DataSource(tasks_dir=tasks_dir), **more)[0]


def test_what_is_found_where(own, tasks_dir):
    _, pairs, _, long = own
    overlap = search(own, tasks_dir, kinds=("exact", "normalised", "inside"))
    found = {one["sentence"]: one for one in overlap.found}
    exact, capitals = found[pairs.left[3]], found[pairs.left[7]]
    assert (exact["kind"], exact["times"], exact["row"], exact["text"]) == ("exact", 2, 2, pairs.left[3])
    assert (capitals["kind"], capitals["row"]) == ("normalised", 4)
    assert (found[long]["kind"], found[long]["row"]) == ("inside", 5)
    every = {r for r in range(30) if {pairs.left[r], pairs.right[r]} & set(found)}
    assert set(overlap.rows("own")) == every
    assert overlap.rows("own")[3] == "exact"  # the closest of its two
    assert overlap.tasks["own"]["whole"] == sum(
        {a, b} <= set(found) for a, b in zip(pairs.left, pairs.right, strict=True)
    )
    assert overlap.tasks["own"]["sentences"] == overlap.sentences == len({*pairs.left, *pairs.right})
    assert (overlap.train["rows"], overlap.train["texts"]) == (6, 6)


def test_kinds_and_columns(own, tasks_dir, tmp_path):
    _, pairs, *_ = own
    assert {one["kind"] for one in search(own, tasks_dir, kinds=["exact"]).found} == {"exact"}
    table = tmp_path / "triplets.csv.gz"
    table.write_bytes(gzip.compress(f"sent0,sent1,hard_neg\nx,{pairs.left[0]},{pairs.left[1]}\n".encode()))
    for columns, hits in (((), {0, 1}), (("sent0", "sent1"), {0})):
        overlap = find_overlaps(
            open_corpus(str(table), columns), [own[0]], where=DataSource(tasks_dir=tasks_dir), kinds=["exact"]
        )[0]
        assert {pairs.left[i] for i in hits} == {one["sentence"] for one in overlap.found}
    for more, message in (({"kinds": ["nearly"]}, "did you mean 'near'"), ({"least": 0}, "at least 1 word")):
        with pytest.raises(UserError, match=message):
            search(own, tasks_dir, **more)


def test_transfer_tasks_are_searched_too(tmp_path):
    task = load_task("mini-probe")
    text = tmp_path / "t.txt"
    rows = read_labelled(task, data_folder([task]))
    text.write_text(rows.texts[5] + "\n", encoding="utf-8")
    overlap = find_overlaps(open_corpus(str(text)), [task], kinds=["exact"])[0]
    assert 5 in overlap.rows("mini-probe")
    save_overlap(tmp_path / "r.json", overlap)
    with pytest.raises(UserError, match="is a transfer task"):
        leave_out(tmp_path / "r.json", {"mini-probe": rows})


def test_end_to_end(cli, own, tasks_dir, tmp_path, bert, few_resamples):
    task, pairs, text, _ = own
    where = ("--tasks-dir", tasks_dir, "--out", tmp_path / "results")
    run = cli("data", "overlap", "--train", text, "--task", "own", *where)
    assert run.code == 0, run.err
    path = tmp_path / "results" / "overlap" / "text.txt--own.json"
    assert f"written: {path}" in run.err
    overlap = read_overlap(path)
    out = sorted(overlap.rows("own"))
    assert out
    rows = list(csv.DictReader(path.with_suffix(".csv").open(encoding="utf-8")))
    assert [row["sentence"] for row in rows] == [one["sentence"] for one in overlap.found]
    assert f"{len(out)} |" in path.with_suffix(".md").read_text(encoding="utf-8")
    again = cli("data", "overlap", "--train", text, "--task", "own", *where)
    assert "already there" in again.err
    assert again.out == run.out

    model = ("eval", "--model", bert, "--pooling", "cls", "--head", "none", "--task", "own", *where)
    assert cli(*model).code == 0
    without = cli(*model, "--exclude-overlap", path)
    assert without.code == 0, without.err
    assert "Without the pairs of which a sentence was found in text.txt" in " ".join(without.out.split())
    (whole_path,) = (tmp_path / "results/tasks").glob("*--own--cls-none.json")
    (path_without,) = (tmp_path / "results/tasks").glob("*--without-text.txt*.json")
    whole, report = Report.load(whole_path), Report.load(path_without)
    kept = [i for i in range(30) if i not in out]
    cosines = load_pairs(whole_path, whole)["own"]
    expected = 100 * stats.spearmanr([cosines[i] for i in kept], pairs.gold[kept]).statistic
    assert report.tasks["own"]["scores"]["spearman"]["all"]["value"] == pytest.approx(expected, abs=1e-5)
    assert report.tasks["own"]["n"] == len(kept)
    assert report.tasks["own"]["data"]["left_out"] == out
    assert report.protocol["excluded"] == {"train": "text.txt", "overlap": overlap.key, "file": "text.txt--own.json"}
    assert report.key != whole.key
    in_python = evaluate(
        open_model(str(bert), pooling="cls", head="none"), [task], where=DataSource(tasks_dir=tasks_dir), exclude=path
    )
    assert (in_python.key, in_python.tasks) == (report.key, report.tasks)
    assert "excluded" not in whole.protocol
    assert f"--exclude-overlap results/overlap/{path.name}" in eval_command(report)
    compared = cli("compare", path_without, path_without, "--tasks-dir", tasks_dir)
    assert "differ" not in compared.err  # the pairs are found again by what the report says
    limited = cli(*model, "--exclude-overlap", path, "--limit", 5, "--format", "json")
    assert json.loads(limited.out)["tasks"]["own"]["n"] == 5
    assert cli("report", tmp_path / "results").code == 0
    assert cli("report", tmp_path / "results", "--check").code == 0


def test_bad_input(cli, own, tasks_dir, tmp_path, bert):
    _, _, text, _ = own
    where = ("--tasks-dir", tasks_dir, "--out", tmp_path / "results")
    search = ("data", "overlap", "--train", text, "--task", "own", *where)
    assert cli(*search).code == 0
    path = tmp_path / "results" / "overlap" / "text.txt--own.json"
    model = ("eval", "--model", bert, "--pooling", "cls", "--head", "none", *where)
    text.write_text("other text\n", encoding="utf-8")
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n\t\n", encoding="utf-8")
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"a": 1}\n', encoding="utf-8")
    for args, message in (
        (search, "holds another search (its text "),
        ((*search, "--kind", ","), "--kind ',': names nothing"),
        ((*search[:2], "--train", blank, "--task", "own", *where), "nothing but blanks in its 2 rows"),
        ((*search[:2], "--train", tmp_path / "no.txt", "--task", "own", *where), "no such file"),
        ((*search, "--suite", "sts"), "exclude each other"),
        ((*search, "--kind", "exakt"), "did you mean 'exact'"),
        ((*search, "--min-words", 0), "--min-words 0: expected at least 1."),
        (
            (*search[:2], "--train", numbers, "--task", "own", *where),
            "expected text. Choose the text columns: --column a,b.",
        ),
        ((*model, "--task", "mini-sts", "--exclude-overlap", path), "says nothing of mini-sts"),
        ((*model, "--task", "own", "--exclude-overlap", tmp_path / "no.json"), "no.json"),
        ((*model, "--task", "own", "--exclude-overlap", tasks_dir / "own.yaml"), "not a record of"),
        ((*model, "--suite", "mteb:BIOSSES", "--exclude-overlap", path), "not with --suite mteb"),
    ):
        run = cli(*args)
        assert (run.code, message in run.err) == (2, True), (args, run.err)
        assert "Traceback" not in run.err
    rows = (tasks_dir / "own.tsv").read_text(encoding="utf-8").splitlines()
    (tasks_dir / "own.tsv").write_text("\n".join(rows[1:] + rows[:1]) + "\n", encoding="utf-8")
    run = cli(*model, "--task", "own", "--exclude-overlap", path)
    assert "is of other data of own" in run.err


def test_too_few_pairs_left(own, tasks_dir, tmp_path):
    task, pairs, *_ = own
    text = tmp_path / "all.txt"
    text.write_text("\n".join(pairs.left) + "\n", encoding="utf-8")
    where = DataSource(tasks_dir=tasks_dir)
    find_overlaps(open_corpus(str(text)), [task], where=where, save=tmp_path / "x.json")
    with pytest.raises(UserError, match="0 of 30 pairs of own are left"):
        leave_out(tmp_path / "x.json", {"own": pairs})


def test_other_kinds(tmp_path):
    """Of a ranking a row is a query with its positives; pairs and triplets can be left out, a ranking's rows cannot."""
    (tmp_path / "para.tsv").write_text("1\tthe cat sat\ta cat sat\n0\tno rain\tmuch snow\n1\tgo\tleave\n", "utf-8")
    (tmp_path / "trip.tsv").write_text(
        "a red car\tred cars\ta bus\nmuch snow\tit snows\tsun\ntwo\tpair\tone\n", "utf-8"
    )
    rows = [{"query": "who is it", "positives": ["it is me", "no rain"]}, {"query": "why", "positives": ["so"]}]
    (tmp_path / "rank.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    source = {
        "para": "{format: tsv, path: para.tsv}\nsplits: {dev: {d: }, test: {t: }}",
        "trip": "{format: tsv, path: trip.tsv, columns: {anchor: 0, positive: 1, negative: 2}}\nsplits: {test: {t: }}",
        "rank": "{format: jsonl, path: rank.jsonl}\nsplits: {test: {t: }}",
    }
    kinds = {"para": "paraphrase", "trip": "triplet", "rank": "ranking"}
    for name, text in source.items():
        (tmp_path / f"{name}.yaml").write_text(f"kind: {kinds[name]}\nsource: {text}\n", "utf-8")
    text = tmp_path / "text.txt"
    text.write_text("much snow\nno rain\nit snows\nsun\n", "utf-8")
    where = DataSource(tasks_dir=tmp_path)
    tasks = [load_task(name, tmp_path) for name in source]
    path = tmp_path / "r.json"
    overlap, _ = find_overlaps(open_corpus(str(text)), tasks, where=where, kinds=["exact"], save=path)
    assert {name: set(overlap.rows(name)) for name in source} == {"para": {1}, "trip": {1}, "rank": {0}}
    assert {name: (one["n"], one["whole"]) for name, one in overlap.tasks.items()} == {
        "para": (3, 1), "trip": (3, 1), "rank": (2, 0),
    }  # fmt: skip
    data = {task.name: read_task(task, "test", "senteval", None) for task in tasks}
    kept = leave_out(path, {"trip": data["trip"]})["trip"]
    assert (kept.anchor, kept.left_out) == (("a red car", "two"), (1,))
    assert kept == read_task(tasks[1], "test", "senteval", None, left_out=[1])
    assert leave_out(path, {"trip": data["trip"]}, 1)["trip"].anchor == ("a red car",)
    with pytest.raises(UserError, match="rank is a ranking task"):
        leave_out(path, {"rank": data["rank"]})
    with pytest.raises(UserError, match="2 of 3 pairs of para are left; a score needs one of each label"):
        leave_out(path, {"para": data["para"]})
    (tmp_path / "para.tsv").write_text((tmp_path / "para.tsv").read_text("utf-8") + "0\tup\tdown\n", "utf-8")
    find_overlaps(open_corpus(str(text)), tasks, where=where, kinds=["exact"], save=path, force=True)
    para = leave_out(path, {"para": read_task(tasks[0], "test", "senteval", None)})["para"]
    assert (len(para), len(para.dev), para.left_out) == (3, 4, (1,))
