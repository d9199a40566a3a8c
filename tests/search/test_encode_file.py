"""encode: a file of vectors, whole or not there, the same after a kill."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from kill_points import kill_points
from tiny import sentences, tiny_bert

from simcse_bench.errors import Stopped, UserError
from simcse_bench.search import encode_file
from simcse_bench.search.encode_file import require_target
from simcse_bench.search.simcse import SimCSE


@pytest.fixture(scope="module")
def model(bert):
    return SimCSE(str(bert), pooling="mean", device="cpu")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    lines = sentences(50)
    path.write_text("\n".join([*lines[:10], "", "  ", *lines[10:]]) + "\n", encoding="utf-8")
    return path, lines


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(encode_file, "BLOCK", 8)


def encode(model, path, target, **options):
    return encode_file.encode_file(model, str(path), Path(target), **options)


class Killed(BaseException):
    """Stands for a kill: nothing may catch it and tidy up."""


def dying(after, what=Killed):
    def progress(done, total):
        if done >= after:
            raise what

    return progress


@pytest.mark.parametrize("normalize", [True, False])
def test_the_vectors_are_those_of_encode(model, text, normalize):
    path, lines = text
    record = encode(model, path, "v.npy", normalize=normalize)
    found = np.load("v.npy", allow_pickle=False)
    assert (found.shape, found.dtype) == ((50, 32), np.float32)
    np.testing.assert_allclose(found, model.encode(lines, return_numpy=True, normalize_to_unit=normalize), atol=1e-5)
    about = json.loads(Path("v.npy.json").read_text("utf-8"))
    assert (about["sentences"], about["blank"], about["dimension"]) == (50, 2, 32)
    assert (record.sentences, record.blank, about["normalized"]) == (50, 2, normalize)
    assert about["model"]["pooling"] == "mean"
    assert set(about["model"]["files"]) >= {"model.safetensors"}
    assert sorted(p.name for p in Path().iterdir()) == ["text.txt", "v.npy", "v.npy.json"]


def test_no_more_than_a_block_is_held(model, text, monkeypatch):
    real, sizes = model.encode, []
    monkeypatch.setattr(model, "encode", lambda block, **kw: sizes.append(len(block)) or real(block, **kw))
    encode(model, text[0], "v.npy")
    assert sizes == [8, 8, 8, 8, 8, 8, 2]


def test_parquet_keeps_row_numbers_and_sentences(model, text):
    import pyarrow.parquet as pq

    path, lines = text
    encode(model, path, "v.parquet")
    encode(model, path, "v.npy")
    table = pq.read_table("v.parquet")
    assert table["row"].to_pylist() == [*range(1, 11), *range(13, 53)]
    assert table["sentence"].to_pylist() == lines
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), np.load("v.npy"))
    assert json.loads(table.schema.metadata[b"simcse_bench"])["model"]["name"] == "tiny-bert"


@pytest.mark.parametrize("target", ["v.npy", "v.parquet"])
@pytest.mark.parametrize("after", [8, 24, 50])
def test_after_a_kill_the_same_call_goes_on(model, text, target, after, monkeypatch):
    path, _ = text
    whole = Path("whole") / target
    encode(model, path, whole)
    with pytest.raises(Killed):
        encode(model, path, target, progress=dying(after))
    assert not Path(target).exists()
    assert Path(f"{target}.part").is_dir()
    with Path(f"{target}.part/vectors.npy").open("ab") as stream:  # a block half written when it was killed
        stream.write(b"half a vector")
    embedded, notes = [], []
    real = model.encode
    monkeypatch.setattr(model, "encode", lambda block, **kw: embedded.extend(block) or real(block, **kw))
    encode(model, path, target, say=notes.append)
    assert len(embedded) == 50 - after
    assert notes == [f"going on after {after} of 50 sentences"]
    assert Path(target).read_bytes() == whole.read_bytes()
    assert not Path(f"{target}.part").exists()


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_half_written(bert, tmp_path, monkeypatch):
    lines = [f"{a} {b}" for a, b in zip(sentences(6000), sentences(6000, seed=1), strict=True)]
    (tmp_path / "big.txt").write_text("\n".join(lines), "utf-8")
    command = [
        sys.executable,
        "-m",
        "simcse_bench",
        "encode",
        "big.txt",
        "--model",
        bert,
        "--pooling",
        "mean",
        "--device",
        "cpu",
        "--out",
        "v.npy",
        "--progress",
        "none",
    ]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    state = Path("v.npy.part/state.json")
    while process.poll() is None and not state.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not Path("v.npy").exists():  # else it was faster than the kill
        assert json.loads(state.read_text("utf-8"))["done"] % 4096 == 0
    model = SimCSE(str(bert), pooling="mean", device="cpu")
    monkeypatch.setattr(encode_file, "BLOCK", 4096)
    assert encode(model, "big.txt", "v.npy").sentences == 6000
    found = np.load("v.npy", allow_pickle=False)
    assert found.shape == (6000, 32)
    some = [0, 4095, 4096, 5999]
    wanted = model.encode([lines[i] for i in some], return_numpy=True)
    np.testing.assert_allclose(found[some], wanted, atol=1e-5)


def test_ctrl_c_says_where_it_goes_on(model, text):
    with pytest.raises(Stopped, match="stopped after 16 sentences; the same command goes on") as caught:
        encode(model, text[0], "v.npy", progress=dying(16, KeyboardInterrupt))
    assert caught.value.code == 130
    assert encode(model, text[0], "v.npy").sentences == 50


def test_what_is_there_is_kept_or_refused(model, bert, text, monkeypatch):
    path, _ = text
    first = encode(model, path, "v.npy")
    before = Path("v.npy").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(model, "encode", None)  # nothing is embedded again
        assert encode(model, path, "v.npy") == first
    other = SimCSE(str(bert), pooling="cls", head="none", device="cpu")
    with pytest.raises(UserError, match=r"v\.npy: exists, and is not of this text, model and settings. Give --force"):
        encode(other, path, "v.npy")
    assert Path("v.npy").read_bytes() == before
    encode(other, path, "v.npy", force=True)
    assert Path("v.npy").read_bytes() != before


def test_anothers_unfinished_part_is_not_gone_on_with(model, bert, text):
    path, lines = text
    with pytest.raises(Killed):
        encode(model, path, "v.npy", progress=dying(16))
    path.write_text("\n".join(reversed(lines)), "utf-8")
    with pytest.raises(UserError, match=r"v\.npy\.part: the unfinished part of another text"):
        encode(model, path, "v.npy")
    encode(model, path, "v.npy", force=True)
    np.testing.assert_allclose(np.load("v.npy"), model.encode(lines[::-1], return_numpy=True), atol=1e-5)


def test_what_has_not_begun_is_in_nobodys_way(model, bert, text):
    path, _ = text

    def fails(model, blocks, normalize):
        raise UserError("no cluster")

    with pytest.raises(UserError, match="no cluster"):
        encode(model, path, "v.npy", embed=fails)
    assert not Path("v.npy.part").exists()
    with pytest.raises(Killed):
        encode(model, path, "v.npy", progress=dying(0))
    other = SimCSE(str(bert), pooling="cls", head="none", device="cpu")
    encode(other, path, "v.npy")
    np.testing.assert_array_equal(np.load("v.npy"), other.encode(text[1], return_numpy=True))


def test_a_part_cut_short_is_noticed(model, text):
    with pytest.raises(Killed):
        encode(model, text[0], "v.npy", progress=dying(16))
    data = Path("v.npy.part/vectors.npy")
    data.write_bytes(data.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"damaged, or not what state\.json was written for\. Give --force"):
        encode(model, text[0], "v.npy")
    assert encode(model, text[0], "v.npy", force=True).sentences == 50


def test_two_commands_do_not_write_the_same(model, text):
    def nested(done, total):
        with pytest.raises(UserError, match=r"v\.npy\.part: another command is writing there"):
            encode(model, text[0], "v.npy")

    encode(model, text[0], "v.npy", progress=nested)


def test_bad_text_is_refused_before_the_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "encode", None)
    (tmp_path / "bad.txt").write_bytes(b"fine\n" * 20 + b"\x00\xfe\n")
    (tmp_path / "blank.txt").write_bytes(b"\n  \n")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "two.csv").write_text("a,b\nx,y\n", "utf-8")
    (tmp_path / "text.pdf").write_bytes(b"%PDF")
    for name, message in (
        ("bad.txt", r"bad\.txt:21: not utf-8 text \(byte 0xfe\)"),
        ("blank.txt", "2 lines, all blank"),
        ("empty.txt", "no rows"),
        ("two.csv", "2 text columns, expected 1. It has: a, b. Name it: --column NAME"),
        ("text.pdf", "unknown suffix '.pdf'"),
        ("none.txt", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            encode(model, tmp_path / name, "v.npy")
    assert not list(Path().glob("v.npy*"))


def test_a_column_is_chosen(model, tmp_path):
    (tmp_path / "two.csv").write_text("a,b\nx,a dog .\n", "utf-8")
    encode(model, tmp_path / "two.csv", "v.npy", column="b")
    np.testing.assert_allclose(np.load("v.npy")[0], model.encode("a dog .", return_numpy=True), atol=1e-6)


def test_bad_targets_are_refused(tmp_path):
    for name, message in (("v.csv", "unknown suffix '.csv'. Known:\n  .npy"), ("v", "unknown suffix ''")):
        with pytest.raises(UserError, match=message):
            require_target(tmp_path / name)
    (tmp_path / "d.npy").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        require_target(tmp_path / "d.npy")
    with pytest.raises(UserError, match="cannot write"):
        require_target(Path("/proc/v.npy"))


def test_a_full_disk_leaves_what_is_done(model, text, monkeypatch):
    real, calls = encode_file.write_json, []

    def full(path, *content):
        calls.append(path)
        if len(calls) == 4:  # the first is written before anything is embedded
            raise OSError(28, "No space left on device")
        real(path, *content)

    monkeypatch.setattr(encode_file, "write_json", full)
    with pytest.raises(UserError, match=r"No space left on device\. The same command goes on once that is mended"):
        encode(model, text[0], "v.npy")
    monkeypatch.setattr(encode_file, "write_json", real)
    notes = []
    encode(model, text[0], "v.npy", say=notes.append)
    assert notes == ["going on after 16 of 50 sentences"]


def test_truncated_sentences_are_counted(bert, tmp_path):
    (tmp_path / "long.txt").write_text("a dog .\n" + "a " * 30 + "\n", "utf-8")
    model = SimCSE(str(tiny_bert(tmp_path / "m")), pooling="mean", device="cpu", max_length=10)
    assert encode(model, tmp_path / "long.txt", "v.npy").truncated == 1


class Letters:
    """Stands for a model in a fork: a vector counts letters."""

    provenance = {"name": "letters", "pooling": "mean", "head": "none", "files": {}}  # noqa: RUF012
    stats = {"truncated": 0}  # noqa: RUF012

    def __init__(self, scale=1.0):
        self.scale = scale
        self.provenance = {**Letters.provenance, "note": str(scale), "files": {"scale": str(scale)}}

    def encode(self, block, return_numpy=True, normalize_to_unit=True):
        return np.array([[self.scale * text.count(x) for x in "aeio"] for text in block], dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("target", ["v.npy", "v.parquet"])
def test_killed_at_any_point_the_vectors_are_those_of_before_or_whole(text, target, earlier, monkeypatch):
    path, _ = text
    monkeypatch.setattr(encode_file, "BLOCK", 30)
    encode(Letters(), path, Path("new") / target)
    encode(Letters(2.0), path, Path("old") / target)
    new, old = ((Path(x) / target).read_bytes() for x in ("new", "old"))
    here = Path("here")

    def prepare():
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        if earlier:
            encode(Letters(2.0), path, here / target)

    points = 0
    for point in kill_points(lambda: encode(Letters(), path, here / target, force=earlier), prepare):
        points += 1
        there = (here / target).read_bytes() if (here / target).exists() else None
        assert there in ([old, new] if earlier else [None, new]), point
        if earlier and there == old:  # never called finished: refused, or gone on with
            with suppress(UserError):
                encode(Letters(), path, here / target)
                assert (here / target).read_bytes() == new, point
        encode(Letters(), path, here / target, force=earlier)
        assert (here / target).read_bytes() == new, point
        assert encode(Letters(), path, here / target).sentences == 50
        assert sorted(p.name for p in here.iterdir()) == [target, f"{target}.json"], point
    assert points > 20


def test_vectors_that_are_not_those_of_the_record_are_not_called_finished(text):
    encode(Letters(), text[0], "v.npy")
    whole = Path("v.npy").read_bytes()
    Path("v.npy").write_bytes(whole[:-4] + b"\0\0\0\0")
    with pytest.raises(
        UserError, match=r"v\.npy: is not the file of its record v\.npy\.json: damaged or replaced\. Give"
    ):
        encode(Letters(), text[0], "v.npy")
    encode(Letters(), text[0], "v.npy", force=True)
    assert Path("v.npy").read_bytes() == whole


def test_another_programs_files_are_left_alone(text):
    Path("v.npy.part").mkdir()
    Path("v.npy.part/vectors.npy").write_bytes(b"mine")
    Path("v.npy.part/thesis.txt").write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(UserError, match=r"v\.npy\.part: is no unfinished part of a file of vectors"):
            encode(Letters(), text[0], "v.npy", force=force)
    shutil.rmtree("v.npy.part")
    Path("v.npy.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match=r"v\.npy\.json: not the record of a file of vectors\. Give --force"):
        encode(Letters(), text[0], "v.npy")
    assert Path("v.npy.json").read_text("utf-8") == "{}"
    assert sorted(p.name for p in Path().iterdir()) == ["text.txt", "v.npy.json"]
