"""`simcse-bench reproduce` with a tiny BERT on the embedded data."""

import json
import re
import statistics
from pathlib import Path

import pytest
from tiny import sentences

from simcse_bench.experiments import steps
from simcse_bench.papers.simcse_2021 import PAPERS
from simcse_bench.reports.report import Report
from simcse_bench.training import recipes

FOLDER = Path("results/simcse-2021-mini")

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def reproduce(cli, bert, monkeypatch, tmp_path):
    """The command, with small recipes on a small text."""
    words = sentences(180)
    (tmp_path / "text.txt").write_text("\n".join(words[:60]) + "\n", "utf-8")
    rows = (f"{','.join(row)}\n" for row in zip(words[:60], words[60:120], words[120:], strict=True))
    (tmp_path / "triplets.csv").write_text("sent0,sent1,hard_neg\n" + "".join(rows), "utf-8")
    small = {"model": str(bert), "max_steps": 3, "batch_size": 8, "dtype": "float32"}
    for name, text in (("mini-unsup", "text.txt"), ("mini-sup", "triplets.csv")):
        train = {"train": str(tmp_path / text)}
        monkeypatch.setitem(recipes.RECIPES, name, recipes.RECIPES[name] | small | train)

    def run(*args):
        return cli("reproduce", "simcse-2021", "--device", "cpu", "--progress", "none", *args)

    return run


def record():
    return json.loads((FOLDER / "reproduction.json").read_text("utf-8"))


def test_every_part_of_the_paper_is_there_once():
    parts = PAPERS["simcse-2021"].parts
    assert len({p.number for p in parts}) == len(parts)
    assert {p.number for p in parts} >= {"1", "2", "3", "4", "5", "6", "7", "D.1", "D.2", "E.1", "Figure 2", "Figure 3"}


@pytest.mark.slow
def test_tables_beside_the_papers_and_the_same_command_again(reproduce, cli, monkeypatch):
    wanted = ("--table", "4", "--table", "5", "--table", "figure 2", "--table", "Figure 3", "--seeds", "2")
    before = reproduce(*wanted, "--dry-run")
    assert before.code == 0, before.err
    assert not Path("results").exists()
    assert re.search(r"Table 4: ablation supervised-data +6 of 6", before.out)
    assert re.search(r"Table 5: mini +6 of 6", before.out)
    done = reproduce(*wanted)
    assert done.code == 0, done.err
    names = {p.stem for p in (FOLDER / "mini").glob("*.json")}
    assert len(names) == 6  # two encoders as they are, two recipes with two seeds
    reports = [Report.load(p) for p in (FOLDER / "mini").glob("*.json")]
    own = [r.average["spearman"]["all"]["value"] for r in reports if r.model["name"].startswith("supervised")]
    text = (FOLDER / "tables.md").read_text("utf-8")
    shown = f"{statistics.mean(own):.2f} ± {statistics.stdev(own):.2f}"
    assert re.search(rf"\| supervised SimCSE +\| +2 \| .*{re.escape(shown)} +\| +81.57 \|", text)
    assert "entailment + hard negative" in text
    page = (FOLDER / "index.html").read_text("utf-8")
    assert page.count("<svg") == 1 + 1 + 1 + 1  # ablation, trajectories, scatter, cosines
    heads = re.findall(r"<h2><small>(.+?)</small> (.+?)</h2>", page)
    assert [number for number, _ in heads[:5]] == ["Table 1", "Table 2", "Table 3", "Figure 2", "Table 4"]
    assert ("Table 3", "Dropout probability") in heads
    assert "not run yet" in text
    statements = {s["text"]: s for s in record()["statements"]}
    claim = statements["supervised training beats unsupervised"]
    unsup = [r.average["spearman"]["all"]["value"] for r in reports if r.model["name"].startswith("unsup")]
    assert claim["value"] == pytest.approx(statistics.mean(own) - statistics.mean(unsup), abs=0.01)
    assert claim["published"] == pytest.approx(84.25 - 76.85)
    assert all("value" in s for s in statements.values())
    # nothing is done twice, and nothing is lost
    monkeypatch.setattr(steps, "train", lambda config, place, *rest: pytest.fail("trained again")
                        if not (place.out / "train.json").exists() else {"status": "finished"})  # fmt: skip
    kept = {p: p.read_bytes() for p in FOLDER.rglob("*.json") if p.name != "reproduction.json"}
    seconds = record()["seconds"]
    assert reproduce(*wanted).code == 0
    assert {p: p.read_bytes() for p in kept} == kept
    assert record()["seconds"] == seconds
    assert "0 of 6" in reproduce(*wanted, "--dry-run").out
    assert cli("report", "results").code == 0
    assert cli("report", "results", "--check").code == 0
    assert "simcse-2021-mini/index.html" in Path("results/index.html").read_text("utf-8")
    (FOLDER / "tables.md").unlink()
    assert "tables.md is stale" in cli("report", "results", "--check").err


