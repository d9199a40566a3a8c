"""`analyze --robustness`: every number by a plain loop, the figures of vectors known by hand, the command from end to end."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from simcse_bench.data.pairs import Pairs
from simcse_bench.data.perturbations import PERTURBATIONS
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.evaluation import robustness
from simcse_bench.evaluation.robustness import Part, analyze_robustness, measure_robustness, moved, read_parts
from simcse_bench.models.open import open_model
from simcse_bench.reports.robustness import read_robustness, tasks_table


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Intervals are the statistics' own tests' business."""
    monkeypatch.setattr(robustness, "RESAMPLES", 20)


class Words:
    """The mean of random vectors of the words as they are written: case and punctuation are seen, order is not."""

    def encode(self, sentences):
        rows = np.zeros((len(sentences), 24), dtype=np.float32)
        for row, sentence in zip(rows, sentences, strict=True):
            for word in sorted(sentence.split()):
                row += np.random.default_rng([*word.encode()]).normal(size=24)
        return rows


def by_hand(encode, pairs, rule, seed=42, rate=0.1):
    """Changed sentences, mean cosine, movement, and Spearman's change with one side and both changed: plain loops."""
    sentences = list(dict.fromkeys([*pairs.left, *pairs.right]))
    vectors = {s: encode([s])[0].astype(float) for s in sentences}

    def cosine(u, v):
        return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))

    to = {s: PERTURBATIONS[rule].apply(s, seed, rate) for s in sentences}
    moving = [s for s in sentences if to[s] != s]
    new = {s: encode([to[s]])[0].astype(float) for s in sentences}
    own = {s: cosine(vectors[s], new[s]) for s in moving}
    typical = np.mean([cosine(vectors[s], vectors[t]) for s in sentences for t in sentences if s != t])

    def score(left, right):
        return 100 * stats.spearmanr([cosine(left[a], right[b]) for a, b in zip(pairs.left, pairs.right, strict=True)],
                                     pairs.gold).statistic  # fmt: skip

    before = score(vectors, vectors)
    mean = np.mean([*own.values()])
    return {
        "changed": len(moving), "cosine": mean, "moved": (1 - mean) / (1 - typical), "self": own,
        "one": score(vectors, new) - before, "both": score(new, new) - before, "spearman": before,
    }  # fmt: skip


@pytest.fixture(scope="module")
def part():
    (whole,) = read_parts([load_task("mini-sts")], ["test"])
    return Part(whole.task, whole.pairs.head(12), whole.rules)


def test_every_number_equals_a_plain_loop(part):
    model = open_model(Words())
    found = measure_robustness(model, [part], ["test"], seed=3, rate=0.4)
    task = found["tasks"]["mini-sts"]
    assert (found["seed"], found["rate"], found["splits"], found["resamples"]) == (3, 0.4, ["test"], 20)
    assert (task["pairs"], task["fingerprint"]) == (60, part.pairs.fingerprint())
    assert list(task["changes"]) == list(PERTURBATIONS)
    expected = {rule: by_hand(Words().encode, part.pairs, rule, 3, 0.4) for rule in PERTURBATIONS}
    for rule, change in task["changes"].items():
        known = expected[rule]
        assert change["changed"] == known["changed"]
        assert change["keeps"] is (rule not in ("negation", "word order"))
        assert change["cosine"] == pytest.approx(known["cosine"], abs=1e-5)
        assert change["moved"] == pytest.approx(known["moved"], abs=1e-5)
        for side in ("one", "both"):
            assert change[side]["change"] == pytest.approx(known[side], abs=1e-3), (rule, side)
            low, high = change[side]["interval"]
            assert low <= high
    assert task["spearman"] == pytest.approx(expected["typos"]["spearman"], abs=1e-3)
    kept = [known["moved"] for rule, known in expected.items() if PERTURBATIONS[rule].keeps]
    lost = [known["moved"] for rule, known in expected.items() if not PERTURBATIONS[rule].keeps]
    assert task["moved_kept"] == pytest.approx(np.mean(kept), abs=1e-5)
    assert task["moved_changed"] == pytest.approx(np.mean(lost), abs=1e-5)
    wins = [
        1.0 if gap > 1e-6 else 0.5 if gap > -1e-6 else 0.0
        for a, b in product(PERTURBATIONS, repeat=2)
        if PERTURBATIONS[a].keeps and not PERTURBATIONS[b].keeps
        for s in expected[a]["self"].keys() & expected[b]["self"].keys()
        for gap in [expected[a]["self"][s] - expected[b]["self"][s]]
    ]
    assert task["separated"] == pytest.approx(100 * np.mean(wins), abs=0.02)
    assert found["average"] == {k: task[k] for k in found["average"]}  # of one task


