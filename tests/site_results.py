"""A results folder with something of all kinds, as its pages are drawn from."""

import dataclasses

from summaries import changed

from simcse_bench.reports.folder import Results
from simcse_bench.reports.mteb import MtebReport
from simcse_bench.reports.report import Report
from simcse_bench.reports.standings import Saved

ENVIRONMENT = {"processor": "p", "cores": 2, "versions": {"torch": "2"}}


def entry(value, half=1.0):
    return {"value": value, "interval": [value - half, value + half]}


def scores(value):
    return {
        m: {h: entry(value - 10 * i - j) for j, h in enumerate(("all", "mean", "wmean"))}
        for i, m in enumerate(("spearman", "pearson"))
    }


def report(name, values, suite="sts", protocol="simcse", **model):
    """``values``: task -> score."""
    data = {"split": "test", "text": "senteval", "fingerprint": "f"}
    parts = {
        n: {"n": 2, "spearman": entry(v - 1), "pearson": entry(v - 2)} for n, v in (("news", 60.0), ("forum", 50.0))
    }
    tasks = {t: {"title": t.upper(), "kind": "sts", "n": 5, "scores": scores(v), "subsets": parts, "data": data}
             for t, v in values.items()}  # fmt: skip
    return Report(
        key=f"{name} {suite} {protocol} {model}", suite=suite, limit=None, skipped={}, stats={}, created="2026-01-01",
        tasks=tasks, average=scores(sum(values.values()) / len(values)), environment=ENVIRONMENT,
        model={"name": name, "pooling": "cls", "head": "none", "dtype": "float32", **model},
        protocol={"name": protocol, "text": "senteval", "split": "test"}, seconds={"embedding": 1, "scoring": 1},
    )  # fmt: skip


def arm(name, values, **difference):
    spread = {"mean": sum(values) / len(values), "sd": 1.0, "values": values}
    drawn = {"arm": name, "seeds": [42, 43], "dev": spread, "test": spread, "alignment": None, "uniformity": None,
             "published": 80.0 + len(name), "failed": []}  # fmt: skip
    return drawn | ({"difference": {"holm": 0.01, "seeds": 2, **difference}} if difference else {})


def sweep(embedded=True):
    verdicts = [("0.1 beats 0.5", "holds", 9.0, (6.0, 12.0)), ("0.5 beats 0.0", "does not hold", -5.0, (-8.0, -2.0)),
                ("0.1 beats 0.0", "undecided", 0.5, (-1.0, 2.0))]  # fmt: skip
    return {
        "schema": 1, "name": "dropout", "preset": "mini", "title": "Dropout probability", "axis": "dropout", "note": "",
        "reference": "0.1", "source": "SimCSE Table 3",
        "arms": [arm("0.1", [70.0, 72.0]), arm("a long name of an arm", [60.0, 64.0], value=-9.0, interval=(-12.0, -6.0))],
        "findings": [{"text": t, "verdict": v, "value": x, "interval": i, "published": 11.4} for t, v, x, i in verdicts],
        "seconds": 1.0, "model": {"name": "mini", "embedded": embedded},
        "train": {"name": "t.txt", "rows": 3, "fingerprint": "f"}, "environment": ENVIRONMENT,
        "dev": {"title": "STS-B", "task": "stsb", "split": "dev", "n": 5, "fingerprint": "f"}, "base": {"model": "mini"},
    }  # fmt: skip


def analysis(name, alignment):
    bins = [{"gold": (i, i + 1), "n": 5, "quartiles": (0.1 * i, 0.2 * i, 0.3 * i), "counts": [1]} for i in range(5)]
    return {
        "schema": 1, "model": {"name": name, "pooling": "cls", "head": "none", "embedded": True}, "spearman": 60.0,
        "data": {"task": "mini-sts", "splits": [], "pairs": 5, "sentences": 9, "aligned_pairs": 2, "fingerprint": "f"},
        "alignment": alignment, "uniformity": -2.5, "mean_cosine": 0.3, "effective_rank": 20.0, "dimension": 64,
        "singular_values": [1.0], "cosines": bins, "by_length": [], "by_overlap": [], "environment": ENVIRONMENT,
        "created": "2026-01-01", "file": name,
    }  # fmt: skip


PAIRS = [
    {
        "gold": 4.5,
        "cosine": 0.2,
        "gold_rank": 90.0,
        "cosine_rank": 10.0,
        "left": "A guitar.",
        "right": "An instrument.",
    },
    {"gold": 0.5, "cosine": 0.9, "gold_rank": 5.0, "cosine_rank": 95.0, "left": "<b>Not</b> so.", "right": "So."},
]
PAPER = {
    "schema": 1, "paper": "simcse-2021", "preset": "mini", "seeds": 2, "real": False, "created": "2026-01-01",
    "suites": {"sts": "mini", "transfer": "mini-transfer"}, "seconds": {"Table 3": 60.0}, "environment": ENVIRONMENT,
    "statements": [{"text": "training helps", "verdict": "holds", "value": 3.0, "interval": (1.0, 5.0), "published": 20.0}],
}  # fmt: skip
BEST, WORDS = "sentence-transformers/all-MiniLM-L6-v2", "word-vectors:a-file-with-a-long-name.300d.txt"


def mteb_report(name, score):
    part = {"split": "test", "subset": "default", "score": score, "metrics": {"cosine_spearman": score / 100}}
    task = {"type": "STS", "metric": "cosine_spearman", "score": score, "parts": [part], "superseded_by": None,
            "data": {"path": "mteb/biosses", "revision": "r"}}  # fmt: skip
    return MtebReport(
        key=name, selection="BIOSSES", benchmark=None, mteb={"version": "2", "name": name, "revision": "r"},
        model={"name": name, "pooling": "mean", "head": "none", "embedded": name == "mini"}, tasks={"BIOSSES": task},
        averages={}, environment=ENVIRONMENT, seconds=1.0, created="2026-01-01",
    )  # fmt: skip


def example():
    """Something of all kinds: seeds, a published row, two protocols and languages, embedded and real numbers."""
    reports = [
        report(BEST, {"stsb": 82.0, "sickr": 77.0}, max_length=256),
        report("mine-seed1", {"stsb": 70.0, "sickr": 60.0}, embedded=True),
        report("mine-seed2", {"stsb": 72.0, "sickr": 62.0}, embedded=True),
        report(WORDS, {"stsb": 58.0, "sickr": 53.0}),
        report("a", {"stsb-vi": 60.0}, suite="sts-vi"),
        report("m", {"stsb": 71.0, "sickr": 66.0}, protocol="mteb"),
        report("[CLS]", {"mini-sts": 40.0}, suite="mini", embedded=True),
    ]
    saved = [Saved(f"x/{i}.json", r) for i, r in enumerate(reports)]
    saved[0] = dataclasses.replace(saved[0], worst={"stsb": PAIRS, "sickr": PAIRS[:1]})
    saved[-1] = dataclasses.replace(saved[-1], place="paper/mini/cls.json", worst={"mini-sts": PAIRS[1:]})
    mteb = {f"mteb/{name}.json": mteb_report(name, score) for name, score in (("one", 80.0), ("mini", 50.0))}
    sweeps = {"ablations/dropout-mini": sweep(), "paper/ablations/dropout-mini": sweep()}
    return Results(
        saved,
        sweeps,
        {"paper/analysis": [analysis("[CLS]", 0.3), analysis("x", 0.2)]},
        {"paper": PAPER},
        mteb,
        [changed("[CLS]"), changed("x")],
    )
