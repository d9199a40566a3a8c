"""The papers' tables: the row of a model under its protocol only."""

from simcse_bench.papers import published


def test_published_rows_only_for_the_same_protocol():
    name = "princeton-nlp/unsup-simcse-bert-base-uncased"
    found = published.published_row(name, "simcse", "all", "spearman", "test", "sts")
    assert (found.scores["sickr"], found.average) == (72.23, 76.25)
    assert published.published_row(name, "simcse", "wmean", "spearman", "test", "sts").average == 76.46
    for wrong in (("mteb", "all", "spearman", "test"), ("simcse", "mean", "spearman", "test"),
                  ("simcse", "all", "pearson", "test"), ("simcse", "all", "spearman", "dev")):  # fmt: skip
        assert published.published_row(name, *wrong, "sts") is None
    assert published.published_row("somebody/else", "simcse", "all", "spearman", "test", "sts") is None
    large = published.published_row(
        "princeton-nlp/sup-simcse-bert-large-uncased", "simcse", "all", "spearman", "test", "sts"
    )
    assert (large.scores, large.average) == ({}, 82.21)
    mini = published.published_row("all-MiniLM-L6-v2", "mteb", "all", "spearman", "test", "sts")
    assert mini.scores["sickr"] == 77.58
    assert "sickr_test" not in mini.scores


def test_every_published_row_of_the_catalog_exists():
    from simcse_bench.models.catalog import MODELS

    for name, spec in MODELS.items():
        if spec.published:
            protocol = "mteb" if "MiniLM" in name else "simcse"
            suite = "sts" if spec.language == "en" else f"sts-{spec.language}"
            assert published.published_row(name, protocol, "all", "spearman", "test", suite) is not None, name
