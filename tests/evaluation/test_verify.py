"""`verify`: a model against its published numbers."""

import json
from pathlib import Path

import pytest

from simcse_bench.evaluation import verify as module
from simcse_bench.evaluation.verify import verdict
from simcse_bench.papers.published import PublishedRow

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.mark.parametrize(
    "value, interval, theirs, expected",
    [
        (80.004, (79.0, 81.0), 80.0, "OK"),
        (80.02, (79.0, 81.0), 80.0, "OK"),
        (80.03, (79.0, 81.0), 80.0, "close"),
        (79.75, (79.0, 81.0), 80.0, "close"),
        (79.7, (79.0, 81.0), 80.0, "differs within interval"),
        (85.0, (84.0, 86.0), 80.0, "differs"),
        (85.0, None, 80.0, "differs"),
    ],
)
def test_the_verdict(value, interval, theirs, expected):
    assert verdict(value, interval, theirs) == expected


@pytest.fixture
def published_as(cli, bert, senteval, monkeypatch):
    """Make the scores of this checkpoint under a pooling the published ones."""

    def make(pooling, shift=0.0, head="none"):
        done = cli("eval", "--model", bert, "--pooling", pooling, "--head", head, "--data-dir", senteval, "--device",
                   "cpu", "--out", "truth", "--format", "json", "-q")  # fmt: skip
        assert done.code == 0, done.err
        tasks = json.loads(done.out)["tasks"]
        scores = {n: round(t["scores"]["spearman"]["all"]["value"], 2) + shift for n, t in tasks.items()}
        row = PublishedRow("a paper", "its row", scores, None)
        monkeypatch.setattr(module, "published_row", lambda name, *rest: row if name == "known/model" else None)

    return make


def verify(cli, bert, senteval, *args):
    return cli("verify", "--model", bert, "--as", "known/model", "--data-dir", senteval, "--device", "cpu", *args)


def test_a_model_with_its_own_numbers(cli, bert, senteval, published_as):
    published_as("mean")
    done = verify(cli, bert, senteval, "--pooling", "mean", "--head", "none")
    assert done.code == 0, done.err
    assert done.out.count(" OK") == 7
    assert "its row, a paper" in done.out
    assert list(Path("results/sts").glob("*.json"))


def test_the_wrong_pooling_is_found_out(cli, bert, senteval, published_as):
    published_as("mean")
    done = verify(cli, bert, senteval, "--pooling", "cls", "--head", "none")
    assert done.code == 1
    assert "differs" in done.out
    assert "--pooling mean --head none would match: the largest difference is then 0.0" in done.out


def test_a_forgotten_mlp_is_found_out(cli, bert, senteval, published_as):
    published_as("cls", head="mlp")
    done = verify(cli, bert, senteval, "--pooling", "mean", "--head", "none")
    assert done.code == 1, done.err
    assert "--pooling cls --head mlp would match" in done.out


def test_other_weights_are_told_apart_from_another_pooling(cli, bert, senteval, published_as):
    published_as("mean", shift=40.0)
    done = verify(cli, bert, senteval, "--pooling", "mean", "--head", "none")
    assert done.code == 1
    assert "other weights or data" in done.out or "not those of the published numbers" in done.out


def test_a_model_without_published_numbers_is_told(cli, bert, senteval):
    done = cli("verify", "--model", bert, "--data-dir", senteval)
    assert done.code == 2
    assert done.err.endswith("Give --as NAME, one of `simcse-bench ls models`.\n")
    assert done.err.count("\n") == 1
    done = cli("verify", "--model", bert, "--as", "princeton-nlp/sup-simcse-bert-base-uncase", "--data-dir", senteval)
    assert "did you mean 'princeton-nlp/sup-simcse-bert-base-uncased'" in done.err


def test_a_template_is_part_of_what_is_verified(cli, bert, senteval, published_as):
    published_as("mean")
    own = ("--pooling", "mean", "--head", "none", "--out")
    assert verify(cli, bert, senteval, *own, "a").code == 0
    done = verify(cli, bert, senteval, *own, "b", "--template", 'the sentence "{sentence}" means a lot .')
    assert done.code == 1, done.out
    (path,) = Path("b/sts").glob("*.json")
    assert "means a lot" in json.loads(path.read_text(encoding="utf-8"))["model"]["template"]