def test_words_without_order_do_not_move_where_it_changes(part):
    task = measure_robustness(open_model("random-words"), [part], ["test"])["tasks"]["mini-sts"]
    for rule in ("lower case", "upper case", "title case", "word order"):
        change = task["changes"][rule]
        assert change["cosine"] == pytest.approx(1)
        assert change["moved"] == 0
        assert (change["one"]["change"], change["both"]["change"]) == (0, 0)
        assert change["both"]["interval"] == [0, 0]
    assert task["changes"]["negation"]["moved"] > 0.05
    assert task["moved_changed"] == pytest.approx(task["changes"]["negation"]["moved"] / 2)


def test_movement_is_a_share_of_the_distance_of_two_sentences():
    assert moved(1.0, 0.3) == 0
    assert moved(0.3, 0.3) == pytest.approx(1)
    assert moved(0.95, 0.9) == pytest.approx(0.5)
    assert moved(0.9, 1.0) > 1e6  # all vectors the same: no distance to compare with, and no error


def test_subsets_that_stand_apart_are_strata_of_their_own():
    pairs = Pairs(("a",) * 5, ("b",) * 5, np.arange(5.0), ("x", "x", "y", "x", "x"))
    assert list(Part(load_task("mini-sts"), pairs, []).strata.values()) == [2, 1, 2]


def test_several_tasks_have_an_average(part, tmp_path):
    other = Part(load_task("mini-minimal-pairs"), part.pairs.head(6), part.rules[3:])
    found = measure_robustness(open_model(Words()), [part, other], ["test"])
    one, two = found["tasks"].values()
    average = found["average"]
    assert average["spearman"] == pytest.approx((one["spearman"] + two["spearman"]) / 2, abs=1e-3)
    assert list(average["changes"]) == list(two["changes"])  # what both tasks have
    for rule, change in average["changes"].items():
        pair = (one["changes"][rule], two["changes"][rule])
        assert change["changed"] == sum(c["changed"] for c in pair)
        assert change["moved"] == pytest.approx(np.mean([c["moved"] for c in pair]), abs=1e-5)
        for side in ("one", "both"):
            assert change[side]["change"] == pytest.approx(np.mean([c[side]["change"] for c in pair]), abs=1e-3)
    table = tasks_table([found])
    assert [row[1] for row in table.rows] == ["mini-sts", "mini-minimal-pairs"]
    assert table.rows[1][table.header.index("lower case")] == "–"


def test_rules_of_english_are_left_out_of_other_languages(tmp_path):
    folder = tmp_path / "sts_multilingual"
    folder.mkdir()
    rows = [f"{i % 6}\tEin Hund läuft {i}.\tEine Katze schläft {i % 7}.\n" for i in range(1379)]
    (folder / "stsb-de-test.tsv").write_text("".join(rows), encoding="utf-8")
    (part,) = read_parts([load_task("stsb-de")], ["test"], DataSource(folder))
    assert {"frame", "negation"} == PERTURBATIONS.keys() - {rule.name for rule in part.rules}


