import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from kill_points import kill_points

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


def header(name, kind, size):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path, kind, packed):
    """Gigabytes that take no place on the disk; with a gigabyte of memory, reading them whole would be an error."""
    size = 300 << 20 if packed else 3 << 30
    archive = tmp_path / "a.tar"
    if packed:
        with gzip.open(archive, "wb", compresslevel=1) as out:
            out.write(header("././@x", kind, size))
            for _ in range(size >> 20):
                out.write(bytes(1 << 20))
    else:
        archive.write_bytes(header("././@x", kind, size))
        os.truncate(archive, size + 2048)
    code = (
        "import resource, sys\nfrom pathlib import Path\nresource.setrlimit(resource.RLIMIT_AS, (250 << 20,) * 2)\n"
        "from simcse_bench.data.senteval import unpack\nfrom simcse_bench.errors import UserError\n"
        "try:\n    unpack(Path('a.tar'), Path('cache'))\nexcept UserError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert run.stdout == f"a.tar: refused, a header of {size:,} bytes.\n", run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_many_headers_are_refused(tmp_path, monkeypatch):
    target = tmp_path / "senteval-main"
    (tmp_path / "a.tar").write_bytes(header("././@x", tarfile.XGLTYPE, 0) * 100_000)  # tarfile goes down one by one
    with pytest.raises(UserError, match="damaged or cut off"):
        senteval.unpack(tmp_path / "a.tar", target)
    monkeypatch.setattr(senteval, "MAX_MEMBERS", 10)
    with pytest.raises(UserError, match="more than 2 GB or 10 files"):
        senteval.unpack(tar(tmp_path / "a.tar", *[file(f"STS/{i}") for i in range(11)]), target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_a_compressed_archive(tmp_path):
    for mode in ("w:gz", "w:bz2", "w:xz"):
        senteval.unpack(tar(tmp_path / "a.tar", file("STS/a", b"1" * 200_000), mode=mode), tmp_path / "senteval-main")
        assert (tmp_path / "senteval-main/STS/a").stat().st_size == 200_000
        whole = (tmp_path / "a.tar").read_bytes()
        (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match="damaged or cut off"):
            senteval.unpack(tmp_path / "a.tar", tmp_path / "senteval-main")
        assert (tmp_path / "senteval-main/STS/a").stat().st_size == 200_000


def test_an_archive_without_data_leaves_the_data_that_is_there(tmp_path):
    (tmp_path / "senteval-main/STS").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no data in SentEval's layout"):
        senteval.unpack(tar(tmp_path / "a.tar", file("x/y")), tmp_path / "senteval-main")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "senteval-main"]
    assert (tmp_path / "senteval-main/STS").is_dir()


@pytest.mark.parametrize("earlier", [False, True])
def test_killed_at_any_point_the_data_is_the_old_or_the_new(tmp_path, monkeypatch, earlier):
    cache = tmp_path / "cache"
    monkeypatch.setenv("SIMCSE_BENCH_CACHE", str(cache))
    names = [f"STS/{i}/a" for i in range(3)]
    archives = [tar(tmp_path / f"{c}.tar", *(file(name, c.encode()) for name in names)) for c in "on"]
    monkeypatch.setattr(senteval, "_download", lambda revision, force: archives[1])

    def prepare():
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        if earlier:
            senteval.unpack(archives[0], senteval.cached_folder("main"))

    def content(root):
        return {(root / name).read_text() for name in names}

    points = 0
    for point in kill_points(lambda: senteval.fetch_archive("main", force=True), prepare):
        points += 1
        assert senteval.is_configured() or not earlier, point
        if senteval.is_configured():
            found = senteval.find_root().path
            assert content(found) in ([{"o"}, {"n"}] if earlier else [{"n"}]), point
        senteval.fetch_archive("main")  # finishes, or takes back; a kill leaves nothing for good
        assert content(senteval.find_root().path) in ([{"o"}, {"n"}] if earlier else [{"n"}]), point
        assert {p.name for p in cache.iterdir()} <= {"senteval-main", "senteval-main.lock"}, point
    assert points > 20


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
