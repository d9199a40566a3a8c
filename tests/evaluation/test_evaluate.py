import dataclasses
import zlib

import numpy as np
import pytest
from scipy import stats
from tiny import sentences

from simcse_bench.data.pairs import Pairs, read_task_pairs
from simcse_bench.data.registry import load_suite, load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import MTEB, SIMCSE, Source, Task
from simcse_bench.errors import UserError
from simcse_bench.evaluation.evaluate import distinct_sentences, evaluate
from simcse_bench.models.own import PROBES
from simcse_bench.reports import scores

FAST = dataclasses.replace(SIMCSE, resamples=50)


class Hashed:
    """Counts its calls; the vector of a sentence is a random one with its hash as the seed."""

    def __init__(self, change=lambda x: x):
        self.seen, self.change = [], change

    def encode(self, texts):
        self.seen += texts
        rows = [np.random.default_rng(zlib.crc32(t.encode())).normal(size=16) for t in texts]
        return self.change(np.array(rows, dtype=np.float32))


def plain_cosine(encoder, left, right):
    u, v = (encoder.encode([s])[0].astype(np.float64) for s in (left, right))
    return round(float(np.dot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v))), 12)  # identical sentences tie


def test_scores_equal_a_plain_loop_over_the_official_steps(senteval):
    """STSEval.run of SimCSE's SentEval, pair by pair: all, mean, wmean, Spearman and Pearson."""
    task, encoder = load_task("sts12"), Hashed()
    report = evaluate(encoder, [task], FAST, DataSource(senteval))
    pairs = read_task_pairs(task, "test", "senteval", senteval)
    system = np.array([plain_cosine(encoder, a, b) for a, b in zip(pairs.left, pairs.right, strict=True)])
    for metric, function in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        parts, sizes = [], []
        for name in dict.fromkeys(pairs.subset):
            rows = np.array(pairs.subset) == name
            parts.append(100 * function(system[rows], pairs.gold[rows]).statistic)
            sizes.append(rows.sum())
            assert report.tasks["sts12"]["subsets"][name][metric]["value"] == pytest.approx(parts[-1], abs=1e-5)
        found = {k: v["value"] for k, v in report.tasks["sts12"]["scores"][metric].items()}
        assert found["all"] == pytest.approx(100 * function(system, pairs.gold).statistic, abs=1e-5)
        assert found["mean"] == pytest.approx(np.mean(parts), abs=1e-5)
        assert found["wmean"] == pytest.approx(np.average(parts, weights=sizes), abs=1e-5)
        for entry in report.tasks["sts12"]["scores"][metric].values():
            assert entry["interval"][0] < entry["value"] < entry["interval"][1]


def test_an_encoder_that_says_nothing_of_itself_goes_by_its_class(senteval):
    report = evaluate(Hashed(), [load_task("sts12")], FAST, DataSource(senteval))
    assert scores.leaderboard([report]).rows[0][:3] == ["Hashed", "–", "–"]


def test_every_distinct_sentence_is_embedded_once_for_all_tasks(senteval):
    encoder = Hashed()
    report = evaluate(encoder, load_suite("sts"), FAST, DataSource(senteval), suite="sts")
    seen = encoder.seen[len(PROBES) :]  # what tells it from other objects comes first
    assert len(seen) == len(set(seen)) == report.stats["distinct_sentences"] == 300
    values = [t["scores"]["spearman"]["all"]["value"] for t in report.tasks.values()]
    assert report.average["spearman"]["all"]["value"] == pytest.approx(np.mean(values), abs=1e-6)
    assert list(report.tasks) == ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"]


def test_no_average_when_a_task_is_missing(senteval):
    report = evaluate(Hashed(), load_suite("sts"), dataclasses.replace(FAST, split="dev"), DataSource(senteval))
    assert list(report.tasks) == ["stsb", "sickr"]
    assert report.average is None
    assert report.skipped["sts12"] == "has no dev split"
    with pytest.raises(UserError, match="task 'sts12' has no dev split"):
        evaluate(Hashed(), [load_task("sts12")], dataclasses.replace(FAST, split="dev"), DataSource(senteval))


