"""The papers' tables (papers/*.csv) and the row that a model's numbers are compared with."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from simcse_bench.models.catalog import known_model


@dataclass(frozen=True)
class PublishedRow:
    """One row of a paper's table, in percent."""

    source: str  # such as "SimCSE Table 5"
    row: str
    scores: Mapping[str, float]  # task -> score
    average: float | None
    backbone: str = ""  # such as "BERT-base"; "" where the table names none


_TABLES = {  # (protocol, aggregate, suite) -> file, how it is cited, and how its row names end
    ("simcse", "all", "sts"): ("simcse_2021_table5_sts", "SimCSE Table 5", ""),
    ("simcse", "wmean", "sts"): ("simcse_2021_tables_b_c_wmean", "SimCSE Tables B-C", " (wmean)"),
    ("simcse", "all", "transfer"): ("simcse_2021_table_e1_transfer", "SimCSE Table E.1", ""),
    ("mteb", "all", "sts"): ("mteb_minilm_l6_v2", "MTEB", ""),
    ("simcse", "all", "sts-vi"): ("vietnamese_embedding_card", "card of dangvantuan/vietnamese-embedding", ""),
    ("simcse", "all", "sts-th"): ("thai_stsb_2021", "Thai Sentence Vector Benchmark, 2021", ""),
}
_FAMILY = {  # suite -> files of the SimCSE family's rows, protocol simcse, and how each is cited
    "sts": {
        "simcse_2021_table5_sts": "SimCSE Table 5",
        "angle_2024_sts": "AnglE README",
        "consert_2021_sts": "ConSERT README",
        "diffcse_2022_sts": "DiffCSE thesis, Table 2.1",
        "esimcse_2022_sts": "ESimCSE README",
        "gs_infonce_2022_sts": "GS-InfoNCE README",
        "infocse_2022_sts": "InfoCSE README",
        "is_cse_2023_sts": "IS-CSE README",
        "mirror_bert_2021_sts": "Mirror-BERT README",
        "promcse_2022_sts": "PromCSE Table 1",
        "promptbert_2022_sts": "PromptBERT README",
        "prompteol_2023_sts": "PromptEOL README",
        "whitenedcse_2023_sts": "WhitenedCSE README",
        "awesome_sentence_embedding_unsup_sts": "Awesome-Sentence-Embedding",  # a collection: last
    },
    "transfer": {
        "simcse_2021_table_e1_transfer": "SimCSE Table E.1",
        "diffcse_2022_transfer": "DiffCSE thesis, Table 2.2",
        "promcse_2022_transfer": "PromCSE Table 7",
    },
}
FAMILY_SUITES = tuple(_FAMILY)
_RENAMED = {"sickr_mteb": "sickr"}  # mteb's SICK-R is all 9,927 pairs, as under protocol mteb
_NO_SCORES = ("model", "backbone", "avg", "sickr_test")


def published_row(
    model: str, protocol: str, aggregate: str, metric: str, split: str, suite: str
) -> PublishedRow | None:
    """The published row of a catalog model under the same protocol, aggregation, metric and split; else None."""
    spec = known_model(model)
    table = _TABLES.get((protocol, aggregate, suite))
    if spec is None or spec.published is None or table is None or split != "test":
        return None
    if metric != ("accuracy" if suite == "transfer" else "spearman"):
        return None
    file, source, suffix = table
    places = [(file, source, spec.published + suffix)]
    if (protocol, aggregate) == ("simcse", "all"):
        places += [(file, source, spec.published) for file, source in _FAMILY.get(suite, {}).items()]
    if (protocol, aggregate, suite) == ("simcse", "all", "sts"):  # BERT-large stands in the repository's list only
        places.append(("simcse_2021_model_list", "SimCSE README", spec.checkpoint))
    rows = (_row(source, r) for file, source, name in places for r in read_table(file) if r["model"] == name)
    return next(rows, None)


def published_word_vectors(protocol: Mapping[str, Any], metric: str, aggregate: str, suite: str) -> PublishedRow | None:
    """The paper's GloVe row, to stand beside a word-vector baseline: other vectors, the same protocol."""
    table = _TABLES.get((protocol["name"], "all" if suite == "transfer" else aggregate, suite))
    same = protocol["split"] == "test" and protocol.get("probe", "exact") == "exact"
    if table is None or not same or (suite == "sts" and metric != "spearman"):
        return None
    file, source, _ = table
    return next((_row(source, r) for r in read_table(file) if r["model"].startswith("GloVe")), None)


def family_rows(suite: str) -> list[PublishedRow]:
    """What papers and repositories of the SimCSE family state, best average first.

    Args:
        suite: one of ``FAMILY_SUITES``: Spearman x100 (aggregation "all") or accuracy x100.
    """
    rows = [_row(source, fields) for file, source in _FAMILY[suite].items() for fields in read_table(file)]
    return sorted(rows, key=lambda r: (-(r.average or 0.0), r.row))


def _row(source: str, fields: Mapping[str, str]) -> PublishedRow:
    scores = {_RENAMED.get(k, k): float(v) for k, v in fields.items() if v and k not in _NO_SCORES}
    average = float(fields["avg"]) if "avg" in fields else None
    return PublishedRow(source, fields["model"], scores, average, fields.get("backbone", ""))


@cache
def read_table(file: str) -> tuple[Mapping[str, str], ...]:
    """Rows of papers/<file>.csv."""
    with (Path(__file__).parent / f"{file}.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(csv.DictReader(line for line in stream if not line.startswith("#")))
