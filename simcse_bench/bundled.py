"""What ships with the package for trying it offline: the mini encoder, its data and their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MODEL = "mini"
TEXTS = {"mini-sentences": "sentences.txt", "mini-nli": "nli.csv"}  # training text in tasks/mini
SUITE = "mini"
TASK = "mini-sts"
TASKS = (TASK, "mini-minimal-pairs", "mini-probe")
# what every page with its numbers says; its titles only ``badge``
ENCODER = "embedded mini encoder (for trying; its ancestor all-MiniLM-L6-v2 was trained on sentence pairs)"
DATA = "embedded data (for trying, no benchmark)"


def badge(encoder: bool, data: bool) -> str:
    """What a title says where the encoder, or the data, is the embedded one: "; embedded encoder and data"; else ""."""
    parts = ["encoder"] * encoder + ["data"] * data
    return f"; embedded {' and '.join(parts)}" if parts else ""


def caveats(encoder: bool, data: bool) -> list[str]:
    """What notes say of it."""
    return [f"With the {ENCODER}, or trained from it."] * encoder + [f"On {DATA}."] * data


def other_notes(notes: Sequence[str]) -> list[str]:
    """Notes without those of ``caveats``, for a page that says them once."""
    return [note for note in notes if note not in caveats(True, True)]


def model_folder() -> Path:
    """The mini encoder: a transformers folder with ``simcse_bench.json``."""
    return Path(__file__).parent / "assets" / MODEL


def text_file(name: str) -> Path:
    """The training text of this name, a key of ``TEXTS``."""
    return builtin_tasks_dir() / "mini" / TEXTS[name]


def builtin_tasks_dir() -> Path:
    """``<package>/tasks`` in a wheel, ``<package>/../tasks`` in a checkout."""
    package = Path(__file__).parent
    inside = package / "tasks"
    return inside if inside.is_dir() else package.parent / "tasks"
