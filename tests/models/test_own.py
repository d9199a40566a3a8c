"""Objects of the user's own: what they return, what tells them apart, and reports of them that `compare` takes."""

import dataclasses
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny import sentences, tiny_bert

from simcse_bench import SimCSE, analyze, compare, evaluate, open_model
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import SIMCSE, Source, Task
from simcse_bench.errors import UserError
from simcse_bench.models.own import PROBES, as_rows, describe, probes_fingerprint
from simcse_bench.reports import scores
from simcse_bench.reports.report import Report

FAST = dataclasses.replace(SIMCSE, resamples=20)
TASKS = [load_task("mini-sts")]


class Words:
    """Counts of hashed words, as whatever kind of thing."""

    def __init__(self, width=64, shape=lambda x: x):
        self.width, self.shape = width, shape

    def encode(self, texts):
        rows = np.zeros((len(texts), self.width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % self.width] += 1
        return self.shape(rows)


class Linear:
    """Words through a matrix that requires a gradient, held as an attribute."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        self.layer = torch.nn.Linear(64, 8)

    def encode(self, texts):
        return self.layer(torch.from_numpy(Words().encode(texts)))


def transformer(folder, mode="mean", **options):
    parts = [Transformer(str(folder)), Pooling(32, mode)]
    return SentenceTransformer(modules=parts, device="cpu", **options)


def score(report):
    return report.tasks["mini-sts"]["scores"]["spearman"]["all"]["value"]


def test_the_score_is_scipys_of_the_objects_own_vectors(bert, tmp_path):
    pool, gold = sentences(60), np.random.default_rng(0).uniform(0, 5, 30)
    rows = zip(gold, pool[:30], pool[30:], strict=True)
    (tmp_path / "x.tsv").write_text("".join(f"{g}\t{a}\t{b}\n" for g, a, b in rows))
    source = {"only": Source("tsv", path="x.tsv")}
    task = Task("own", "Own", "sts", "", source, {"test": {"test": None}}, folder=tmp_path)
    for model in (transformer(bert), Linear(0)):
        cosines = []
        for a, b in zip(pool[:30], pool[30:], strict=True):
            u, v = (np.array([float(x) for x in model.encode([text])[0]]) for text in (a, b))
            cosines.append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        scored = evaluate(model, [task], FAST).tasks["own"]["scores"]
        for metric, function in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
            expected = 100 * function(cosines, gold).statistic
            assert scored[metric]["all"]["value"] == pytest.approx(expected, abs=1e-3)


SAME = {
    "tensor": torch.from_numpy,
    "gradient": lambda x: torch.from_numpy(x).requires_grad_(),
    "bfloat16": lambda x: torch.from_numpy(x).bfloat16(),  # counts are exact in it
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
    "lists": lambda x: x.tolist(),
    "list of tensors": lambda x: [torch.from_numpy(row).requires_grad_() for row in x],
    "list of arrays": list,
    "sparse": lambda x: torch.from_numpy(x).to_sparse(),
}


@pytest.mark.parametrize("kind", SAME)
def test_whatever_holds_the_same_numbers_has_the_same_report(kind):
    plain, other = evaluate(Words(), TASKS, FAST), evaluate(Words(shape=SAME[kind]), TASKS, FAST)
    assert (plain.tasks, plain.key) == (other.tasks, other.key)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_on_a_gpu():
    report = evaluate(Words(shape=lambda x: torch.from_numpy(x).cuda().requires_grad_()), TASKS, FAST)
    assert report.key == evaluate(Words(), TASKS, FAST).key


WRONG = {
    "a row too few": (lambda x: x[1:], "shape .* expected one row per sentence"),
    "one vector": (lambda x: x[0], r"shape \(64,\) for .* expected one row per sentence"),
    "of three dimensions": (lambda x: x[:, None], "expected one row per sentence"),
    "no dimension": (lambda x: x[:, :0], "expected one row per sentence"),
    "nothing": (lambda x: None, "expected one row per sentence"),
    "rows of two lengths": (lambda x: [*x[1:].tolist(), [1.0]], "no array of real numbers"),
    "a dict": (lambda x: {"dense_vecs": x}, "an object of dict that is no array of real numbers"),
    "complex": (lambda x: x + 1j, "no array of real numbers"),
    "complex tensors": (lambda x: torch.from_numpy(x + 1j), "no array of real numbers"),
    "words": (lambda x: ["a"] * len(x), "no array of real numbers"),
    "NaN": (lambda x: x * np.nan, "NaN or infinite values"),
    "too large for float32": (lambda x: x.astype(np.float64) * 1e300, "NaN or infinite values"),
    "constant": (lambda x: x * 0 + 1, "the same vector for all"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_vector_per_sentence_is_told_in_a_line(kind):
    shape, message = WRONG[kind]
    with pytest.raises(UserError, match=message) as told:
        evaluate(Words(shape=shape), TASKS, FAST)
    assert "\n" not in str(told.value)


def test_what_is_no_encoder_is_told_in_a_line():
    for wrong in (3, object(), Words, None):
        with pytest.raises(UserError, match=r"has no encode\(\)"):
            evaluate(wrong, TASKS, FAST)
    with pytest.raises(UserError, match="--pooling, --truncate-dim: does not apply to an object of Words"):
        open_model(Words(), pooling="cls", truncate_dim=3)
    with pytest.raises(UserError, match="unknown dtype 'half'"):
        evaluate(Words(), TASKS, FAST, dtype="half")
    with pytest.raises(UserError, match="dtype bfloat16: mini computes in float32"):
        evaluate(open_model("mini", device="cpu"), TASKS, FAST, dtype="bfloat16")


def test_two_objects_of_a_class_have_two_keys_and_one_has_one(bert, tmp_path):
    other = tiny_bert(tmp_path / "other", seed=1)
    objects = [
        Words(), Words(32), Linear(0), Linear(1), transformer(bert), transformer(other), transformer(bert, "cls"),
        transformer(bert, truncate_dim=16), transformer(bert, prompts={"q": "the "}, default_prompt_name="q"),
    ]  # fmt: skip
    short = transformer(bert)
    short.max_seq_length = 20
    slightly = transformer(bert)
    with torch.no_grad():
        next(iter(slightly.parameters()))[0, 0] += 1e-4  # of [PAD]: no vector of the probes changes
    objects += [short, slightly]
    keys = [evaluate(one, TASKS, FAST, limit=5).key for one in objects]
    assert len(set(keys)) == len(objects)
    assert keys == [evaluate(one, TASKS, FAST, limit=5).key for one in objects]
    assert keys[4] == evaluate(transformer(bert), TASKS, FAST, limit=5, name="renamed").key
    assert keys[4] != evaluate(transformer(bert), TASKS, FAST, limit=5, dtype="bfloat16").key


def test_the_fingerprints_are_those_of_another_process(bert):
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from test_own import *; "
        "print([describe(x)['files'] for x in (Words(), Linear(0), transformer(sys.argv[1]))])"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, str(bert), str(here), str(here.parent)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    expected = [describe(x)["files"] for x in (Words(), Linear(0), transformer(bert))]
    assert run.stdout.strip() == str(expected), run.stderr


def test_probes_are_rounded_so_that_batches_do_not_show(bert):
    model = transformer(bert)
    single = np.concatenate([model.encode([p]) for p in PROBES])
    together = model.encode(list(PROBES), batch_size=4)
    assert not np.array_equal(single, together)
    assert probes_fingerprint(single, 3) == probes_fingerprint(together, 3)
    zero = np.zeros((3, 4), np.float32)
    assert probes_fingerprint(zero, 3) == probes_fingerprint(-zero, 3) != probes_fingerprint(zero + 1, 3)


def test_what_a_report_says_of_an_object(bert):
    model = evaluate(SentenceTransformer(str(bert), device="cpu"), TASKS, FAST).model
    made_by = "sentence_transformers.sentence_transformer.model.SentenceTransformer"
    assert (model["name"], model["name_or_path"], model["object"]) == (bert.name, bert.name, made_by)
    assert (model["dtype"], model["max_length"], sorted(model["files"])) == ("float32", 48, ["probes", "weights"])
    assert str(bert) not in str(model)
    named = evaluate(Words(), TASKS, FAST, name="mine", dtype="float16").model
    assert (named["name"], named["dtype"], list(named["files"])) == ("mine", "float16", ["probes"])
    assert named["object"] == f"{__name__}.Words"


def test_its_own_prompt_is_used_and_named(bert):
    prompted = transformer(bert, prompts={"q": "the cat "}, default_prompt_name="q")
    report = evaluate(prompted, TASKS, FAST)

    class ByHand:
        def encode(self, texts):
            return transformer(bert).encode(["the cat " + t for t in texts])

    assert report.model["template"] == "the cat {sentence}"
    assert score(report) == pytest.approx(score(evaluate(ByHand(), TASKS, FAST)), abs=0.02)


def test_no_progress_bars(bert, capfd):
    import logging

    logger = logging.getLogger("sentence_transformers")
    model, level = transformer(bert), logger.level
    capfd.readouterr()
    logger.setLevel(logging.INFO)  # with it the library shows a bar unless told not to
    try:
        evaluate(model, TASKS, FAST)
    finally:
        logger.setLevel(level)
    assert "Batches" not in capfd.readouterr().err


def test_vectors_made_before_need_a_fingerprint_of_their_own():
    class Known:
        def __init__(self, texts):
            self.vectors = dict(zip(texts, Words().encode(texts), strict=True))

        def encode(self, texts):
            return [self.vectors[t] for t in texts]

    from simcse_bench.data.pairs import read_task_pairs

    pairs = read_task_pairs(TASKS[0], "test", "senteval", None)
    known = Known([*pairs.left, *pairs.right])
    with pytest.raises(UserError, match=r"cannot encode sentences that are not of the tasks.*KeyError"):
        evaluate(known, TASKS, FAST)
    known.provenance = {"name": "known", "files": {"vectors": "1"}}
    report = evaluate(known, TASKS, FAST)
    assert report.model["name"] == "known"
    assert score(report) == score(evaluate(Words(), TASKS, FAST))


def test_saved_compared_ranked_found_again(bert, monkeypatch):
    one, other = transformer(bert), transformer(bert, "cls")
    first = evaluate(one, TASKS, FAST, suite="mini", name="mean", save="results/mini/mean.json")
    second = evaluate(other, TASKS, FAST, suite="mini", name="cls", save="results/mini/cls.json")
    table = compare("results/mini/mean.json", "results/mini/cls.json")
    assert table["difference"][0] == pytest.approx(score(second) - score(first), abs=0.02)
    assert list(compare("mean", "cls", suite="mini")["task"]) == ["mini-sts"]
    assert Path("results/mini/mean.md").exists()
    read = Report.load(Path("results/mini/mean.json"))
    assert (read.key, score(read), read.model) == (first.key, score(first), first.model)
    rows = {row[0] for row in scores.leaderboard([first, second]).rows}
    assert rows >= {"mean", "cls"}
    with pytest.raises(UserError, match=r"holds another evaluation \(probes differ\). Use force"):
        evaluate(other, TASKS, FAST, suite="mini", save="results/mini/mean.json")
    with pytest.raises(UserError, match=r"expected the name of a \.json file"):
        evaluate(one, TASKS, FAST, save="results/mini/mean")
    monkeypatch.setattr("simcse_bench.evaluation.evaluate.score_all", lambda *a, **k: pytest.fail("computed again"))
    assert evaluate(one, TASKS, FAST, suite="mini", save="results/mini/mean.json").key == first.key


def test_an_object_wherever_a_model_goes(bert, tmp_path):
    model = transformer(bert)
    shape = analyze([open_model(model, name="object")], task="mini-sts", splits=["dev"], out=tmp_path / "results")
    assert list(shape["model"]) == ["object"]
    texts = sentences(5)
    search = SimCSE(model, device="cpu")
    search.build_index(texts)
    assert [text for text, _ in search.search(texts[2], top_k=1)] == [texts[2]]
    search.save_index(str(tmp_path / "index"))
    SimCSE(transformer(bert), device="cpu").load_index(str(tmp_path / "index"))
    with pytest.raises(UserError, match="index was made with tiny-bert"):
        SimCSE(transformer(bert, "cls"), device="cpu").load_index(str(tmp_path / "index"))
    white = tmp_path / "white.txt"
    white.write_text("\n".join(sentences(60)))
    opened = open_model(model, whiten=white)
    assert evaluate(opened, TASKS, FAST).key != evaluate(model, TASKS, FAST).key


def test_rows_keep_their_numbers():
    np.testing.assert_array_equal(as_rows([[1, 2], [3, 4]], 2), np.array([[1, 2], [3, 4]], np.float32))
    report = evaluate(Words(), [load_task("mini-sts")], FAST, DataSource())
    assert report.model["dimension"] == 64
