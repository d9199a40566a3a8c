"""Tokenised rows: what stands on disk, when it is used again, and when it is made again."""

import json
import os
import shutil

import numpy as np
import pytest
from tiny import sentences
from transformers import AutoTokenizer

from simcse_bench.errors import UserError
from simcse_bench.training import tokenised
from simcse_bench.training.tokenised import tokenise

TEXTS = sentences(2600, seed=11, longest=20)
PAIRS = list(zip(TEXTS[::2], TEXTS[1::2], strict=True))


class NeverAsked:
    def __getattr__(self, name):
        raise AssertionError(f"the tokenizer was asked for {name}")


def never_read():
    raise AssertionError("the rows were read")
    yield


@pytest.fixture(scope="session")
def tokenizer(bert):
    return AutoTokenizer.from_pretrained(bert)


def again(tmp_path, key="k1", columns=2):
    return tokenise(never_read(), columns, NeverAsked(), 16, key, tmp_path)


def names(tmp_path):
    return sorted(p.name for p in (tmp_path / "tokens").iterdir())


def test_equals_truncation_by_the_tokenizer(tokenizer, tmp_path):
    told = []
    found = tokenise(iter(PAIRS), 2, tokenizer, 16, "k1", tmp_path, told.append)
    expected = [tuple(tokenizer(text, truncation=True, max_length=16)["input_ids"] for text in row) for row in PAIRS]
    assert [found.row(i) for i in range(len(found))] == expected
    longer = sum(len(tokenizer(text)["input_ids"]) > 16 for row in PAIRS for text in row)
    assert 100 < longer < 2000
    tokens = sum(len(ids) for row in expected for ids in row)
    assert found.counts == {"rows": 1300, "empty": 0, "truncated": longer, "tokens": tokens}
    assert found.lengths().tolist() == [[len(ids) for ids in row] for row in expected]
    assert isinstance(found.tokens, np.memmap)
    assert (found.tokens.dtype, found.offsets.dtype) == (np.int32, np.int64)
    assert told == [1000, 1300]
    assert names(tmp_path) == ["k1"]
    with pytest.raises(IndexError):
        found.row(1300)


def test_empty_rows_are_dropped_and_counted(tokenizer, tmp_path):
    rows = [("a man", ""), ("a man", "runs"), (" \t", "x"), ("", ""), ("the dog", "the cat")]
    found = tokenise(rows, 2, tokenizer, 16, "k1", tmp_path)
    assert found.counts == {"rows": 2, "empty": 3, "truncated": 0, "tokens": 15}
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in found.row(1)] == ["the dog", "the cat"]
    with pytest.raises(UserError) as error:
        tokenise([("", "x")] * 3, 2, tokenizer, 16, "k2", tmp_path)
    assert error.value.problems[0].startswith("no row left to train on: 3 of 3 rows have an empty sentence.")
    with pytest.raises(UserError, match="0 of 0 rows"):
        tokenise([], 2, tokenizer, 16, "k2", tmp_path)
    assert names(tmp_path) == ["k1"]


def test_scores_stand_beside_the_tokens(tokenizer, tmp_path):
    gold = [i % 51 / 10 for i in range(len(PAIRS))]
    rows = [(*pair, f"{score:g}") for pair, score in zip(PAIRS, gold, strict=True)]
    rows.insert(3, ("a man", "runs", " "))
    found = tokenise(rows, 2, tokenizer, 16, "k1", tmp_path, scored=True)
    assert isinstance(found.scores, np.memmap)
    assert (found.scores.dtype, found.counts["rows"], found.counts["empty"]) == (np.float32, 1300, 1)
    assert found.scores.tolist() == np.array(gold, dtype=np.float32).tolist()
    plain = tokenise(PAIRS, 2, tokenizer, 16, "k2", tmp_path)
    assert plain.scores is None
    assert [found.row(i) for i in (0, 3, 1299)] == [plain.row(i) for i in (0, 3, 1299)]
    again = tokenise(never_read(), 2, NeverAsked(), 16, "k1", tmp_path, scored=True)
    assert (again.fingerprint, again.scores.tolist()) == (found.fingerprint, found.scores.tolist())
    other = tokenise([*rows[:-1], (*PAIRS[-1], "2.5")], 2, tokenizer, 16, "k3", tmp_path, scored=True)
    assert len({found.fingerprint, plain.fingerprint, other.fingerprint}) == 3
    with (tmp_path / "tokens" / "k1" / "scores.bin").open("r+b") as stream:
        stream.write(b"\x01")
    with pytest.raises(AssertionError):
        tokenise(never_read(), 2, NeverAsked(), 16, "k1", tmp_path, scored=True)
    mended = tokenise(rows, 2, tokenizer, 16, "k1", tmp_path, scored=True)
    assert mended.fingerprint == found.fingerprint
    with pytest.raises(UserError, match="2 of 2 rows have an empty sentence or score"):
        tokenise([("a", "b", "")] * 2, 2, tokenizer, 16, "k4", tmp_path, scored=True)
    with pytest.raises(ValueError, match="rows of 2 sentences and a score"):
        tokenise(PAIRS, 2, tokenizer, 16, "k4", tmp_path, scored=True)


