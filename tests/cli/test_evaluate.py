import csv
import json
import subprocess
import sys

import pytest
from tiny import tiny_bert

from simcse_bench.reports.report import Report

OWN = ("--task", "own", "--tasks-dir", "mytasks")


@pytest.fixture
def own(cli, tasks_dir, bert):
    """`eval` of the tiny BERT on the user's own task, in the folder that holds both."""
    return lambda *args: cli(
        "eval", "--model", bert, *OWN, *(args if "--pooling" in args else ("--pooling", "mean", *args))
    )


def nothing_written(tmp_path):
    return not (tmp_path / "results").exists()


def test_a_users_own_task_end_to_end(own, tmp_path):
    run = own()
    assert run.code == 0, run.err
    assert "Own" in run.out
    report = Report.load(tmp_path / "results" / "tasks" / "tiny-bert--own--mean-none.json")
    assert report.tasks["own"]["n"] == 30
    assert f"{report.tasks['own']['scores']['spearman']['all']['value']:.2f}" in run.out
    assert report.model["files"]["model.safetensors"]
    assert str(tmp_path) not in (tmp_path / "results" / "tasks" / "tiny-bert--own--mean-none.json").read_text()


def test_printed_again_not_recomputed(own, tmp_path, monkeypatch):
    first = own()
    monkeypatch.setattr("simcse_bench.evaluation.run.score_all", lambda *a, **k: pytest.fail("computed again"))
    again = own("--aggregate", "wmean", "--batch-tokens", "7")  # neither decides the numbers
    assert again.code == 0
    assert "already there, printed again" in again.err
    assert "aggregation 'wmean'" in again.out
    assert own().out == first.out
    assert "--batch-tokens 0: expected at least 1 token" in own("--batch-tokens", "0").err


def test_another_evaluation_in_the_same_file_is_refused(cli, own, tmp_path, tasks_dir):
    folder = tiny_bert(tmp_path / "runs" / "x", seed=1)
    command = ("eval", "--model", "runs/x", *OWN, "--pooling", "mean")
    assert cli(*command).code == 0
    saved = tmp_path / "results" / "tasks" / "runs__x--own--mean-none.json"
    before = saved.read_text()
    tiny_bert(folder, seed=2)
    refused = cli(*command)
    assert refused.code == 2
    assert "holds another evaluation (model.safetensors differ). Use --force" in refused.err
    assert saved.read_text() == before
    assert cli(*command, "--force").code == 0
    assert saved.read_text() != before
    (tasks_dir / "own.tsv").write_text((tasks_dir / "own.tsv").read_text().replace(" dog", " cat"))
    assert "the data of own differ" in cli(*command).err


@pytest.fixture
def two_subsets(tasks_dir):
    """The user's task with two subsets of 12 and 18 pairs, so that no aggregation is another."""
    (tasks_dir / "own.yaml").write_text(
        'title: Own\nsource: {format: tsv, path: "{subset}.tsv"}\nsplits: {test: {some: 12, more: 18}}\n'
    )
    lines = (tasks_dir / "own.tsv").read_text().splitlines(keepends=True)
    (tasks_dir / "some.tsv").write_text("".join(lines[:12]))
    (tasks_dir / "more.tsv").write_text("".join(lines[12:]))


def printed(run):
    assert (run.code, run.err) == (0, "")
    return run.out


@pytest.mark.usefixtures("two_subsets")
def test_the_csv_has_every_number_of_the_json(own):
    report = json.loads(printed(own("--format", "json", "--quiet")))
    task = report["tasks"]["own"]
    assert (task["n"], {n: s["n"] for n, s in task["subsets"].items()}) == (30, {"some": 12, "more": 18})
    expected = {}
    for metric in ("spearman", "pearson"):
        for how in ("all", "mean", "wmean"):
            expected["own", "", "30", metric, how] = task["scores"][metric][how]
            expected["avg", "", "", metric, how] = report["average"][metric][how]
        for name, subset in task["subsets"].items():
            expected["own", name, str(subset["n"]), metric, ""] = subset[metric]
    assert len({round(e["value"], 3) for e in expected.values()}) == 2 * (3 + 2)  # one task: it is the average
    text = printed(own("--format", "csv", "--quiet"))
    assert text.splitlines()[0] == "model,protocol,split,task,subset,pairs,metric,aggregate,value,low,high"
    rows = list(csv.DictReader(text.splitlines()))
    assert {(r["model"], r["protocol"], r["split"]) for r in rows} == {("tiny-bert", "simcse", "test")}
    named = {tuple(r[c] for c in ("task", "subset", "pairs", "metric", "aggregate")): r for r in rows}
    assert (len(rows), set(named)) == (len(expected), set(expected))
    for name, entry in expected.items():
        row = named[name]
        assert float(row["value"]) == pytest.approx(entry["value"], abs=1e-6)
        assert [float(row["low"]), float(row["high"])] == pytest.approx(entry["interval"], abs=1e-6)


