"""Write the training text of tasks/mini from its grammars.

sentences_*.yaml give sentences.txt; nli.yaml and nli_written.csv give nli.csv.

    python scripts/write_mini.py

Deterministic: the same grammars give the same files (a test compares them).
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

MINI = Path(__file__).parent.parent / "tasks" / "mini"
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
SENTENCES_A_PATTERN, TRIPLETS_A_PATTERN = 20, 15
TRIES = 20  # draws for each expansion that is wanted


def main() -> None:
    """Write both files."""
    (MINI / "sentences.txt").write_text(sentences_text(), encoding="utf-8")
    (MINI / "nli.csv").write_text(triplets_text(), encoding="utf-8")


def sentences_text() -> str:
    """sentences.txt: a sentence a line."""
    found: list[str] = []
    for name in ("sentences_home.yaml", "sentences_outside.yaml"):
        grammar = _grammar(name)
        patterns = [[pattern] for pattern in grammar["sentences"]]
        found += [s for (s,) in expand(patterns, grammar["words"], SENTENCES_A_PATTERN, tied=False)]
    random.Random(1).shuffle(found)
    taken = _evaluation_sentences()
    return "".join(f"{s}\n" for s in dict.fromkeys(found) if s not in taken)


def triplets_text() -> str:
    """nli.csv: sentence, entailed sentence, contradicting sentence."""
    grammar = _grammar("nli.yaml")
    with (MINI / "nli_written.csv").open(encoding="utf-8", newline="") as stream:
        rows = [tuple(row) for row in csv.reader(stream)]
    patterns = [[p["sent0"], p["sent1"], p["hard_neg"]] for p in grammar["triplets"]]
    found = rows[1:] + expand(patterns, grammar["words"], TRIPLETS_A_PATTERN, tied=True)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    taken = _evaluation_sentences()
    writer.writerows(row for row in dict.fromkeys(found) if not taken & set(row) and len(set(row)) == 3)
    return out.getvalue()


def expand(
    patterns: Sequence[Sequence[str]], words: Mapping[str, Sequence[Any]], each: int, tied: bool
) -> list[tuple[str, ...]]:
    """At most ``each`` distinct expansions of every pattern, in an order of their own that is always the same.

    Args:
        patterns: each of one or several sentences; ``{name}`` stands for an entry of that list, ``{name.form}`` for a
            form of it where the entries are mappings.
        words: the lists.
        each: expansions of a pattern.
        tied: the same name takes the same entry throughout the pattern; else another one each time.
    """
    draw = random.Random(0)
    found: dict[tuple[str, ...], None] = {}
    for pattern in patterns:
        own: dict[tuple[str, ...], None] = {}
        for _ in range(TRIES * each):
            if len(own) == each:
                break
            own[tuple(_filled(pattern, words, draw, tied))] = None
        found |= own
    order = list(found)
    draw.shuffle(order)
    return order


def _filled(
    pattern: Sequence[str], words: Mapping[str, Sequence[Any]], draw: random.Random, tied: bool
) -> Iterator[str]:
    chosen: dict[str, list[int]] = {}  # list -> entries taken so far

    def entry(match: re.Match[str]) -> str:
        name, form = match.groups()
        taken = chosen.setdefault(name, [])
        if not taken or not tied:
            taken.append(draw.choice([i for i in range(len(words[name])) if i not in taken]))
        found = words[name][taken[-1]]
        return str(found[form] if form else found)

    for sentence in pattern:
        text = SLOT.sub(entry, sentence)
        yield text[0].upper() + text[1:]


def _evaluation_sentences() -> set[str]:
    rows = [line.split("\t") for path in MINI.glob("sts/*.tsv") for line in path.read_text("utf-8").splitlines()]
    probe = [line for path in MINI.glob("probe.*") for line in path.read_text("utf-8").splitlines()]
    return {sentence for row in rows for sentence in row[1:3]} | set(probe)


def _grammar(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((MINI / name).read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main()
