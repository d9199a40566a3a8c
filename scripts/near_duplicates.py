"""How often does a training batch hold two sentences that mean nearly the same?

    python scripts/near_duplicates.py --model FOLDER_OF_ALL_MINILM tasks/mini/sentences.txt wikipedia.txt

Draws batches of 64 sentences and counts those with a pair above a cosine of 0.9: such a pair is a false negative of
the contrastive loss. The same number of lines is taken of each file, so that the figures can be compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from simcse_bench import open_model
from simcse_bench.evaluation.evaluate import embed
from simcse_bench.evaluation.metrics import unit

BATCH, BATCHES, NEAR = 64, 2000, 0.9


def main() -> None:
    """Print one line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args()
    texts = [[line for line in f.read_text(encoding="utf-8").splitlines() if line.strip()] for f in args.files]
    rows = min(map(len, texts))
    encoder = open_model(args.model).load()
    draw = np.random.default_rng(0)
    for file, lines in zip(args.files, texts, strict=True):
        chosen = [lines[i] for i in draw.permutation(len(lines))[:rows]]
        vectors = unit(embed(encoder, chosen))
        share = np.mean([holds_near_pair(vectors[draw.permutation(rows)[:BATCH]]) for _ in range(BATCHES)])
        print(f"{file}: {100 * share:.2f} % of {BATCHES} batches of {BATCH} among {rows} lines")


def holds_near_pair(unit: np.ndarray) -> bool:
    """Whether two of (n, d) unit vectors have a cosine above ``NEAR``."""
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    return bool(cosines.max() > NEAR)


if __name__ == "__main__":
    main()
