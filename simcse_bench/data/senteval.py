"""Where the data folder comes from: --data-dir or SIMCSE_BENCH_DATA, the cache, or the official archive on the Hub."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from simcse_bench.errors import UserError
from simcse_bench.files import ENV_CACHE, cache_dir
from simcse_bench.hub import hub_errors

REPO = "princeton-nlp/datasets-for-simcse"
ARCHIVE = "senteval.tar"
ENV_DATA = "SIMCSE_BENCH_DATA"
LAYOUT = """<folder>/STS/STS12-en-test/STS.input.MSRpar.txt, STS.gs.MSRpar.txt, ... (STS13 to STS16 likewise)
<folder>/STS/STSBenchmark/sts-dev.csv, sts-test.csv
<folder>/SICK/SICK_test_annotated.txt
(SentEval's own layout; <folder> may also be the folder that holds downstream/)"""
HOW_TO_CONFIGURE = f"For the real one: --data-dir, {ENV_DATA}, or `simcse-bench data fetch`."
MAX_BYTES = 2 * 1024**3  # unpacked; the official archive has about 0.3 GB
MAX_MEMBERS = 10_000
_READ = 1 << 16  # bytes; no header of the archive has as many
PROBING = "probing"  # SentEval's folder of the probing tasks, in its repository; the official archive has none
# folders of the archive
MARKERS = ("STS", "SICK", "MR", "CR", "SUBJ", "MPQA", "SST", "TREC", "MRPC")


@dataclass(frozen=True)
class DataSource:
    """Where evaluation data comes from, as the user says it; by default whatever is configured."""

    data_dir: str | Path | None = None  # in SentEval's layout; None: $SIMCSE_BENCH_DATA, the cache, the Hub
    tasks_dir: str | Path | None = None  # task files of the user's own
    revision: str = "main"  # of the official archive on the Hub


ANYWHERE = DataSource()


@dataclass(frozen=True)
class DataRoot:
    """A folder in SentEval's layout (``STS/``, ``SICK/``, ...) and how it was found."""

    path: Path
    origin: str


def cached_folder(revision: str) -> Path:
    """Where the archive of this revision is unpacked."""
    return cache_dir() / f"senteval-{revision.replace('/', '-')}"


def is_configured(where: DataSource = ANYWHERE) -> bool:
    """Whether real data was named, or lies in the cache: what ``find_root`` takes without a download."""
    return bool(_named(where)[0]) or _locate_cached(where.revision) is not None


def find_root(where: DataSource = ANYWHERE, download: bool = True) -> DataRoot:
    """The data folder: ``data_dir``, ``$SIMCSE_BENCH_DATA``, the cache, else a download of the official archive.

    Raises:
        UserError: the folder given has no data, or nothing is there and nothing can be downloaded.
    """
    folder, origin = _named(where)
    located = locate(Path(folder)) if folder else _locate_cached(where.revision)
    if located is not None:
        return DataRoot(located, origin if folder else f"cache, {REPO}@{where.revision}")
    if folder:
        raise UserError(f"{origin} {folder}: no data found there. Expected:\n{LAYOUT}")
    if not download:
        raise UserError(_nothing_found("no data in the cache"))
    return fetch_archive(where.revision)


def given_root(where: DataSource = ANYWHERE) -> DataRoot | None:
    """The folder that the user named, in SentEval's layout or not; None if there is none. Nothing is downloaded.

    Raises:
        UserError: no such folder.
    """
    folder, origin = _named(where)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise UserError(f"{origin} {folder}: no such folder.")
    return DataRoot(locate(Path(folder)) or Path(folder), origin)


def _named(where: DataSource) -> tuple[Path | str | None, str]:
    """The folder that the user named, if any, and where."""
    return (where.data_dir, "--data-dir") if where.data_dir else (os.environ.get(ENV_DATA), ENV_DATA)


def locate(folder: Path) -> Path | None:
    """The folder in SentEval's layout at or below ``folder``: itself, ``downstream/`` or ``data/downstream/``."""
    for below in ("", "downstream", "data/downstream", "SentEval/data/downstream", "senteval", "senteval/downstream"):
        if any((folder / below / marker).is_dir() for marker in MARKERS):
            return folder / below
    # the probing tasks alone
    return next((folder / below for below in ("", "data") if (folder / below / PROBING).is_dir()), None)


def _locate_cached(revision: str) -> Path | None:
    """``locate`` in the cache, where an unpacked archive may still wait for its name."""
    target = cached_folder(revision)
    return locate(target) or locate(_beside(target, "whole"))


def _beside(target: Path, stage: str) -> Path:
    """Folders of ``unpack``: "new" is being unpacked, "whole" is unpacked, "old" is being removed."""
    return target.with_name(f".{target.name}-{stage}")


def fetch_archive(revision: str = "main", force: bool = False) -> DataRoot:
    """Download the official archive (huggingface_hub) and unpack it into the cache, all or nothing."""
    import filelock

    target = cached_folder(revision)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_suffix(".lock")):
            _settle(target)
            if force or locate(target) is None:
                unpack(_download(revision, force), target)
    except OSError as error:
        raise UserError(f"cannot write the cache folder {target.parent}: {error}. Set {ENV_CACHE}.") from error
    located = locate(target)
    if located is None:
        raise UserError(f"{target} was removed while it was unpacked. Run `simcse-bench data fetch` again.")
    return DataRoot(located, f"downloaded, {REPO}@{revision}")


