"""The real all-MiniLM-L6-v2 on the real data, through the command line: the numbers the toolkit stands for."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_suite, load_task
from simcse_bench.data.senteval import locate
from simcse_bench.papers.published import published_row

pytestmark = pytest.mark.data
TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def minilm_report(cli, minilm, real_data, results):
    """A report under a protocol; the second test that asks for it gets it printed again."""

    def run(*args):
        command = ("eval", "--model", minilm, "--name", "all-MiniLM-L6-v2", "--data-dir", real_data, "--out", results)
        done = cli(*command, "--format", "json", "--quiet", *args)
        assert done.code == 0, done.err
        return json.loads(done.out)

    return run


def spearman(report, how="all", tasks=TASKS):
    return [report["tasks"][t]["scores"]["spearman"][how]["value"] for t in tasks]


def test_every_task_reads_whole(cli, real_data):
    run = cli("data", "check", "--data-dir", real_data)
    assert run.code == 0, run.err


def test_protocol_simcse(minilm_report):
    report = minilm_report()
    expected = [72.37, 80.60, 75.59, 85.39, 78.99, 82.03, 77.15]
    assert spearman(report) == pytest.approx(expected, abs=0.01)
    assert report["average"]["spearman"]["all"]["value"] == pytest.approx(78.87, abs=0.01)


def test_verify_and_protocol_mteb_give_the_published_row(cli, minilm, real_data, tmp_path):
    done = cli("verify", "--model", minilm, "--as", "all-MiniLM-L6-v2", "--protocol", "mteb", "--data-dir", real_data,
               "--device", "cpu", "--out", tmp_path)  # fmt: skip
    assert done.code == 0, done.out + done.err
    assert "differs" not in done.out
    (report,) = (json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("sts/*.json"))
    published = published_row("all-MiniLM-L6-v2", "mteb", "all", "spearman", "test", "sts")
    assert report["protocol"]["name"] == "mteb"
    assert spearman(report) == pytest.approx([published.scores[t] for t in TASKS], abs=0.01)


def test_mean_and_wmean_by_hand(minilm_report, results):
    """From the subsets' own numbers in the CSV, by hand: mean and pair-weighted mean."""
    report = minilm_report()
    with (results / "sts" / "all-MiniLM-L6-v2.csv").open(encoding="utf-8") as stream:
        rows = [r for r in csv.DictReader(stream) if r["metric"] == "spearman" and r["subset"]]
    for task, mean, wmean in zip(TASKS, spearman(report, "mean"), spearman(report, "wmean"), strict=True):
        parts = [(float(r["value"]), int(r["pairs"])) for r in rows if r["task"] == task]
        assert mean == pytest.approx(sum(v for v, _ in parts) / len(parts), abs=1e-5)
        assert wmean == pytest.approx(sum(v * n for v, n in parts) / sum(n for _, n in parts), abs=1e-5)


def test_subsets_equal_a_plain_computation(minilm_report, minilm, real_data):
    """sentence-transformers' embeddings, plain cosine, scipy: every subset of STS16."""
    from sentence_transformers import SentenceTransformer

    pairs = read_task_pairs(load_task("sts16"), "test", "senteval", real_data)
    model = SentenceTransformer(str(minilm), device="cpu")
    u, v = (model.encode(list(side), normalize_embeddings=True) for side in (pairs.left, pairs.right))
    cosine, subset = (u * v).sum(axis=1), np.array(pairs.subset)
    for name, found in minilm_report()["tasks"]["sts16"]["subsets"].items():
        expected = 100 * stats.spearmanr(cosine[subset == name], pairs.gold[subset == name]).statistic
        assert found["spearman"]["value"] == pytest.approx(expected, abs=0.01)


def test_bfloat16_is_close(minilm_report):
    some = ("stsb",)  # without bfloat16 products, a minute
    half = minilm_report("--dtype", "bfloat16", *(f"--task={t}" for t in some))
    assert spearman(half, tasks=some) == pytest.approx(spearman(minilm_report(), tasks=some), abs=0.1)


def test_dev_split_and_the_text_variants_differ(minilm_report, real_data):
    dev = minilm_report("--split", "dev", "--task", "stsb", "--task", "sickr")
    assert (dev["tasks"]["stsb"]["n"], dev["tasks"]["sickr"]["n"]) == (1500, 500)
    assert locate(real_data) == real_data
    for task in load_suite("sts")[:-1]:
        official, raw = (read_task_pairs(task, "test", text, real_data) for text in ("senteval", "raw"))
        assert official.gold.tolist() == raw.gold.tolist()
        assert official.left != raw.left
        assert official.left[0].replace(" ", "")[:20] == raw.left[0].lower().replace(" ", "")[:20]