@pytest.mark.usefixtures("two_subsets")
@pytest.mark.parametrize(("metric", "how"), [("spearman", "all"), ("spearman", "wmean"), ("pearson", "mean")])
def test_the_tables_are_those_numbers(own, metric, how):
    report = json.loads(printed(own("--format", "json", "--quiet")))
    (value, (low, high)) = (report["tasks"]["own"]["scores"][metric][how][k] for k in ("value", "interval"))
    title = f"{metric} ×100, protocol simcse, test, aggregation '{how}'"
    given = ("--metric", metric, "--aggregate", how, "--quiet")
    head, blank, *rows = printed(own("--format", "md", *given)).splitlines()
    assert (head, blank) == (f"**{title}**", "")
    header, rule, *body = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row]
    assert header == ["", "Own"]  # no average: of one task it would be the score again
    assert [set(cell) for cell in rule] == [{":", "-"}] * 2
    shown, interval = f"{value:.2f}", f"{low:.1f}–{high:.1f}"
    assert body == [["tiny-bert", shown], ["95 % interval", interval]]
    assert printed(own("--format", "latex", *given)).splitlines() == [
        f"% {title}", r"\begin{tabular}{lr}", r"\toprule", r" & Own \\", r"\midrule",
        rf"tiny-bert & {shown} \\",
        rf"95 \% interval & {low:.1f}--{high:.1f} \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    lines = [" ".join(line.split()) for line in printed(own("--format", "table", *given)).splitlines()]
    assert lines[:2] == ["tiny-bert", title]
    assert [line for line in lines[2:] if line.strip(" ─")] == [
        "Own", f"score {shown}", f"95 % from {low:.2f}", f"95 % to {high:.2f}"
    ]  # fmt: skip


def test_quiet_and_progress(own):
    run = own("--quiet")
    assert run.err == ""
    assert "embedding 100 %" in own("--force", "--progress", "plain").err
    assert "embedding" not in own("--force", "--progress", "none").err
    assert own("--force", "--progress", "bar").code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--task", "stsx"], "unknown task 'stsx'; did you mean 'stsb'? `simcse-bench ls tasks` shows all "),
        (["--suite", "st"], "unknown suite 'st'; did you mean 'sts'?"),
        (["--protocol", "mtebb"], "unknown protocol 'mtebb'; did you mean 'mteb'?"),
        (["--aggregate", "men"], "unknown aggregation 'men'; did you mean 'mean'?"),
        (["--metric", "kendall"], "unknown metric 'kendall'"),
        (["--format", "tex"], "unknown format 'tex'"),
        (["--dtype", "float23"], "unknown dtype 'float23'; did you mean 'float32'?"),
        (["--pooling", "clss"], "unknown pooling 'clss'; did you mean 'cls'?"),
        (["--limit", "1"], "--limit 1: a correlation needs at least 2 pairs"),
        (["--split", "devv"], "has no devv split"),
        (["--suite", "sts", "--task", "stsb"], "--suite and --task exclude each other"),
        (["--suite", ""], "--suite '': names nothing"),
        (["--task", ","], "--task ',': names nothing"),
        (["--device", "cuda:9"], "--device cuda:9: not available"),
        (["--device", "gpu"], "--device gpu: not available"),
        (["--batch-tokens", "0"], "--batch-tokens 0: expected at least 1"),
        (["--max-length", "1000"], "takes at most 48 tokens"),
        (["--data-dir", "nowhere"], "no data found there"),
        (["--whiten", "nowhere.txt"], "--whiten nowhere.txt: no such file"),
        (["--probe", "fast"], "STS tasks have no classifier"),
        (["--suite", "transfer", "--probe", "fats"], "unknown probe 'fats'; did you mean 'fast'?"),
        (["--suite", "transfer", "--protocol", "mteb"], "protocol mteb has none of mr, cr"),
        (["--suite", "transfer", "--split", "train"], "--split train: transfer tasks have dev and test"),
    ],
)
def test_one_clear_error_and_nothing_written(cli, bert, senteval, tmp_path, monkeypatch, args, message):
    monkeypatch.setenv("SIMCSE_BENCH_DATA", str(senteval))
    pooling = [] if "--pooling" in args else ["--pooling", "mean"]
    run = cli("eval", "--model", bert, *pooling, *args)
    assert run.code == 2, run.out + run.err
    assert message in run.err
    assert "Traceback" not in run.err
    assert nothing_written(tmp_path)