def test_a_batch_of_empty_rows(tokenizer, tmp_path):
    found = tokenise([("",)] * 2500 + [("a man",)], 1, tokenizer, 16, "k1", tmp_path)
    assert found.counts == {"rows": 1, "empty": 2500, "truncated": 0, "tokens": 4}


def test_what_is_there_is_used_again(tokenizer, tmp_path):
    first = tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)
    second = again(tmp_path)
    assert second.counts == first.counts
    assert second.fingerprint == first.fingerprint
    assert second.row(7) == first.row(7)
    other = tokenise(PAIRS[:-1], 2, tokenizer, 16, "k2", tmp_path)
    shorter = tokenise(PAIRS, 2, tokenizer, 15, "k3", tmp_path)
    flat = tokenise([(text,) for row in PAIRS for text in row], 1, tokenizer, 16, "k4", tmp_path)
    assert len({first.fingerprint, other.fingerprint, shorter.fingerprint}) == 3
    assert (len(flat), flat.fingerprint) == (2600, first.fingerprint)  # the same tokens and offsets
    assert again(tmp_path, "k2").fingerprint == other.fingerprint
    elsewhere = tokenise(iter(PAIRS), 2, tokenizer, 16, "k1", tmp_path / "elsewhere")
    assert elsewhere.fingerprint == first.fingerprint


def cut(folder):
    os.truncate(folder / "tokens.bin", 1000)


def flip(folder):
    with (folder / "offsets.bin").open("r+b") as stream:
        stream.seek(80)
        stream.write(b"\x01")


def no_meta(folder):
    (folder / "meta.json").unlink()


def bad_meta(folder):
    (folder / "meta.json").write_text("[]")


def other_schema(folder):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"schema": 0}))


def no_tokens(folder):
    (folder / "tokens.bin").unlink()


def a_file(folder):
    shutil.rmtree(folder)
    folder.touch()


@pytest.mark.parametrize("damage", [cut, flip, no_meta, bad_meta, other_schema, no_tokens])
def test_a_damaged_folder_is_made_again(damage, tokenizer, tmp_path):
    first = tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)
    expected = first.row(5)
    damage(tmp_path / "tokens" / "k1")
    with pytest.raises(AssertionError):
        again(tmp_path)
    mended = tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)
    assert (mended.fingerprint, mended.row(5)) == (first.fingerprint, expected)
    assert again(tmp_path).counts == first.counts
    assert names(tmp_path) == ["k1"]


def test_another_process_was_faster(tokenizer, tmp_path):
    def rows():
        yield from PAIRS
        tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)  # done while this one is at work
        stamps.append((tmp_path / "tokens" / "k1" / "meta.json").stat().st_ino)

    stamps = []
    found = tokenise(rows(), 2, tokenizer, 16, "k1", tmp_path)
    assert (tmp_path / "tokens" / "k1" / "meta.json").stat().st_ino == stamps[0]
    assert len(found) == 1300
    assert names(tmp_path) == ["k1"]


def test_nothing_is_left_behind_when_reading_fails(tokenizer, tmp_path):
    def rows():
        yield from PAIRS
        raise UserError("a.csv:7: malformed")

    with pytest.raises(UserError, match=r"a.csv:7: malformed"):
        tokenise(rows(), 2, tokenizer, 16, "k1", tmp_path)
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_written(tokenizer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as error:
        tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path / "file")
    assert error.value.problems == (
        f"cannot write the tokenised data to the cache folder {tmp_path / 'file'}: Not a directory. "
        "Set SIMCSE_BENCH_CACHE to a folder with enough room.",
    )
    tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)
    a_file(tmp_path / "tokens" / "k1")
    with pytest.raises(UserError, match="cannot write the tokenised data"):
        tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)
    assert names(tmp_path) == ["k1"]


def test_a_full_disk(tokenizer, tmp_path, monkeypatch):
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("this system has no /dev/full")
    make = tokenised.tempfile.mkdtemp

    def small(**arguments):
        folder = make(**arguments)
        os.symlink("/dev/full", f"{folder}/tokens.bin")  # noqa: PTH211
        return folder

    monkeypatch.setattr(tokenised.tempfile, "mkdtemp", small)
    with pytest.raises(UserError, match=r"No space left on device. Set SIMCSE_BENCH_CACHE"):
        tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)
    assert names(tmp_path) == []


def test_max_length_leaves_room_for_words(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"max_length 2: 2 of them are special tokens; expected more than that."):
        tokenise(PAIRS, 2, tokenizer, 2, "k1", tmp_path)
    assert tokenise(PAIRS, 2, tokenizer, 3, "k1", tmp_path).counts["tokens"] == 2600 * 3


def test_a_tokenizer_in_python_counts_the_same(tokenizer, tmp_path):
    class InPython:
        """Like a tokenizer without the Rust library: no encodings that tell what was cut."""

        def __init__(self):
            self.num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

        def __call__(self, texts, **settings):
            found = tokenizer(texts, **settings)
            return type(found)(dict(found))

    fast = tokenise(PAIRS, 2, tokenizer, 16, "k1", tmp_path)
    slow = tokenise(PAIRS, 2, InPython(), 16, "k2", tmp_path)
    assert (slow.counts, slow.fingerprint) == (fast.counts, fast.fingerprint)
