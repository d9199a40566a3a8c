import io
import tarfile

import pytest

from simcse_bench.data import senteval
from simcse_bench.errors import UserError


def tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as out:
        for name, content, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def file(name, content=b"x"):
    return name, content, tarfile.REGTYPE, ""


def test_unpack_and_locate(tmp_path):
    source = tar(tmp_path / "a.tar", file("STS/STSBenchmark/sts-dev.csv", b"row"), file("STS/._junk"))
    target = tmp_path / "cache" / "senteval-main"
    target.parent.mkdir()
    senteval.unpack(source, target)
    assert (target / "STS/STSBenchmark/sts-dev.csv").read_bytes() == b"row"
    assert not (target / "STS/._junk").exists()
    assert senteval.locate(target) == target
    assert [p.name for p in target.parent.iterdir()] == ["senteval-main"]


@pytest.mark.parametrize(
    "bad",
    [
        file("/etc/evil"), file("../evil"), file("STS/../../evil"), file("STS\\..\\evil"),
        ("STS/link", b"", tarfile.SYMTYPE, "/etc/passwd"), ("STS/hard", b"", tarfile.LNKTYPE, "STS/a"),
        ("STS/pipe", b"", tarfile.FIFOTYPE, ""), ("STS/dev", b"", tarfile.CHRTYPE, ""),
    ],
)  # fmt: skip
def test_dangerous_members_are_refused_and_leave_nothing(tmp_path, bad):
    target = tmp_path / "cache" / "senteval-main"
    target.parent.mkdir()
    with pytest.raises(UserError, match="refused"):
        senteval.unpack(tar(tmp_path / "a.tar", file("STS/a"), bad), target)
    assert list(target.parent.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(senteval, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="unpacks to more than"):
        senteval.unpack(tar(tmp_path / "a.tar", file("STS/a", b"0" * 11)), tmp_path / "senteval-main")
    assert not (tmp_path / "senteval-main").exists()


@pytest.mark.parametrize("cut", [100, 700, 5000])
def test_a_truncated_archive_leaves_nothing(tmp_path, cut):
    whole = tar(tmp_path / "a.tar", file("STS/a", b"1" * 4000), file("STS/b", b"2" * 4000))
    whole.write_bytes(whole.read_bytes()[:cut])
    target = tmp_path / "cache" / "senteval-main"
    target.parent.mkdir()
    with pytest.raises(UserError, match="damaged or cut off"):
        senteval.unpack(whole, target)
    assert list(target.parent.iterdir()) == []


def test_an_interrupt_while_unpacking_leaves_nothing_and_keeps_the_old_data(tmp_path, monkeypatch):
    target = tmp_path / "cache" / "senteval-main"
    (target / "STS").mkdir(parents=True)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(senteval.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        senteval.unpack(tar(tmp_path / "a.tar", file("STS/a")), target)
    assert [p.name for p in target.parent.iterdir()] == ["senteval-main"]
    assert (target / "STS").is_dir()


def test_order_of_the_sources(tmp_path, monkeypatch):
    folders = {}
    for name in ("option", "variable"):
        folders[name] = tmp_path / name
        (folders[name] / "downstream" / "STS").mkdir(parents=True)
    cached = senteval.cached_folder("main")
    (cached / "SICK").mkdir(parents=True)
    assert senteval.find_root().path == cached
    monkeypatch.setenv("SIMCSE_BENCH_DATA", str(folders["variable"]))
    assert senteval.find_root().path == folders["variable"] / "downstream"
    assert senteval.find_root(senteval.DataSource(folders["option"])).path == folders["option"] / "downstream"
    assert senteval.find_root(senteval.DataSource(folders["option"])).origin == "--data-dir"


def test_a_folder_without_data_is_named_with_the_layout(tmp_path):
    with pytest.raises(UserError, match="no data found there") as error:
        senteval.find_root(senteval.DataSource(tmp_path))
    assert "STS/STSBenchmark/sts-dev.csv" in str(error.value)


def test_offline_with_nothing_cached_names_variable_and_layout():
    with pytest.raises(UserError) as error:
        senteval.find_root()
    for part in ("SIMCSE_BENCH_DATA", "STS/STS12-en-test/STS.input.MSRpar.txt", "HF_HUB_OFFLINE"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="no data in the cache"):
        senteval.find_root(download=False)
