"""Saved results as their JSON has them, for what is drawn from them: an ablation's summary, a model's robustness."""


def arm(name, values, published=None, **difference):
    mean = sum(values) / len(values) if values else 0.0
    dev = {"mean": mean, "sd": 1.0 if len(values) > 1 else None, "values": values} if values else None
    drawn = {"arm": name, "seeds": list(range(len(values))), "dev": dev, "test": dev, "alignment": None, "uniformity": None,
             "published": published, "failed": []}  # fmt: skip
    return drawn | ({"difference": {"holm": 0.01, "seeds": 2, **difference}} if difference else {})


def summary(*arms, findings=()):
    return {
        "schema": 1, "name": "dropout", "preset": "mini", "title": "Dropout", "axis": "", "note": "", "reference": "0.1",
        "source": "SimCSE Table 3", "arms": list(arms), "findings": list(findings), "seconds": 1.0,
        "model": {"name": "mini", "embedded": True}, "train": {"name": "t.txt", "rows": 3, "fingerprint": "f"},
        "dev": {"title": "STS-B", "task": "stsb", "split": "dev", "n": 5, "fingerprint": "f"}, "base": {"model": "mini"},
        "environment": {"processor": "p", "cores": 2, "versions": {}},
    }  # fmt: skip


def changed(name):
    """The robustness of a model called ``name``, with a rule that changes nothing and one that is not ours."""
    effect = {"change": -3.0, "interval": (-4.0, -2.0)}
    changes = {
        rule: {"keeps": keeps, "changed": 8, "cosine": 0.9, "moved": share, "quartiles": (0.5 * share, share, 2 * share),
               "one": effect, "both": effect}
        for rule, keeps, share in (("typos", True, 0.12), ("a rule of later times", True, 0.02), ("negation", False, 0.3))
    }  # fmt: skip
    changes["frame"] = {"keeps": True, "changed": 0, "cosine": None, "moved": None, "quartiles": None, "one": effect,
                        "both": effect}  # fmt: skip
    summary = {"spearman": 60.0, "moved_kept": 0.07, "moved_changed": 0.3, "separated": 88.0, "changes": changes}
    task = {"title": "mini-sts", "text": "only", "pairs": 5, "sentences": 9, "fingerprint": "f", "mean_cosine": 0.1}
    return {
        "schema": 1, "model": {"name": name, "pooling": "cls", "head": "none", "embedded": True}, "seed": 42, "rate": 0.1,
        "resamples": 1000, "splits": ["test"], "tasks": {"mini-sts": task | summary}, "average": summary,
        "environment": {"processor": "p", "cores": 2, "versions": {"torch": "2"}}, "created": "2026-01-01", "file": name,
    }  # fmt: skip
