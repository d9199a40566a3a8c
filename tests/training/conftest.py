from pathlib import Path

import pytest
from processes import set_options, trainings
from tiny import sentences


@pytest.fixture(scope="session")
def start(bert, senteval, tmp_path_factory):
    """Start `train` as a process of its own."""
    folder = tmp_path_factory.mktemp("processes")
    text = folder / "text.txt"
    text.write_text("\n".join(sentences(200)) + "\n", encoding="utf-8")
    with trainings(bert, text, senteval, folder / "cache") as run:
        yield run


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(sentences(60)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def train(cli, bert, text, senteval):
    """Run `train` into runs/x: 6 updates of 8 rows without dev scores, changed by the given settings."""

    def run(*args, out=Path("runs/x"), **settings):
        chosen = {"model": bert, "train": text, "batch_size": 8, "max_steps": 6, "eval_every": 0} | settings
        return cli("train", "--out", out, "--device", "cpu", "--data-dir", senteval, *set_options(chosen), *args)

    return run


@pytest.fixture
def told(train):
    """What ``train`` says of settings that cannot be: one line, code 2."""

    def run(**settings):
        done = train(**settings)
        lines = [line for line in done.err.strip().splitlines() if not line.startswith("no dev scores")]
        assert (done.code, len(lines)) == (2, 1), done.out + done.err
        return lines[0].removeprefix("error: ")

    return run
