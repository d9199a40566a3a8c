"""The rate and the time shown are those of the embedding, not of what went before it."""

import numpy as np
import pytest

from simcse_bench import progress
from simcse_bench.models.encoders import embed_in_batches


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_the_clock_starts_at_the_first_report(clock):
    rates = progress._Clock()
    clock[0] += 50  # the model is loaded
    assert rates.rate(0) is None
    clock[0] += 2
    assert rates.rate(30) == pytest.approx(15)


def test_what_was_done_before_is_no_work_of_this_run(clock):
    rates = progress._Clock()
    rates.rate(1000)
    clock[0] += 4
    assert rates.rate(1100) == pytest.approx(25)


def test_plain_lines_count_from_there(clock, capsys):
    with progress.show_progress("plain") as show:
        clock[0] += 50
        show(0, 40)
        clock[0] += 3
        show(40, 40)
    assert capsys.readouterr().err == "embedding 100 %, 40 of 40 tokens, 3 s\n"


def test_the_bar_counts_from_there(clock, monkeypatch):
    updates = []

    class Bar:
        def update(self, task, **fields):
            updates.append(fields)

        def start_task(self, task):
            updates.append("started")

    from contextlib import contextmanager

    @contextmanager
    def opened(label, steps=False):
        yield Bar(), 0

    monkeypatch.setattr(progress, "_open_bar", opened)
    with progress.show_progress("bar") as show:
        clock[0] += 50
        show(0, 40)
        clock[0] += 4
        show(20, 40)
    assert updates[0] == "started"
    assert [u["state"] for u in updates[1:]] == ["", "5 tokens/s"]


def test_encoders_report_before_their_first_batch():
    seen = []
    vectors = embed_in_batches(
        [3, 2], lambda rows: [np.ones((len(rows), 4), np.float32)], 3, 0.0, {}, "cpu", lambda *at: seen.append(at)
    )
    assert len(vectors[0]) == 2
    assert (seen[0], seen[-1]) == ((0, 5), (5, 5))
    assert embed_in_batches([], lambda rows: [], 3, 0.0, {}, "cpu", lambda *at: seen.append(at)) == []
    assert len(seen) == 3
