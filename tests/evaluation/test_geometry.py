"""Alignment, uniformity and the rest by hand and by plain loops; `simcse-bench analyze` with tables, plots and page."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from simcse_bench.data.pairs import Pairs
from simcse_bench.data.senteval import DataSource
from simcse_bench.evaluation import geometry


def drawn(n, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_alignment_by_hand():
    left = np.array([[1.0, 0.0], [0.0, 2.0]])
    right = np.array([[0.0, 3.0], [0.0, 5.0]])
    assert geometry.alignment(left, right) == pytest.approx(1.0)  # squared distances 2 and 0
    assert geometry.alignment(left, -left) == pytest.approx(4.0)
    assert geometry.alignment(left, 7 * left) == pytest.approx(0.0, abs=1e-12)


def test_uniformity_by_hand():
    eye = np.eye(2)
    assert geometry.uniformity(eye) == pytest.approx(-4.0)  # one pair, |x - y|^2 = 2
    assert geometry.uniformity(np.ones((3, 2))) == pytest.approx(0.0)
    cross = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert geometry.uniformity(cross) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))


@pytest.mark.parametrize("n", [2, 7, 8, 23])
def test_uniformity_in_blocks_equals_a_double_loop(monkeypatch, n):
    monkeypatch.setattr(geometry, "BLOCK_ROWS", 4)
    x = drawn(n)
    x /= np.sqrt((x**2).sum(1, keepdims=True))
    values = [math.exp(-2 * sum((a - b) ** 2)) for i, a in enumerate(x) for b in x[i + 1 :]]
    assert geometry.uniformity(x) == pytest.approx(math.log(sum(values) / len(values)), rel=1e-12)


def test_the_lengths_of_the_vectors_do_not_matter():
    x, y = drawn(20), drawn(20, seed=1)
    lengths = np.random.default_rng(2).uniform(0.1, 9, size=(20, 1))
    assert geometry.uniformity(lengths * x) == pytest.approx(geometry.uniformity(x))
    assert geometry.alignment(lengths * x, y) == pytest.approx(geometry.alignment(x, y))


def test_float32_embeddings_are_compared_in_float64():
    x = (1000 + drawn(50)).astype(np.float32)  # nearly one direction: float32 would lose the distances
    assert geometry.alignment(x, x) == 0
    assert geometry.uniformity(x) == pytest.approx(geometry.uniformity(x.astype(np.float64)), rel=1e-12)


def test_a_zero_vector_stays_zero():
    assert geometry.unit(np.zeros((1, 3))).tolist() == [[0, 0, 0]]
    assert geometry.alignment(np.zeros((1, 2)), np.array([[0.0, 3.0]])) == pytest.approx(1.0)


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        geometry.alignment(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="at least two vectors"):
        geometry.uniformity(np.ones((1, 3)))


def test_the_mean_cosine_equals_the_plain_loop():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5)) + 0.7
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(60) for j in range(60) if i != j]
    assert geometry.mean_cosine(x) == pytest.approx(np.mean(pairs))
    assert geometry.mean_cosine(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-1)
    assert geometry.mean_cosine(np.ones((3, 4))) == pytest.approx(1)


def test_singular_values_in_blocks_equal_numpys(monkeypatch):
    monkeypatch.setattr(geometry, "BLOCK_ROWS", 7)
    x = np.random.default_rng(1).standard_normal((50, 8))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
    np.testing.assert_allclose(geometry.singular_values(x), expected, atol=1e-9)


def test_the_effective_rank_of_a_line_and_a_sphere():
    assert geometry.effective_rank(np.array([3.0, 0.0, 0.0])) == pytest.approx(1)
    assert geometry.effective_rank(np.ones(7)) == pytest.approx(7)


def test_cosines_by_gold_score():
    gold = np.array([0.0, 0.9, 1.0, 4.0, 5.0])
    found = geometry.by_gold(np.array([0.1, 0.3, 0.5, 0.7, 1.0]), gold)
    assert [(f["gold"], f["n"]) for f in found] == [([0, 1], 2), ([1, 2], 1), ([4, 5], 2)]
    assert [f["quartiles"][1] for f in found] == [0.2, 0.5, 0.85]
    assert [sum(f["counts"]) for f in found] == [2, 1, 2]


def test_scores_by_thirds():
    rng = np.random.default_rng(2)
    key, gold = np.arange(90.0), rng.random(90) * 5
    cosines = np.where(key < 30, gold, rng.random(90))
    low, middle, high = geometry.by_third(key, cosines, gold)
    assert (low["from_to"], low["n"], low["spearman"]) == ([0.0, 29.0], 30, 100.0)
    expected = 100 * stats.spearmanr(cosines[60:], gold[60:])[0]
    assert high["spearman"] == pytest.approx(expected, abs=1e-3)
    assert geometry.by_third(key[:3], cosines[:3], gold[:3])[0]["spearman"] is None
    assert middle["part"] == "middle"


def test_overlap_is_the_share_of_common_words():
    pairs = Pairs(("A b, c!", "x"), ("c B d", "y z"), np.array([1.0, 2.0]), ("s", "s"))
    assert geometry._overlap(pairs).tolist() == [0.5, 0.0]
    assert geometry._lengths(pairs).tolist() == [3.0, 1.5]


@pytest.fixture
def analyzed(cli, bert, senteval):
    def run(*args):
        return cli("analyze", "--model", bert, "--model", "mini", "--data-dir", senteval, "--device", "cpu", "--split",
                   "dev", *args)  # fmt: skip

    return run


def test_models_side_by_side(analyzed, cli, bert, senteval):
    done = analyzed("--pooling", "mean", "--head", "none")
    assert done.code == 0, done.err
    folder = Path("results/analysis")
    names = {p.name for p in folder.iterdir()}
    plots = {
        f"{n}.{f}"
        for n in ("tiny-bert--mean-none-cosines", "mini--mean-none-cosines", "spectrum", "scatter")
        for f in ("svg", "png")
    }
    assert names == {"tiny-bert--mean-none.json", "mini--mean-none.json", "table.md", "table.csv", "index.html"} | plots
    found = json.loads((folder / "tiny-bert--mean-none.json").read_text())
    assert (found["data"]["splits"], found["data"]["pairs"]) == (["dev"], 1500)
    # uniformity and alignment by the direct formula
    from simcse_bench.evaluation.evaluate import distinct_sentences, embed
    from simcse_bench.models.open import open_model

    pairs = geometry.read_whole("stsb", ["dev"], DataSource(senteval))
    sentences = distinct_sentences([pairs])
    x = embed(open_model(str(bert), pooling="mean", head="none", device="cpu").load(), sentences).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)[np.triu_indices(len(x), 1)]
    assert found["uniformity"] == pytest.approx(np.log(np.exp(-2 * squares).mean()), abs=1e-4)
    row = {s: i for i, s in enumerate(sentences)}
    near = [
        ((x[row[a]] - x[row[b]]) ** 2).sum()
        for a, b, g in zip(pairs.left, pairs.right, pairs.gold, strict=True)
        if g > 4
    ]
    assert found["alignment"] == pytest.approx(np.mean(near), abs=1e-5)
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("<svg") == 3  # scatter, cosines of both models, spectrum
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "embedded mini encoder" in page
    assert cli("report", "results").code == 0
    assert cli("report", "results", "--check").code == 0
    (folder / "mini--mean-none.json").write_text("{}")
    done = cli("report", "results", "--check")
    assert done.code == 2
    assert "mini--mean-none.json: not a model's analysis" in done.err


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.slow
def test_an_analysis_never_replaces_another(cli, tmp_path):
    from tiny import tiny_bert

    folder = Path("results/analysis")
    for seed, place in enumerate("AB"):
        tiny_bert(tmp_path / place / "m", seed=seed)
    own = ("--task", "mini-sts", "--device", "cpu", "--pooling", "mean", "--head", "none")
    done = cli("analyze", "--model", tmp_path / "A" / "m", "--model", tmp_path / "B" / "m", *own)
    assert (done.code, "two models of the name m" in done.err) == (2, True)
    assert not Path("results").exists()
    done = cli("analyze", "--model", "A/m", "--model", "B/m", *own)
    assert done.code == 0, done.err
    assert {p.name for p in folder.glob("*.json")} == {"A__m--mean-none.json", "B__m--mean-none.json"}
    assert cli("analyze", "--model", tmp_path / "A" / "m", *own).code == 0
    before = contents(folder)
    done = cli("analyze", "--model", tmp_path / "B" / "m", *own)
    assert done.code == 2
    assert "m--mean-none.json holds another analysis (other files). Use --force to replace it" in done.err
    done = cli("analyze", "--model", tmp_path / "A" / "m", *own, "--split", "dev")
    assert (done.code, "other splits, fingerprint" in done.err) == (2, True)
    assert contents(folder) == before
    assert cli("analyze", "--model", tmp_path / "A" / "m", *own, "--split", "dev", "--force").code == 0


@pytest.mark.slow
def test_two_poolings_of_a_model_stand_side_by_side(cli):
    for pooling in ("mean", "cls"):
        done = cli("analyze", "--model", "mini", "--device", "cpu", "--pooling", pooling, "--head", "none")
        assert done.code == 0, done.err
    table = Path("results/analysis/table.md").read_text("utf-8")
    for pooling in ("mean", "cls"):
        assert Path(f"results/analysis/mini--{pooling}-none.json").is_file()
        assert f"| mini, {pooling}-none (embedded)" in table


def test_runs_of_one_name_are_told_apart(tmp_path):
    points = [{"step": 0, "alignment": 0.1, "uniformity": -2.0}]
    for place in ("A/r", "B/r", "B/s"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "train.json").write_text(json.dumps({"measured": [{"dev": 1.0}, *points]}))
    runs = [tmp_path / "A" / "r", tmp_path / "B" / "r", tmp_path / "B" / "." / "r"]
    assert geometry.read_trajectories(runs) == {"A/r": points, "B/r": points}
    assert geometry.read_trajectories([tmp_path / "A" / "r", tmp_path / "B" / "s"]) == {"r": points, "s": points}


def test_the_embedded_model_without_data(cli):
    done = cli("analyze", "--model", "mini", "--device", "cpu")
    assert done.code == 0, done.err
    found = json.loads(Path("results/analysis/mini.json").read_text())
    assert (found["data"]["task"], found["data"]["pairs"]) == ("mini-sts", 2200)
    assert "for trying, no benchmark" in " ".join(done.out.split())


def test_the_trajectory_of_a_run(cli, tmp_path):
    done = cli("train", "--recipe", "mini-unsup", "--out", "runs/x", "--set", "max_steps=4", "--set", "batch_size=8",
               "--device", "cpu", "--track-geometry", "2", "-q")  # fmt: skip
    assert done.code == 0, done.err
    done = cli("analyze", "--run", "runs/x")
    assert done.code == 0, done.err
    assert Path("results/analysis/trajectory.svg").is_file()
    assert [p["step"] for p in geometry.read_trajectory(Path("runs/x"))] == [0, 2, 4]


@pytest.mark.parametrize(
    "args, said",
    [
        ([], "nothing to analyze"),
        (["--run", "nowhere"], "train with --track-geometry"),
        (["--model", "mini", "--task", "mini-probe"], "has no pairs"),
        (["--model", "mini", "--task", "mini-sts", "--split", "train"], "no split 'train'"),
    ],
)
def test_a_wrong_command_is_told(cli, args, said):
    done = cli("analyze", *args)
    assert done.code == 2
    assert said in done.err
    assert not Path("results").exists()
