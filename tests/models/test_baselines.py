import numpy as np
import pytest

from simcse_bench.errors import UserError
from simcse_bench.models import baselines
from simcse_bench.models.baselines import Whitened, WordVectors, fit_whitening

VECTORS = {"the": [1, 0, 0], "dog": [0, 2, 0], "Paris": [0, 0, 3], ",": [5, 5, 5], "new york": [9, 9, 9]}


@pytest.fixture(params=["glove", "word2vec", "npy"])
def vectors(request, tmp_path):
    lines = [f"{w} {' '.join(map(str, v))}" for w, v in VECTORS.items()]
    if request.param == "npy":
        np.save(tmp_path / "v.npy", np.array(list(VECTORS.values()), dtype=np.float32))
        (tmp_path / "words.txt").write_text("\n".join(VECTORS) + "\n")
        return tmp_path / "v.npy"
    if request.param == "word2vec":
        lines.insert(0, f"{len(lines)} 3")
    (tmp_path / "v.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "v.txt"


def test_average_of_the_words_found(vectors):
    encoder = WordVectors(vectors)
    found = encoder.encode(["the dog", "The Paris", "the unknown dog", "dog,", "nothing here", ""])
    expected = [[0.5, 1, 0], [0.5, 0, 1.5], [0.5, 1, 0], [2.5, 3.5, 2.5], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(found, expected)
    assert encoder.stats == {"sentences": 6, "zero_vectors": 2, "unknown_words": 3}
    assert encoder.provenance["name"] == f"word-vectors:{vectors.name}"


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        WordVectors(tmp_path / "none.txt")
    np.save(tmp_path / "v.npy", np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(UserError, match="no word list beside it"):
        WordVectors(tmp_path / "v.npy")
    (tmp_path / "words.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"has shape \(3, 2\), .* has 2 words"):
        WordVectors(tmp_path / "v.npy").encode(["a"])
    np.savez(tmp_path / "v.npz", np.zeros((2, 2)))
    (tmp_path / "v.npz").rename(tmp_path / "v.npy")
    with pytest.raises(UserError, match=r"v\.npy: several arrays \(\.npz\), expected one \(\.npy\)"):
        WordVectors(tmp_path / "v.npy").encode(["a"])
    (tmp_path / "v.txt").write_text("a 1 2\nb 1 x\n")
    with pytest.raises(UserError, match=r"v\.txt:2: expected a word and 2 numbers"):
        WordVectors(tmp_path / "v.txt").encode(["b"])


class Fixed:
    def encode(self, sentences):
        rng = np.random.default_rng(len(sentences))
        mix = np.array([[3, 0, 0], [1, 0.5, 0], [0, 2, 0.1]])
        return (rng.normal(size=(len(sentences), 3)) @ mix + 7).astype(np.float32)


def test_whitened_text_has_identity_covariance(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"s {i}" for i in range(200)) + "\n\n")
    encoder = Whitened(Fixed(), tmp_path / "text.txt")
    white = encoder.encode([f"s {i}" for i in range(200)])
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(3), atol=1e-3)
    assert encoder.provenance["whiten_sentences"] == 200


def test_directions_without_variance_are_dropped():
    x = np.random.default_rng(0).normal(size=(50, 2))
    mean, kernel = fit_whitening(np.c_[x, x.sum(axis=1), np.full(50, 4.0)].astype(np.float32))
    assert kernel.shape[0] == 4
    assert kernel.shape[1] in (2, 3)  # float32 sums leave a trace of a third direction
    assert mean[3] == 4


def test_whitening_needs_text(tmp_path):
    (tmp_path / "one.txt").write_text("only\n")
    with pytest.raises(UserError, match="1 sentences; a covariance needs at least 2"):
        Whitened(Fixed(), tmp_path / "one.txt")
    with pytest.raises(UserError, match=r"--whiten .*none.txt: no such file"):
        Whitened(Fixed(), tmp_path / "none.txt")
    with pytest.raises(UserError, match="all its embeddings are the same"):
        fit_whitening(np.ones((5, 3), dtype=np.float32))


def test_random_words_know_equal_words_and_nothing_else(cli, senteval):
    words = baselines.RandomWords(64)
    vectors = words.encode(["A dog runs.", "a dog runs .", "a cat runs .", "the house", ""])
    assert vectors.shape == (5, 64)
    np.testing.assert_array_equal(vectors[0], vectors[1])  # case and spacing of signs aside
    one = {w: words.encode([w])[0] for w in ("a", "dog", "runs", ".")}
    np.testing.assert_allclose(vectors[0], np.mean(list(one.values()), axis=0), rtol=1e-5)
    assert abs(one["dog"] @ words.encode(["puppy"])[0]) < 0.5 * one["dog"] @ one["dog"]
    np.testing.assert_array_equal(baselines.RandomWords(64).encode(["dog"])[0], one["dog"])
    done = cli("eval", "--model", "random-words", "--task", "stsb", "--data-dir", senteval, "-q", "--format", "json")
    assert done.code == 0, done.err
    assert '"random-words-300"' in done.out
    for wrong in ("random-words:1", "random-words:x", "random-words:"):
        done = cli("eval", "--model", wrong, "--task", "stsb", "--data-dir", senteval, "-q")
        assert (done.code, "expected random-words, or random-words:N" in done.err) == (2, True)


def test_a_byte_order_mark_is_no_part_of_the_text_to_whiten(tmp_path):
    seen = []

    class Noting(Fixed):
        def encode(self, sentences):
            seen.append(list(sentences))
            return super().encode(sentences)

    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfone dog\r\nA cat.\r\n")
    Whitened(Noting(), tmp_path / "text.txt")
    assert seen == [["one dog", "A cat."]]