def _settle(target: Path) -> None:
    """Finish, or take back, what a killed ``unpack`` has left: the old data or the new, whole, under their name."""
    old, whole = _beside(target, "old"), _beside(target, "whole")
    if whole.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        whole.rename(target)
    for stage in ("new", "old"):
        shutil.rmtree(_beside(target, stage), ignore_errors=True)


def unpack(archive: Path, target: Path) -> None:
    """Unpack the regular files of a tar archive to ``target``, through a temporary folder that is renamed.

    Raises:
        UserError: a damaged archive, one without data in SentEval's layout, one with absolute paths, ``..``, links or
            devices, or one that is made to fill the memory or the disk; what was there stays as it was.
    """
    new = _beside(target, "new")
    try:
        _settle(target)
        new.mkdir()
        with _open_tar(archive) as stream, tarfile.open(fileobj=_Bounded(stream, archive.name), mode="r:") as tar:
            _unpack_members(tar, archive.name, new)
            _require_end_marker(tar)
        if locate(new) is None:
            raise UserError(f"{archive}: holds no data in SentEval's layout. Expected:\n{LAYOUT}")
        new.rename(_beside(target, "whole"))
        _settle(target)
    except (tarfile.TarError, EOFError, ValueError, RecursionError, zlib.error, lzma.LZMAError) as error:
        raise UserError(
            f"{archive.name}: damaged or cut off ({error}). Run `simcse-bench data fetch --force` to load it again."
        ) from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive.name} to {target}: {error}.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _unpack_members(tar: tarfile.TarFile, name: str, folder: Path) -> None:
    total = members = 0
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined] # tarfile keeps every header
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise UserError(f"{name}: refused, the path {member.name!r:.80} leads out of its folder.")
        if not (member.isfile() or member.isdir()):
            raise UserError(f"{name}: refused, {member.name!r:.80} is a link or a device.")
        total, members = total + abs(member.size), members + 1
        if total > MAX_BYTES or members > MAX_MEMBERS:
            raise UserError(f"{name}: refused, it unpacks to more than {MAX_BYTES >> 30} GB or {MAX_MEMBERS:,} files.")
        stream = tar.extractfile(member)
        if stream is None or path.name.startswith("._"):  # a folder; macOS's resource forks
            continue
        destination = folder / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        with destination.open("wb") as out:
            shutil.copyfileobj(stream, out, _READ)


def _open_tar(archive: Path) -> BinaryIO:
    """The archive's bytes, unpacked if it is compressed."""
    with archive.open("rb") as stream:
        start = stream.read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
    opener = next((opener for magic, opener in openers.items() if start.startswith(magic)), None)
    return archive.open("rb") if opener is None else opener(archive)


class _Bounded(io.RawIOBase):
    """A stream that is never read in large pieces: tarfile reads a header whole, and its size is what it says."""

    def __init__(self, stream: BinaryIO, name: str):
        self._stream, self._name = stream, name

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _READ:
            raise UserError(f"{self._name}: refused, a header of {size:,} bytes.")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _require_end_marker(tar: tarfile.TarFile) -> None:
    """tarfile takes an archive that is cut off inside a later header for a whole one: look for the closing zeros."""
    stream = tar.fileobj
    if stream is None:
        raise tarfile.ReadError("no file")
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("no end marker")


def _download(revision: str, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    with hub_errors(f"dataset {REPO}@{revision}", advice=_nothing_found(f"{ARCHIVE} could not be downloaded")):
        return Path(hf_hub_download(REPO, ARCHIVE, repo_type="dataset", revision=revision, force_download=force))


def _nothing_found(what: str) -> str:
    return (
        f"{what}. Set {ENV_DATA} (or --data-dir) to a folder with the data (`simcse-bench doctor` says what is here):\n"
        f"{LAYOUT}"
    )
