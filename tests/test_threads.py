"""Threads that calls change for a while: whatever overlaps, the process ends as it began."""

import threading

import numpy as np
import pytest
import torch

from simcse_bench.models.cpu_kernels import a_core_each, torch_threads
from simcse_bench.search import nearest
from simcse_bench.threads import ProductThreads


def overlapping(first, second):
    """``first`` begins before ``second`` and ends before it."""
    within, over = threading.Event(), threading.Event()

    def late():
        with second():
            within.set()
            assert over.wait(10)

    other = threading.Thread(target=late)
    with first():
        other.start()
        assert within.wait(10)
    over.set()
    other.join(10)


def test_calls_that_overlap_leave_the_setting_as_it_was():
    setting = [4]
    threads = ProductThreads(lambda: setting[0], lambda value: setting.__setitem__(0, value))
    with threads.restored() as usual:
        setting[0] = 1
        with threads.restored() as within:
            setting[0] = 1
            assert (usual, within, threads.usual()) == (4, 4, 4)
    assert setting == [4]

    def fails():
        with threads.restored():
            setting[0] = 1
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fails()
    assert (setting, threads.usual()) == ([4], 4)


def test_torchs_threads(set_threads):
    set_threads(3)
    seen = []

    def work():
        return a_core_each(2)

    with work() as pool:
        seen += pool.map(lambda _: torch.get_num_threads(), range(4))
    assert seen == [1] * 4
    overlapping(work, work)
    assert torch.get_num_threads() == torch_threads.usual() == 3
    other = []
    new = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert other == [3]


def test_numpys_threads():
    before = [library.num_threads for library in nearest._libraries()]
    nearest._set_threads([2] * len(before))
    try:
        with nearest._a_core_each() as count:
            assert count == 2
            assert {library.num_threads for library in nearest._libraries()} == {1}
            assert np.ones((2, 2)).dot(np.ones((2, 2))).sum() == 8
        overlapping(nearest._a_core_each, nearest._a_core_each)
        assert {library.num_threads for library in nearest._libraries()} == {2}
    finally:
        nearest._set_threads(before)