def test_the_official_text_would_leave_no_case_to_change(senteval):
    (part,) = read_parts([load_task("stsb")], ["test"], DataSource(senteval))
    assert part.task.source(robustness.TEXT)[0] == "raw"


def test_models_side_by_side_from_the_command_line(cli, tasks_dir):
    own = ("--robustness", "--task", "own", "--tasks-dir", tasks_dir)
    done = cli("analyze", "mini", "random-words", *own)
    assert done.code == 0, done.err
    assert "invariance and sensitivity" in done.out
    assert "mini (embedded): own test" in done.out
    assert "written: results/robustness/" in done.err
    folder = Path("results/robustness")
    assert {p.name for p in folder.iterdir()} == {
        "mini.json", "random-words-300.json", "table.md", "table.csv", "index.html", "movement.svg", "movement.png",
        "change.svg", "change.png",
    }  # fmt: skip
    saved = json.loads((folder / "mini.json").read_text("utf-8"))
    assert (saved["seed"], saved["rate"], saved["model"]["name"]) == (42, 0.1, "mini")
    assert saved["model"]["files"]
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("<svg") == 2
    assert "embedded mini encoder" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert cli("report", "results").code == 0
    site = Path("results/index.html").read_text("utf-8")
    assert '<section id="changed">' in site
    assert "simcse-bench analyze --robustness --model mini --task own" in site.replace("\\u0026", "&")
    assert cli("report", "results", "--check").code == 0
    before = (folder / "mini.json").read_bytes()
    done = cli("analyze", "mini", *own, "--seed", "7", "--typo-rate", "0.3")
    assert done.code == 2
    assert "mini.json holds another analysis (other seed, typo rate). Use --force to replace it" in done.err
    assert (folder / "mini.json").read_bytes() == before
    assert cli("analyze", "random-words", *own, "--seed", "7", "--force").code == 0
    assert read_robustness(folder / "random-words-300.json")["seed"] == 7
    (folder / "mini.json").write_text("{}")
    done = cli("report", "results", "--check")
    assert (done.code, "mini.json: not a model's robustness" in done.err) == (2, True)


def test_the_same_from_python(tasks_dir):
    where = DataSource(tasks_dir=tasks_dir)
    rows = analyze_robustness([open_model(Words(), name="words")], ["own"], rate=0.5, where=where)
    assert list(rows["change"]) == list(PERTURBATIONS)
    assert set(rows["task"]) == {"own"}
    from simcse_bench import read_results

    again = read_results("results", "robustness")
    assert np.array_equal(again["moved"], rows["moved"], equal_nan=True)
    assert set(again["path"]) == {"results/robustness/words.json"}


@pytest.mark.parametrize(
    "args, said",
    [
        (["--robustness"], "nothing to analyze"),
        (["mini", "--robustness", "--run", "x"], "--robustness: give models, without --run"),
        (["mini", "--seed", "1", "--suite", "mini"], "--suite, --seed: for --robustness only"),
        (["mini", "--robustness", "--typo-rate", "0"], "--typo-rate 0: expected a share of the words"),
        (["mini", "--robustness", "--typo-rate", "nan"], "--typo-rate nan: expected a share"),
        (["mini", "--robustness", "--seed", "-1"], "--seed -1: expected a whole number"),
        (["mini", "--robustness", "--suite", "mini", "--task", "mini-sts"], "exclude each other"),
        (["mini", "--robustness", "--suite", "minis"], "did you mean 'mini'"),
        (["mini", "--robustness", "--task", "mini-sts,mini-prob"], "did you mean 'mini-probe'"),
        (["mini", "--robustness", "--suite", "mini-transfer"], "needs an STS task"),
        (["mini", "--robustness", "--task", "mini-sts", "--split", "train"], "no split 'train'"),
    ],
)
def test_a_wrong_command_is_told(cli, args, said):
    done = cli("analyze", *args)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not Path("results").exists()
