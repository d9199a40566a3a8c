"""What a sweep shows while it runs."""

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from simcse_bench.experiments.board import Board, show_sweep


@dataclass(frozen=True)
class Trial:
    arm: str
    seed: int


TRIALS = [Trial(arm, seed) for arm in ("none", "0.1") for seed in (42, 43)]


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("simcse_bench.experiments.board.time.perf_counter", lambda: now[0])
    return now


def test_the_board_shows_what_becomes_of_every_arm(clock):
    board = Board.of(TRIALS)
    assert board.rows() == [["none", "· ·", "", ""], ["0.1", "· ·", "", ""]]
    assert board.left() is None
    board.show_trial(TRIALS[0], "there", 70.0)
    show = board.show_trial(TRIALS[1], "running")
    show({"step": 30, "total": 120, "loss": 0.5})
    show({"step": 60, "total": 120, "dev": 71.0})
    assert board.rows()[0] == ["none", "✓ ▶", "70.00", "seed 43: 60 of 120, loss 0.500"]
    board.show_trial(TRIALS[1], "done", 72.0)
    board.show_trial(TRIALS[2], "failed")
    assert board.rows() == [["none", "✓ ✓", "71.00 ± 1.41", ""], ["0.1", "✗ ·", "", ""]]
    assert board.ended == 3


def test_time_left_counts_neither_what_was_there_nor_what_is_done(clock):
    board = Board.of(TRIALS)
    board.show_trial(TRIALS[0], "there", 70.0)
    clock[0] = 60.0
    board.show_trial(TRIALS[1], "done", 70.0)
    show = board.show_trial(TRIALS[2], "running")
    assert board.left() == pytest.approx(120)
    clock[0] = 90.0
    show({"step": 50, "total": 100})
    assert board.left() == pytest.approx(90)  # half of one trial and a whole one, a minute each
    assert board.line(TRIALS[2]) == "3 of 4, 0.1, seed 42: running (1.5 min, about 1.5 min left)"


def test_the_live_table_is_drawn(clock):
    board = Board.of(TRIALS)
    board.show_trial(TRIALS[0], "done", 70.25)
    console = Console(file=io.StringIO(), width=100)
    console.print(board)
    shown = console.file.getvalue()
    for expected in ("none", "✓ ·", "70.25", "1 of 4 trials"):
        assert expected in shown


@pytest.mark.parametrize("how, lines", [("plain", 2), ("none", 0)])
def test_a_log_gets_a_line_per_event(how, lines, capsys):
    with show_sweep(how, TRIALS) as show_trial:
        show_trial(TRIALS[0], "running")({"step": 1, "total": 2, "loss": 1.0})
        show_trial(TRIALS[0], "done", 81.5)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    if said:
        assert said[0].startswith("1 of 4, none, seed 42: running (0.0 min")
        assert said[1].startswith("1 of 4, none, seed 42: done, dev 81.50 (0.0 min")


def test_a_terminal_gets_the_live_table(capsys, monkeypatch):
    with show_sweep("bar", TRIALS) as show_trial:
        show_trial(TRIALS[0], "done", 81.5)
    assert "81.50" in capsys.readouterr().err


def test_an_arms_name_is_text(capsys):
    with show_sweep("bar", [Trial("[/b] $x$", 42)]) as show_trial:
        show_trial(Trial("[/b] $x$", 42), "done", 81.5)
    assert "[/b] $x$" in capsys.readouterr().err
