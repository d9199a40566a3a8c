"""An ablation's summary, as its JSON has it, for what is drawn from it."""


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
