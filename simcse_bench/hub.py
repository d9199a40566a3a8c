"""The Hugging Face Hub: download a model's files once, and say plainly what went wrong when that fails."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simcse_bench.errors import Unavailable, UserError, first_line

_CONFIG_FILES = ("*.json", "*.txt", "*.model", "bpe.codes")  # configs, vocabularies, sentence-transformers modules
_SAFETENSORS = ("model.safetensors", "model-*.safetensors", "*/model.safetensors", "adapter_model.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "*/pytorch_model.bin", "adapter_model.bin")
# where transformers and peft look for weights first
_SAFE = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
_DECIDING = ("config.json", "*/config.json", "modules.json", "*sentence_bert_config.json", "simcse_bench.json",
             "config_sentence_transformers.json", "tokenizer_config.json", "adapter_config.json")  # fmt: skip


def download_model(name: str, revision: str | None) -> Path:
    """Folder with the model's configs, vocabulary and weights, downloaded or from the Hub cache.

    safetensors are preferred; ``pytorch_model.bin`` is taken only where there are none. The folder's name is the
    commit hash.
    """
    folder = _download(name, revision, (*_CONFIG_FILES, *_SAFETENSORS))
    if not _has(folder, _SAFE):
        _download(name, revision, (*_CONFIG_FILES, *_PICKLED))
    return folder


def download_settings(name: str, revision: str | None, scratch: Path) -> Path:
    """The small files that decide how a model is used, downloaded to ``scratch``: the cache is left as it is."""
    return _download(name, revision, _DECIDING, scratch)


def _download(name: str, revision: str | None, patterns: Iterable[str], cache_dir: Path | None = None) -> Path:
    from huggingface_hub import snapshot_download

    # without the Hub, snapshot_download gives the cached folder of that revision
    what = f"model {name!r}" + (f" at revision {revision!r}" if revision else "")
    with hub_errors(what, advice="Without the Hub, give --model a folder with the checkpoint."):
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), cache_dir=cache_dir))


def find_cached(name: str, revision: str | None) -> Path | None:
    """The folder of a model whose weights are in the Hub cache, without asking the Hub; else None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if _has(folder, (*_SAFE, "pytorch_model.bin", "pytorch_model.bin.index.json")) else None


def file_sizes(name: str, revision: str | None) -> dict[str, int]:
    """Files on the Hub that ``download_model`` would load, with their bytes."""
    from huggingface_hub import HfApi, RepoFile

    with hub_errors(f"model {name!r}"):
        entries = HfApi().list_repo_tree(name, recursive=True, revision=revision)
        sizes = {e.path: e.size for e in entries if isinstance(e, RepoFile)}
    return {file: sizes[file] for file in wanted_files(sizes)}


def wanted_files(files: Iterable[str]) -> list[str]:
    """Those of a model's files that ``download_model`` loads."""
    from huggingface_hub.utils import filter_repo_objects

    files = sorted(files)
    safe = bool(set(_SAFE) & set(files))
    return list(filter_repo_objects(files, allow_patterns=[*_CONFIG_FILES, *(_SAFETENSORS if safe else _PICKLED)]))


def _has(folder: Path, names: Iterable[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def dataset_file(repo: str, filename: str, revision: str) -> Path:
    """One file of a dataset repository, downloaded or from the Hub cache; its folder's name is the commit hash."""
    from huggingface_hub import hf_hub_download

    what = f"{filename} of dataset {repo!r} at revision {revision!r}"
    with hub_errors(what, advice="Without the Hub, give the file itself."):
        return Path(hf_hub_download(repo, filename, repo_type="dataset", revision=revision))


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep huggingface_hub from logging: its retries and fallbacks are told by our errors, if they fail."""
    from huggingface_hub import utils

    verbosity = utils.logging.get_verbosity()
    utils.logging.set_verbosity_error()
    try:
        with _bars_in_a_terminal(utils):
            yield
    finally:
        utils.logging.set_verbosity(verbosity)


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Keep datasets from logging, and its bars to a terminal."""
    import datasets

    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity_error()
    try:
        with _bars_in_a_terminal(datasets.utils):
            yield
    finally:
        datasets.logging.set_verbosity(verbosity)


@contextmanager
def _bars_in_a_terminal(library: Any) -> Iterator[None]:
    """A library's bars are for a terminal, where a download of 440 MB shows one; what the user has set stays."""
    silenced = not (sys.stderr.isatty() or library.are_progress_bars_disabled())
    if silenced:
        library.disable_progress_bars()
    try:
        yield
    finally:
        if silenced:
            library.enable_progress_bars()


def hide_transformers_bars() -> None:
    """Of loading weights; transformers disables huggingface_hub's with them, which a later download needs."""
    import transformers
    from huggingface_hub import utils

    disabled = utils.are_progress_bars_disabled()
    transformers.utils.logging.disable_progress_bar()
    if not disabled:
        utils.enable_progress_bars()


@contextmanager
def hub_errors(what: str, advice: str = "") -> Iterator[None]:
    """Turn every failure of huggingface_hub into a UserError that names the thing, the cause and the remedy."""
    from huggingface_hub import constants, errors

    try:
        with quiet_hub():
            yield
    except errors.GatedRepoError:
        raise UserError(f"{what} is gated: accept its terms on its Hub page and run `hf auth login`.") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{what} does not exist on the Hub (404), or is private (`hf auth login`). {advice}") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{what}: the Hub has no such revision (404).") from None
    except errors.RemoteEntryNotFoundError:
        raise UserError(f"{what}: file not found on the Hub (404). {advice}") from None
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"{what}: the Hub at {constants.ENDPOINT} answered with HTTP {error.response.status_code}. "
            f"Try again later. {advice}"
        ) from None
    except errors.HFValidationError:
        raise UserError(f"{what}: neither a folder nor a possible Hub id (owner/name).") from None
    except (errors.HTTPError, errors.RevisionResolutionError, OSError) as error:
        reason = "HF_HUB_OFFLINE is set" if is_offline() else _root_cause(error)
        raise Unavailable(f"{what} is not in the Hub cache and could not be downloaded: {reason}. {advice}") from None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE is set, which huggingface_hub reads when it is imported."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode() if hasattr(constants, "is_offline_mode") else constants.HF_HUB_OFFLINE)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error).rstrip(".")
