import csv
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse_bench.errors import UserError
from simcse_bench.files import write_text
from simcse_bench.papers import published
from simcse_bench.reports import scores
from simcse_bench.reports.report import REPORT_SCHEMA, Report, evaluation_key, report_path
from simcse_bench.reports.site import regenerate
from simcse_bench.reports.table import to_csv, to_latex, to_markdown


def entry(value):
    return {"value": value, "interval": [value - 1, value + 1]}


def scores_of(value):
    return {
        m: {"all": entry(value), "mean": entry(value - 10), "wmean": entry(value - 20)} for m in ("spearman", "pearson")
    }


@pytest.fixture
def report():
    data = {"split": "test", "text": "senteval", "fingerprint": "f"}
    task = {"title": "STS12", "n": 5, "scores": scores_of(75.304), "data": data,
            "subsets": {"a": {"n": 2} | {m: entry(60.0) for m in ("spearman", "pearson")},
                        "b": {"n": 3} | {m: entry(70.0) for m in ("spearman", "pearson")}}}  # fmt: skip
    name = "princeton-nlp/sup-simcse-bert-base-uncased"
    return Report(
        key="k", suite="sts", limit=None, skipped={}, average=scores_of(75.304), tasks={"sts12": task}, stats={},
        model={"name": name, "pooling": "cls", "head": "mlp", "dtype": "float32"},
        protocol={"name": "simcse", "text": "senteval", "split": "test"}, seconds={"embedding": 1, "scoring": 1},
        environment={"processor": "p", "cores": 2, "versions": {}}, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_saved_and_loaded_whole(report, tmp_path):
    report.save(tmp_path / "deep" / "r.json")
    assert Report.load(tmp_path / "deep" / "r.json") == report
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.json"]


def test_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("old")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdopen", full_disk)
    with pytest.raises(UserError, match=r"No space left on device\. Free some space, or choose another place\."):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_nan_never_reaches_a_report(report, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(report, seconds={"embedding": float("nan")}).save(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 1}', '{"schema": 99}', "\xff"])
def test_damaged_reports_are_named(tmp_path, content):
    (tmp_path / "r.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"r\.json: .*not a report of this version"):
        Report.load(tmp_path / "r.json")
    assert REPORT_SCHEMA == 1


def test_key_follows_what_decides_the_numbers():
    model = {"name": "m", "files": {"w": "1"}, "pooling": "cls", "head": "none", "dtype": "float32", "note": "x"}
    protocol = {"name": "simcse", "resamples": 10}
    key = evaluation_key(model, protocol, {"a": "1"}, None)
    same = [
        ({"name": "n"}, {}),
        ({"note": "y"}, {}),
        ({"device": "cuda"}, {}),
    ]
    for m, p in same:
        assert evaluation_key(model | m, protocol | p, {"a": "1"}, None) == key
    other = [({"files": {"w": "2"}}, {}), ({"pooling": "mean"}, {}), ({"head": "mlp"}, {}), ({"dtype": "bfloat16"}, {}),
             ({"max_length": 32}, {}), ({"whiten": {"t": "1"}}, {}), ({}, {"resamples": 20})]  # fmt: skip
    keys = {evaluation_key(model | m, protocol | p, {"a": "1"}, None) for m, p in other}
    keys |= {evaluation_key(model, protocol, {"a": "2"}, None), evaluation_key(model, protocol, {"a": "1"}, 5)}
    assert len(keys | {key}) == 10


def test_file_names(tmp_path):
    assert report_path(tmp_path, "sts", "a/b-c", "--mteb").name == "a__b-c--mteb.json"
    assert report_path(tmp_path, "sts", "../../etc/x").parent == tmp_path / "sts"
    assert report_path(tmp_path, "sts", "???").name == "model.json"


@given(st.text(min_size=1), st.sampled_from(["", "--mean-none", "--first20"]))
def test_any_name_makes_a_file_name_or_is_refused(name, variant):
    try:
        path = report_path(Path("results"), "sts", name, variant)
    except UserError as error:
        told = error.problems
    else:
        told = []
    if told:
        assert [len(problem.splitlines()) for problem in told] == [1]
        return
    assert path.parent == Path("results/sts")
    assert len(path.name.encode()) <= 205
    assert path.name.isprintable()


@pytest.mark.parametrize("name", ["模" * 78, "a\nb", "a\x1b[31m", "a\u2028b", "x" * 201])
def test_a_name_that_makes_no_file_is_refused_before_the_work(cli, monkeypatch, name):
    monkeypatch.setattr("simcse_bench.evaluation.run.score_all", lambda *a, **k: pytest.fail("computed"))
    done = cli("eval", "--model", "mini", "--name", name)
    assert done.code == 2
    assert done.err.count("error: ") == 1
    assert "--name" in done.err
    assert len(done.err.splitlines()) == 2  # and which data is taken
    assert not Path("results").exists()


def test_a_folders_name_that_is_too_long_is_told(cli):
    done = cli("eval", "--model", "mini", "--out", "模" * 86)
    assert (done.code, "File name too long" in done.err) == (2, True)
    done = cli("report", "x" * 300)
    assert (done.code, "too long a name" in done.err) == (2, True)


def test_a_page_of_someone_elses_is_left(report, tmp_path, cli):
    report.save(tmp_path / "results" / "sts" / "a.json")
    page = tmp_path / "results" / "index.html"
    page.write_text("<html>my own</html>")
    for args in ((), ("--check",)):
        done = cli("report", "results", *args)
        assert done.code == 2
        assert "results/index.html: not a page of simcse-bench" in done.err
        assert page.read_text() == "<html>my own</html>"
    assert (tmp_path / "results" / "sts" / "leaderboard.md").is_file()
    page.unlink()
    assert cli("report", "results").code == 0
    assert cli("report", "results").code == 0  # ours is replaced
    analysis = tmp_path / "other" / "analysis"
    analysis.mkdir(parents=True)
    (analysis / "index.html").write_text("mine")
    done = cli("analyze", "--model", "mini", "--out", "other")
    assert (done.code, "not a page of simcse-bench" in done.err) == (2, True)
    assert [p.name for p in analysis.iterdir()] == ["index.html"]


def test_marks_in_names_are_text_in_a_terminal(report, tmp_path, cli):
    name = "[/b] $x$ [red]"
    task = report.tasks["sts12"] | {"title": "[/i]"}
    marked = dataclasses.replace(report, model=report.model | {"name": name}, tasks={"sts12": task})
    marked.save(tmp_path / "results" / "sts" / "a.json")
    done = cli("leaderboard")
    assert done.code == 0, done.err
    assert name in done.out
    assert "[/i]" in done.out
    for form in ("md", "latex", "csv"):
        assert cli("leaderboard", "--format", form).code == 0
    assert cli("report", "results").code == 0


@pytest.mark.parametrize(("suite", "name"), [("sts", "leaderboard"), ("speed", "m")])
def test_names_that_the_tables_need_are_refused(tmp_path, suite, name):
    with pytest.raises(UserError, match="taken by the tables"):
        report_path(tmp_path, suite, name)


@pytest.mark.parametrize(
    "change", [{"model": {}}, {"protocol": {}}, {"environment": {}}, {"tasks": []}, {"seconds": "x"}]
)
def test_a_report_with_damaged_insides_does_not_stop_the_others(report, tmp_path, change):
    report.save(tmp_path / "sts" / "a.json")
    broken = json.loads((tmp_path / "sts" / "a.json").read_text()) | change
    (tmp_path / "sts" / "b.json").write_text(json.dumps(broken))
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "x.json").write_text("{}")
    with pytest.raises(UserError) as error:
        regenerate(tmp_path)
    assert "b.json: not a report of this version" in str(error.value)
    assert "x.json: not a benchmark's figures" in str(error.value)
    assert (tmp_path / "sts" / "a.md").is_file()


def test_score_table_known_answer(report):
    table = scores.score_table(report, "spearman", "all")
    assert table.header == ["", "STS12"]  # an average of one task would be its score again
    assert table.rows == [
        ["princeton-nlp/sup-simcse-bert-base-uncased", "75.30"],
        ["95 % interval", "74.3–76.3"],
        ["published (SimCSE Table 5)", "75.30"],
        ["difference", "+0.00"],
    ]
    assert scores.score_table(report, "spearman", "wmean").rows[0][1:] == ["55.30"]
    narrow = scores.score_table(report, "spearman", "all", narrow=True)
    assert [row[0] for row in narrow.rows] == ["score", "95 % from", "95 % to", "published", "difference"]


def test_two_tasks_have_an_average(report):
    both = dataclasses.replace(report, tasks=report.tasks | {"sts13": report.tasks["sts12"] | {"title": "STS13"}})
    table = scores.score_table(both, "spearman", "all")
    assert table.header == ["", "STS12", "STS13", "Avg."]
    assert table.rows[0][1:] == ["75.30", "75.30", "75.30"]
    assert table.rows[2][1:] == ["75.30", "84.67", "81.57"]
    (board,) = scores.leaderboards([[both]])
    assert board.header[3:] == ["STS12", "STS13", "Avg.", "95 % interval", "rank", "tied with"]
    (alone,) = scores.leaderboards([[report]])
    assert alone.header[3:] == ["STS12", "95 % interval", "rank", "tied with"]
    assert alone.rows[0][3:] == ["75.30", "74.3–76.3", "1", "–"]


def test_titles_say_briefly_what_is_embedded(report):
    inside = dataclasses.replace(report, model=report.model | {"embedded": True})
    (both,) = scores.leaderboards([[inside]])
    assert both.title.endswith("; embedded encoder")
    assert any(note.startswith("With the embedded mini encoder (for trying") for note in both.notes)
    (mixed,) = scores.leaderboards([[inside, report]])
    assert "embedded" not in mixed.title  # the rows say which
    assert any(note.startswith("With the embedded") for note in mixed.notes)


def test_no_published_row_beside_another_pooling_or_a_part_of_the_data(report):
    for changed in (
        dataclasses.replace(report, model=report.model | {"pooling": "mean", "head": "none"}),
        dataclasses.replace(report, limit=10),
        dataclasses.replace(report, model=report.model | {"whiten": {"t": "1"}}),
    ):
        assert len(scores.score_table(changed, "spearman", "all").rows) == 2
    assert (
        "comparable with nothing" in scores.score_table(dataclasses.replace(report, limit=10), "spearman", "all").title
    )


def test_a_missing_task_is_a_dash_and_takes_the_average(report):
    table = scores.score_table(
        dataclasses.replace(report, skipped={"sts13": "has no dev split"}, average=None), "spearman", "all"
    )
    assert table.header == ["", "STS12", "STS13", "Avg."]
    assert table.rows[0][1:] == ["75.30", "–", "–"]
    assert any("No average" in note for note in table.notes)


def test_markdown_csv_and_latex(report):
    table = scores.score_table(report, "spearman", "all")
    lines = to_markdown(table).splitlines()
    assert len({len(line) for line in lines[2:8]}) == 1
    assert lines[4].startswith("| princeton-nlp/sup-simcse-bert-base-uncased |")
    latex = to_latex(table)
    assert r"95 \% interval & 74.3--76.3 \\" in latex
    assert r"\begin{tabular}{lr}" in latex
    rows = scores.score_rows(report)
    assert len(rows) == 2 * (3 + 2 + 3)  # metrics x (aggregates + subsets + averages)
    assert {"task": "sts12", "subset": "b", "metric": "pearson", "value": 70.0}.items() <= rows[9].items()
    assert to_csv(rows).splitlines()[0].startswith("model,protocol,split,task,subset,pairs,metric")


def test_regenerate_and_its_check(report, tmp_path):
    report.save(tmp_path / "sts" / "a.json")
    better = dataclasses.replace(report, model=report.model | {"name": "better"}, average=scores_of(90.0))
    better.save(tmp_path / "sts" / "b.json")
    with pytest.raises(UserError, match=r"leaderboard\.md is stale: run `simcse-bench report"):
        regenerate(tmp_path, check=True)
    assert len(regenerate(tmp_path)) == 7
    regenerate(tmp_path, check=True)
    board = (tmp_path / "sts" / "leaderboard.md").read_text()
    assert board.index("better") < board.index("princeton-nlp")
    edited = json.loads((tmp_path / "sts" / "a.json").read_text())
    edited["tasks"]["sts12"]["scores"]["spearman"]["all"]["value"] = 10.0
    (tmp_path / "sts" / "a.json").write_text(json.dumps(edited))
    with pytest.raises(UserError) as error:
        regenerate(tmp_path, check=True)
    assert "a.md is stale" in str(error.value)
    assert "b.md" not in str(error.value)
    (tmp_path / "sts" / "b.json").write_text("{")
    with pytest.raises(UserError, match=r"b\.json: not readable JSON"):
        regenerate(tmp_path)
    assert "10.00" in (tmp_path / "sts" / "a.md").read_text()  # the others are still written


def on_data(report, name, digest, limit=None):
    task = report.tasks["sts12"]
    tasks = {"sts12": task | {"data": task["data"] | {"fingerprint": digest}}}
    return dataclasses.replace(report, model=report.model | {"name": name}, key=name, tasks=tasks, limit=limit)


def test_a_board_of_different_kinds_has_no_column_of_averages_and_ranks():
    folder = Path(__file__).parents[2] / "results" / "tasks"
    reports = [Report.load(path) for path in sorted(folder.glob("*--evalrank-stsb--mrpc-pairs.json"))]
    board = scores.leaderboard(reports)
    assert len(board.rows) == len(reports) > 2
    assert board.header == ["model", "pooling", "dtype", "EvalRank STS-B", "MRPC pairs"]
    assert not any("Tied with" in note for note in board.notes)
    alone = scores.leaderboard([dataclasses.replace(r, tasks={"mrpc-pairs": r.tasks["mrpc-pairs"]}) for r in reports])
    assert alone.header[3:] == ["MRPC pairs"]


def test_reports_on_other_data_do_not_share_a_leaderboard(report):
    reports = [
        on_data(report, "a", "f"),
        on_data(report, "b", "e"),
        on_data(report, "c", "f"),
        on_data(report, "d", "g", 5),
    ]
    boards = scores.leaderboards(scores.grouped(reports))
    assert [[row[0] for row in board.rows] for board in boards] == [["b"], ["a", "c"], ["d"]]
    assert [board.title.partition("; ")[2] for board in boards] == [
        "data of its own: sts12 e", "data of its own: sts12 f", "ONLY THE FIRST 5 PAIRS OF EVERY SUBSET",
    ]  # fmt: skip
    alone = scores.leaderboards(scores.grouped(reports[::2]))
    assert [board.title.partition("; ")[2] for board in alone] == [""]


def test_the_site_and_the_command_keep_them_apart(report, tmp_path, cli):
    for name, digest, limit in (("a", "f", None), ("b", "e", None), ("c", "g", 5)):
        on_data(report, name, digest, limit).save(tmp_path / "results" / "sts" / f"{name}.json")
    done = cli("leaderboard", "--format", "csv")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(done.out.splitlines()))
    assert [row["rank"] for row in rows] == ["1", "1", "1"]
    assert len({row["protocol"] for row in rows}) == 3
    assert cli("report", "results").code == 0
    page = (tmp_path / "results" / "index.html").read_text("utf-8")
    boards = json.loads(page.split('id="boards">')[1].split("</script>")[0])
    assert [[row["model"] for row in board["rows"]] for board in boards] == [["b"], ["a"], ["c"]]
    assert "ONLY THE FIRST 5 PAIRS" in boards[2]["mark"]
    assert "data of its own: sts12 f" in (tmp_path / "results" / "sts" / "leaderboard.md").read_text("utf-8")


def test_the_papers_glove_row_stands_beside_word_vectors(report):
    words = dataclasses.replace(
        report, model=report.model | {"name": "word-vectors:x", "pooling": "mean of word vectors"}
    )
    rows = [row for row in scores.leaderboard([report, words]).rows if row[0].startswith("published: GloVe")]
    assert [row[3] for row in rows] == ["55.14"]
    assert not any(row[0].startswith("published") for row in scores.leaderboard([report]).rows)
    dev = dataclasses.replace(words, protocol=words.protocol | {"split": "dev"})
    assert len(scores.leaderboard([dev]).rows) == 1
    transfer = published.published_word_vectors(
        {"name": "simcse", "split": "test", "probe": "exact"}, "spearman", "all", "transfer"
    )
    assert (transfer.scores["trec"], transfer.average) == (83.00, 81.52)
    assert (
        published.published_word_vectors(
            {"name": "simcse", "split": "test", "probe": "fast"}, "spearman", "all", "transfer"
        )
        is None
    )


def test_averages_within_their_noise_are_named():
    def score(value, half=None):
        return {"value": value, "interval": None if half is None else [value - half, value + half]}

    found = scores.inseparable([score(80.0, 0.6), score(79.3, 0.6), score(78.4, 0.6), score(80.0), None])
    assert found == [[1], [0], [], [], []]  # 0.7 is below 0.85 = √2 · 0.6, 0.9 is above
    lopsided = [{"value": 80.0, "interval": [79.9, 90.0]}, {"value": 79.0, "interval": [70.0, 79.1]}]
    assert scores.inseparable(lopsided) == [[], []]  # the sides that face each other count


@pytest.mark.usefixtures("few_resamples")
def test_the_leaderboard_is_printed_with_ranks(cli, bert, senteval):
    for pooling in ("cls", "mean"):
        assert cli("eval", "--model", bert, "--pooling", pooling, "--head", "none", "--data-dir", senteval, "--device",
                   "cpu", "--name", pooling, "-q").code == 0  # fmt: skip
    assert cli("report", "results").code == 0
    done = cli("leaderboard", "--format", "md")
    assert done.out == Path("results/sts/leaderboard.md").read_text("utf-8")
    header, _, *rows = [[c.strip() for c in line.split("|")[1:-1]] for line in done.out.splitlines() if "|" in line]
    assert [row[header.index("rank")] for row in rows] == ["1", "2"]
    assert {row[0] for row in rows} == {"cls", "mean"}
    assert "tied with" in cli("leaderboard").out
    assert "sts: spearman" in cli("leaderboard", "--suite", "sts").out
    done = cli("leaderboard", "--suite", "stss")
    assert (done.code, "did you mean 'sts'" in done.err) == (2, True)
    done = cli("leaderboard", "--metric", "sperman", "--format", "xls")
    assert (done.code, "sperman" in done.err, "xls" in done.err) == (2, True, True)
    done = cli("leaderboard", "nowhere")
    assert (done.code, "nowhere: no reports" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("name", "file", "shown"),
    [
        ("runs/u", "runs__u", "runs/u"),
        ("runs/u", "runs__u--mean-none--bfloat16", "runs/u, mean-none, bfloat16"),
        ("word-vectors:glove", "word-vectors-glove--whitened", "word-vectors:glove, whitened"),
        ("runs/u", "renamed-by-hand", "runs/u"),
    ],
)
def test_people_read_the_models_name_not_the_files(name, file, shown):
    from simcse_bench.reports.report import readable_name

    assert readable_name(name, file) == shown


@pytest.mark.parametrize("own", [{"template": "a {sentence}"}, {"truncate_dim": 5}, {"lower_case": True}])
def test_a_known_model_used_otherwise_has_no_published_row(report, own):
    """The published number is that of the model's own settings, of which the catalog does not name all."""
    assert scores.published_beside(report, "spearman", "all") is not None
    used = dataclasses.replace(report, model=report.model | own)
    assert scores.published_beside(used, "spearman", "all") is None
