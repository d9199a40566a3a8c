"""Where the data folder comes from: --data-dir or SIMCSE_BENCH_DATA, the cache, or the official archive on the Hub."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
_MARKERS = ("STS", "SICK", "MR", "CR", "SUBJ", "MPQA", "SST", "TREC", "MRPC")


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
    return bool(_named(where)[0]) or locate(cached_folder(where.revision)) is not None


def find_root(where: DataSource = ANYWHERE, download: bool = True) -> DataRoot:
    """The data folder: ``data_dir``, ``$SIMCSE_BENCH_DATA``, the cache, else a download of the official archive.

    Raises:
        UserError: the folder given has no data, or nothing is there and nothing can be downloaded.
    """
    folder, origin = _named(where)
    located = locate(Path(folder) if folder else cached_folder(where.revision))
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
        if any((folder / below / marker).is_dir() for marker in _MARKERS):
            return folder / below
    return None


def fetch_archive(revision: str = "main", force: bool = False) -> DataRoot:
    """Download the official archive (huggingface_hub) and unpack it into the cache, all or nothing."""
    import filelock

    target = cached_folder(revision)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the cache folder {target.parent}: {error}. Set {ENV_CACHE}.") from error
    with filelock.FileLock(target.with_suffix(".lock")):
        if force or locate(target) is None:
            unpack(_download(revision, force), target)
    located = locate(target)
    if located is None:
        shutil.rmtree(target, ignore_errors=True)
        raise UserError(f"{REPO}@{revision}: {ARCHIVE} holds no data in SentEval's layout. Expected:\n{LAYOUT}")
    return DataRoot(located, f"downloaded, {REPO}@{revision}")


def unpack(archive: Path, target: Path) -> None:
    """Unpack the regular files of a tar archive to ``target``, through a temporary folder that is renamed.

    Raises:
        UserError: a damaged archive, or one with absolute paths, ``..``, links or devices; nothing is left behind.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with tarfile.open(archive, "r:*") as tar:
            total = 0
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                    raise UserError(f"{archive.name}: refused, the path {member.name!r} leads out of its folder.")
                if not (member.isfile() or member.isdir()):
                    raise UserError(f"{archive.name}: refused, {member.name!r} is a link or a device.")
                total += member.size
                if total > MAX_BYTES:
                    raise UserError(f"{archive.name}: refused, it unpacks to more than {MAX_BYTES >> 30} GB.")
                stream = tar.extractfile(member)
                if stream is None or path.name.startswith("._"):  # a folder; macOS's resource forks
                    continue
                destination = temporary / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with destination.open("wb") as out:
                    shutil.copyfileobj(stream, out)
            _require_end_marker(tar)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"{archive.name}: damaged or cut off ({error}). Run `simcse-bench data fetch --force` to load it again."
        ) from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive.name} to {target}: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    return f"{what}. Set {ENV_DATA} (or --data-dir) to a folder with the data:\n{LAYOUT}"