def test_bad_models_and_data(cli, own, bert, tmp_path, tasks_dir):
    for model, message in (("bert-base-uncasd", "did you mean 'bert-base-uncased'"), ("./no", "no such folder"),
                           ("word-vectors:none.txt", "no such file"), (bert, "does not say its pooling")):  # fmt: skip
        run = cli("eval", "--model", model, *OWN)
        assert (run.code, message in run.err) == (2, True), run.err
    assert "--pooling: does not apply" in cli("eval", "--model", "word-vectors:x", "--pooling", "cls", *OWN).err
    (tasks_dir / "own.tsv").write_text("1\ta\tb\nx\tc\td\n9\te\tf\n3\tg\n")
    run = own()
    assert run.code == 2
    assert "own.tsv:4: 2 fields, expected 3 as in the first line" in run.err
    (tasks_dir / "own.tsv").write_text("1\ta\tb\nx\tc\td\n9\te\tf\n")
    run = own()
    for message in (
        "own.tsv:2: gold score 'x' is not a number",
        "own.tsv:3: gold score 9 is outside [0, 5]",
        "3 scored pairs",
    ):
        assert message in run.err
    assert nothing_written(tmp_path)


def test_unwritable_results(own, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    run = own()
    assert run.code == 2
    assert "cannot write results/tasks" in run.err
    assert "Traceback" not in run.err


def test_word_vectors_and_whitening(cli, tmp_path, tasks_dir, bert):
    from tiny import SPECIAL, WORDS, sentences

    (tmp_path / "v.txt").write_text("".join(f"{w} {i} {i * i % 7} {i % 3}\n" for i, w in enumerate(SPECIAL + WORDS)))
    (tmp_path / "text.txt").write_text("\n".join(sentences(100, seed=9)))
    assert cli("eval", "--model", "word-vectors:v.txt", *OWN).code == 0
    run = cli("eval", "--model", bert, "--pooling", "embedding_last", "--whiten", "text.txt", *OWN)
    assert run.code == 0, run.err
    names = {p.stem for p in (tmp_path / "results" / "tasks").glob("*.json")}
    assert names == {"word-vectors-v.txt--own", "tiny-bert--own--embedding_last-none--whitened"}


def test_ls_and_data(cli, senteval, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    tasks = cli("ls", "tasks").out
    assert [line.split()[0] for line in tasks.splitlines()[4:18]][:3] == ["sts12", "sts13", "sts14"]
    assert tasks.count("nested_kfold") == 5  # mini-probe is one
    assert "princeton-nlp/sup-simcse-roberta-large" in cli("ls", "models").out
    assert "first_last" in cli("ls", "poolings").out
    assert "transfer" in cli("ls", "suites").out
    assert "sickr: all" in cli("ls", "protocols").out
    assert "unknown list 'task'; did you mean 'tasks'" in cli("ls", "task").err
    where = cli("data", "where", "--data-dir", senteval)
    assert where.out == f"{senteval} (--data-dir)\n"
    check = cli("data", "check", "--data-dir", senteval, "--task", "stsb", "--task", "sickr")
    assert check.code == 0, check.err
    assert check.out.count("stsb") == 6
    assert "9927" in check.out


def test_data_check_names_every_fault(cli, senteval, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(senteval, root)
    gold = root / "STS" / "STS14-en-test" / "STS.gs.images.txt"
    gold.write_text(gold.read_text().replace("\n", "\n", 1).replace("0.200", "6.000"))
    (root / "SICK" / "SICK_trial.txt").unlink()
    run = cli("data", "check", "--data-dir", root, *(f"--task={t}" for t in ("sts14", "stsb", "sickr")))
    assert run.code == 2
    assert "gold score 6 is outside [0, 5]" in run.err
    assert "SICK_trial.txt: no such file" in run.err
    assert run.out.count("FAILED") == 3  # sts14 senteval, sickr dev, sickr all


def test_report_command(cli, own, tmp_path):
    own()
    assert cli("report", "results", "--check").code == 2
    assert cli("report", "results").code == 0
    assert cli("report", "results", "--check").code == 0
    assert "no such folder" in cli("report", "elsewhere").err


def test_help_and_version_load_nothing_heavy():
    code = "import sys; sys.argv = ['x', '--help']\nfrom simcse_bench.__main__ import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'transformers', 'numpy', 'scipy', 'pandas', 'yaml'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "[]"


def test_interrupt(own, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("simcse_bench.evaluation.run.score_all", interrupted)
    run = own()
    assert run.code == 130
    assert run.err.endswith("interrupted; nothing half-written\n")
    assert nothing_written(tmp_path)


def test_where_a_report_is_its_pairs_are(own, monkeypatch, tmp_path):
    """Ended between the two writes, an evaluation is done again and whole."""
    from simcse_bench.reports.pair_records import load_pairs
    from simcse_bench.reports.report import Report

    with monkeypatch.context() as ended:
        ended.setattr(Report, "save", lambda self, path: (_ for _ in ()).throw(KeyboardInterrupt))
        assert own().code == 130
    assert list((tmp_path / "results" / "tasks").glob("*--mean-none.json")) == []
    assert "written" in own().err
    (path,) = (tmp_path / "results" / "tasks").glob("*--mean-none.json")
    assert set(load_pairs(path, Report.load(path))) == {"own"}


def test_what_cannot_work_is_refused_before_the_work(cli, own, bert, senteval, tmp_path, monkeypatch):
    monkeypatch.setattr("simcse_bench.evaluation.run.score_all", lambda *a, **k: pytest.fail("computed"))
    (tmp_path / "file").write_text("")
    for args, message in (
        (["--out", "file"], "cannot write file/tasks"),
        (["--name", "n" * 300], "too long for a file name"),
        (["--name", "\udcff"], "not valid unicode"),
    ):
        run = own(*args)
        assert (run.code, message in run.err) == (2, True), run.err
    base = ("eval", "--model", bert, "--pooling", "mean", "--data-dir", senteval, "--suite", "all")
    assert "unknown probe 'zork'" in cli(*base, "--probe", "zork").err
    assert "protocol mteb has none of mr" in cli(*base, "--protocol", "mteb").err
    assert "rt-polarity.pos: no such file" in cli(*base).err
    assert nothing_written(tmp_path)


@pytest.mark.usefixtures("few_resamples")
def test_protocol_mteb_with_its_own_split_named_is_the_same_evaluation(cli, bert, senteval, tmp_path):
    base = (
        "eval",
        "--model",
        bert,
        "--pooling",
        "mean",
        "--data-dir",
        senteval,
        "--protocol",
        "mteb",
        "--format",
        "json",
    )
    assert json.loads(cli(*base, "--split", "test").out)["tasks"]["sickr"]["n"] == 9927
    assert "printed again" in cli(*base).err


def test_names_never_lead_out_of_the_results(cli, bert, tasks_dir, tmp_path):
    (tasks_dir / "suites.yaml").write_text("../../esc: [own]\n")
    run = cli(
        "eval",
        "--model",
        bert,
        "--pooling",
        "mean",
        "--tasks-dir",
        tasks_dir,
        "--suite",
        "../../esc",
        "--name",
        "../x/y",
    )
    assert run.code == 0, run.err
    found = list(tmp_path.rglob("*mean-none.json"))
    assert len(found) == 1
    assert found[0].parent.parent == tmp_path / "results"


def test_tables_are_drawn_again_when_they_are_gone(own, cli, tmp_path):
    own("--metric", "pearson")
    page = tmp_path / "results" / "tasks" / "tiny-bert--own--mean-none.md"
    page.unlink()
    own()
    assert page.is_file()
    assert cli("report", "results").code == 0
    drawn = page.read_text()
    own("--metric", "pearson", "--force")
    assert page.read_text().splitlines()[:6] == drawn.splitlines()[:6]  # what is printed does not change what is drawn


def test_a_hub_dataset_as_a_task(cli, bert, tasks_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    rows = [line.split("\t") for line in (tasks_dir / "own.tsv").read_text().splitlines()]
    repository = tmp_path / "somebody-sts"
    repository.mkdir()
    records = (json.dumps({"score": float(g), "sentence1": a, "sentence2": b}) for g, a, b in rows)
    (repository / "test.jsonl").write_text("\n".join(records) + "\n")
    (tasks_dir / "hubtask.yaml").write_text(
        f"title: Hub\nsource: {{format: hub, dataset: {repository}, columns: {{gold: score, left: sentence1, right: sentence2}}}}\n"
        "splits: {test: {test: 30}}\n"
    )
    base = ("eval", "--model", bert, "--pooling", "mean", "--tasks-dir", tasks_dir, "--format", "json")
    run = cli(*base, "--task", "hubtask", "--task", "own")
    assert run.code == 0, run.err
    tasks = json.loads(run.out)["tasks"]
    values = [tasks[t]["scores"]["spearman"]["all"]["value"] for t in ("hubtask", "own")]
    assert values[0] == values[1]
