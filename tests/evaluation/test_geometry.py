import math

import numpy as np
import pytest

from simcse_bench.evaluation import geometry


def drawn(n, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_alignment_by_hand():
    left = np.array([[1.0, 0.0], [0.0, 2.0]])
    right = np.array([[0.0, 3.0], [0.0, 5.0]])
    assert geometry.alignment(left, right) == pytest.approx(1.0)  # squared distances 2 and 0
    assert geometry.alignment(left, -left) == pytest.approx(4.0)
    assert geometry.alignment(left, 7 * left) == pytest.approx(0.0, abs=1e-12)


def test_uniformity_by_hand():
    eye = np.eye(2)
    assert geometry.uniformity(eye) == pytest.approx(-4.0)  # one pair, |x - y|^2 = 2
    assert geometry.uniformity(np.ones((3, 2))) == pytest.approx(0.0)
    cross = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert geometry.uniformity(cross) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))


@pytest.mark.parametrize("n", [2, 7, 8, 23])
def test_uniformity_in_blocks_equals_a_double_loop(monkeypatch, n):
    monkeypatch.setattr(geometry, "BLOCK", 4)
    x = drawn(n)
    x /= np.sqrt((x**2).sum(1, keepdims=True))
    values = [math.exp(-2 * sum((a - b) ** 2)) for i, a in enumerate(x) for b in x[i + 1 :]]
    assert geometry.uniformity(x) == pytest.approx(math.log(sum(values) / len(values)), rel=1e-12)


def test_the_lengths_of_the_vectors_do_not_matter():
    x, y = drawn(20), drawn(20, seed=1)
    lengths = np.random.default_rng(2).uniform(0.1, 9, size=(20, 1))
    assert geometry.uniformity(lengths * x) == pytest.approx(geometry.uniformity(x))
    assert geometry.alignment(lengths * x, y) == pytest.approx(geometry.alignment(x, y))


def test_float32_embeddings_are_compared_in_float64():
    x = (1000 + drawn(50)).astype(np.float32)  # nearly one direction: float32 would lose the distances
    assert geometry.alignment(x, x) == 0
    assert geometry.uniformity(x) == pytest.approx(geometry.uniformity(x.astype(np.float64)), rel=1e-12)


def test_a_zero_vector_stays_zero():
    assert geometry.unit(np.zeros((1, 3))).tolist() == [[0, 0, 0]]
    assert geometry.alignment(np.zeros((1, 2)), np.array([[0.0, 3.0]])) == pytest.approx(1.0)


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        geometry.alignment(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="at least two vectors"):
        geometry.uniformity(np.ones((1, 3)))