def test_a_failed_arm_is_told_and_the_others_are_there(reproduce):
    done = reproduce("--table", "1")
    assert done.code == 1
    assert "failed: Table 1: ablation augmentation, mlm 15%, seed 42" in done.err  # this BERT cannot fill in words
    assert "Table 1: ablation augmentation, mlm 15%, seed 42" in record()["failed"]
    text = (FOLDER / "tables.md").read_text("utf-8")
    assert "mlm 15%, seed 42: FAILED" in text
    assert re.search(r"\| crop 10% +\| +-?\d", text)


@pytest.mark.parametrize(
    "args, said",
    [
        (("--table", "33"), "unknown table or figure of simcse-2021 '33'"),
        (("--preset", "papr"), "unknown preset 'papr'; did you mean 'paper'?"),
        (("--seeds", "0"), "--seeds 0: expected at least 1"),
    ],
)
def test_a_wrong_command_is_told(reproduce, args, said):
    done = reproduce(*args)
    assert done.code == 2
    assert said in done.err
    assert not Path("results").exists()


def test_an_unknown_paper_is_told(cli):
    done = cli("reproduce", "simcse-2012")
    assert done.code == 2
    assert "unknown paper 'simcse-2012'; did you mean 'simcse-2021'?" in done.err


def test_a_damaged_record_is_named(reproduce):
    FOLDER.mkdir(parents=True)
    (FOLDER / "reproduction.json").write_text("{")
    done = reproduce("--table", "5")
    assert done.code == 2
    assert "reproduction.json" in done.err


def test_a_damaged_file_is_named_and_all_else_is_done(reproduce, cli):
    (FOLDER / "mini").mkdir(parents=True)
    (FOLDER / "analysis").mkdir()
    for foreign in ("mini/foreign.json", "analysis/foreign.json"):
        (FOLDER / foreign).write_text("{")
    done = reproduce("--table", "5")
    assert done.code == 2
    named = {line.split(": ")[1] for line in done.err.splitlines() if line.startswith("error: ")}
    assert named == {str(FOLDER / "mini/foreign.json"), str(FOLDER / "analysis/foreign.json")}
    assert len(list((FOLDER / "mini").glob("*.md"))) == 4
    assert re.search(r"\| supervised SimCSE +\| +1 \| +\d", (FOLDER / "tables.md").read_text("utf-8"))
    assert all("value" in s for s in record()["statements"])
    done = cli("report", "results")
    assert (done.code, "foreign.json" in done.err) == (2, True)
    for foreign in ("mini/foreign.json", "analysis/foreign.json"):
        (FOLDER / foreign).unlink()
    assert reproduce("--table", "5").code == 0
    assert cli("report", "results").code == 0


def test_successors_are_a_page_of_their_own(cli):
    done = cli("reproduce", "simcse-successors", "--seeds", "2", "--dry-run")
    assert done.code == 0, done.err
    assert re.search(r"Table 1: ablation methods +24 of 24", done.out)
    assert (
        "unknown table or figure of simcse-successors '5'" in cli("reproduce", "simcse-successors", "--table", "5").err
    )