def test_protocol_mteb_reads_raw_text_and_all_of_sick(senteval):
    report = evaluate(Hashed(), load_suite("sts"), dataclasses.replace(MTEB, resamples=20), DataSource(senteval))
    assert report.tasks["sickr"]["n"] == 9927
    assert report.tasks["sts12"]["data"]["text"] == "raw"
    official = evaluate(Hashed(), load_suite("sts"), dataclasses.replace(SIMCSE, resamples=20), DataSource(senteval))
    assert official.tasks["sickr"]["n"] == 4927
    assert official.tasks["sts12"]["data"]["fingerprint"] != report.tasks["sts12"]["data"]["fingerprint"]


def own(folder, lines):
    (folder / "x.tsv").write_text("".join(f"{g}\t{a}\t{b}\n" for g, a, b in lines))
    return Task("own", "Own", "sts", "", {"only": Source("tsv", path="x.tsv")}, {"test": {"test": None}}, folder=folder)


@pytest.fixture
def task(tmp_path):
    pool = sentences(30)
    return own(tmp_path, [(i % 6, pool[i], pool[(i * 7 + 1) % 30]) for i in range(30)])


def test_nan_constant_and_misshapen_embeddings_give_no_score(task):
    def one_nan(x):
        x[3, 2] = np.nan
        return x

    with pytest.raises(UserError, match="NaN or infinite values for 1 of 30 sentences, first for"):
        evaluate(Hashed(one_nan), [task], FAST)
    with pytest.raises(UserError, match="the same vector for all 30 sentences"):
        evaluate(Hashed(lambda x: x * 0 + 1), [task], FAST)
    with pytest.raises(UserError, match="expected one row per sentence"):
        evaluate(Hashed(lambda x: x[:-1]), [task], FAST)
    with pytest.raises(UserError, match="task 'own': all 30 similarities are the same"):
        evaluate(Hashed(lambda x: np.abs(x[:, :1])), [task], FAST)  # parallel vectors: cosine 1 everywhere


def test_constant_gold_is_named(tmp_path):
    with pytest.raises(UserError, match="task 'own': all 3 gold scores are the same"):
        evaluate(Hashed(), [own(tmp_path, [(3, f"a{i}", f"b{i}") for i in range(3)])], FAST)


def test_empty_sentences_are_encoded_and_counted(tmp_path):
    encoder = Hashed()
    report = evaluate(encoder, [own(tmp_path, [(1, "", "a"), (2, "b", "c"), (3, "d", "e")])], FAST)
    assert "" in encoder.seen
    assert report.stats["empty_sentences"] == 1


def test_limit_is_recorded_and_changes_the_key(task):
    whole, part = evaluate(Hashed(), [task], FAST), evaluate(Hashed(), [task], FAST, limit=10)
    assert part.tasks["own"]["n"] == part.limit == 10
    assert whole.key != part.key


def test_swapping_gold_and_similarity_order_changes_the_score(task):
    """A fault that the suite must notice: rows of gold shifted against rows of sentences."""
    report = evaluate(Hashed(), [task], FAST)
    shifted = shifted_gold(task)
    assert evaluate(Hashed(), [shifted], FAST).tasks["own"]["scores"] != report.tasks["own"]["scores"]


def shifted_gold(task):
    path = task.folder / "x.tsv"
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    golds = [*(r[0] for r in rows[1:]), rows[0][0]]
    path.write_text("".join("\t".join([g, *r[1:]]) + "\n" for g, r in zip(golds, rows, strict=True)))
    return task


def test_distinct_sentences_keep_the_order_of_appearance():
    pairs = Pairs(("b", "a"), ("a", "c"), np.zeros(2), ("s", "s"))
    assert distinct_sentences([pairs, pairs]) == ["b", "a", "c"]


def test_two_models_meet_the_same_draws(task):
    a, b = evaluate(Hashed(), [task], FAST), evaluate(Hashed(), [task], FAST)
    assert a.tasks == b.tasks
    other = evaluate(Hashed(), [task], dataclasses.replace(FAST, bootstrap_seed=1))
    assert (
        other.tasks["own"]["scores"]["spearman"]["all"]["interval"]
        != a.tasks["own"]["scores"]["spearman"]["all"]["interval"]
    )
    assert other.key != a.key
