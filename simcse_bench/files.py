"""Files: written whole or not at all, JSON read, checksums, locks, the cache folder; the machine, for the record."""

from __future__ import annotations

import datetime
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from simcse_bench import __version__
from simcse_bench.errors import UserError

ENV_CACHE = "SIMCSE_BENCH_CACHE"
_LOCK = ".lock"
_LONGEST_PART = 255  # bytes of a file's name, on every usual file system
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy")


class Environment(TypedDict):
    """Versions and machine, as a file of ours holds them."""

    processor: str
    cores: int | None
    versions: Mapping[str, str]
    gpu: NotRequired[str]


def cache_dir() -> Path:
    """``$SIMCSE_BENCH_CACHE``, else ``$XDG_CACHE_HOME/simcse-bench``, else ``~/.cache/simcse-bench``.

    Raises:
        UserError: none of them is set, and the user has no home folder.
    """
    if os.environ.get(ENV_CACHE):
        return Path(os.environ[ENV_CACHE])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simcse-bench"
    except RuntimeError:
        raise UserError(f"no cache folder: this user has no home folder. Set {ENV_CACHE} to a folder.") from None


def shown_name(name: str) -> str:
    """A folder's name in reports: as given when relative, without the machine's own path when absolute."""
    path = Path(name)
    return path.name if path.is_absolute() or ".." in path.parts else path.as_posix()


def read_json(path: Path) -> Any:
    """Content of a JSON file; UserError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error}).") from error


def write_json(path: Path, content: Any, indent: int | None = 1, allow_nan: bool = True) -> None:
    """``write_text`` of JSON."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=allow_nan, default=str) + "\n")


def fingerprint(content: Any) -> str:
    """First 16 hex digits of the SHA-256 of bytes, or of anything that JSON can hold."""
    whole = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True, default=str).encode()
    return hashlib.sha256(whole).hexdigest()[:16]


def sha256(path: Path) -> str:
    """First 16 hex digits of a file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


@contextmanager
def lock_folder(folder: Path, doing: str = "training") -> Iterator[None]:
    """Keep other commands from a folder; the lock ends with its process. ``doing`` what, for their error.

    Raises:
        UserError: another command is at work there.
    """
    import filelock

    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{folder}: another command is {doing} there. Wait for it or choose another --out.") from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / _LOCK).unlink()
        lock.release()
        if new:
            with suppress(OSError):  # left where something was written
                folder.rmdir()


def require_writable(path: Path) -> None:
    """UserError if a file could not be written there; tried before the work, leaving nothing behind."""
    try:
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        long = [part for part in path.parts if len(os.fsencode(part)) > _LONGEST_PART]
        if long:
            raise OSError(errno.ENAMETOOLONG, f"a name of {len(os.fsencode(long[0]))} bytes")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Choose another --out.") from error


def write_text(path: Path, text: str) -> None:
    """``write_bytes`` of a text in UTF-8."""
    write_bytes(path, text.encode())


def _mode(path: Path) -> int:
    """The mode of the file that is replaced, or what the user's mask leaves of a new one's."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return 0o666 & ~_mask()


@functools.cache
def _mask() -> int:
    mask = os.umask(0o077)  # it can be read by setting it only
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary one that is renamed; UserError where the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            Path(temporary).chmod(_mode(path))
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "Free some space, or choose another place." if full else "Choose another place."
        raise UserError(f"cannot write {path}: {error.strerror or error}. {advice}") from error


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions and machine, for the record; of several GPUs ("cuda:0,cuda:1") all names."""
    import torch

    versions = {"simcse-bench": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    machine = {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        machine["gpu"] = " + ".join(map(torch.cuda.get_device_name, device.split(",")))
    return {"python": platform.python_version(), "system": platform.system(), **machine, "versions": versions}


def shown_machine(environment: Mapping[str, Any]) -> str:
    """The machine of an ``environment``, on a line."""
    gpu = f", {environment['gpu']}" if "gpu" in environment else ""
    return f"{environment['processor']}, {environment['cores']} cores{gpu}"


def shown_versions(environment: Mapping[str, Any]) -> str:
    """The versions of an ``environment``, on a line."""
    return ", ".join(f"{package} {version}" for package, version in environment["versions"].items())


def now() -> str:
    """The time, for the record."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()
