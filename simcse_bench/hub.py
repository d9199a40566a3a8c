"""The Hugging Face Hub: download a model's files once, and say plainly what went wrong when that fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simcse_bench.errors import UserError

_CONFIG_FILES = ("*.json", "*.txt", "*.model", "bpe.codes")  # configs, vocabularies, sentence-transformers modules
_SAFETENSORS = ("model.safetensors", "model-*.safetensors", "*_Dense/model.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "*_Dense/pytorch_model.bin")


def snapshot(name: str, revision: str | None) -> Path:
    """Folder with the model's configs, vocabulary and weights, downloaded or from the Hub cache.

    safetensors are preferred; ``pytorch_model.bin`` is taken only where there are none. The folder's name is the
    commit hash.
    """
    from huggingface_hub import snapshot_download

    # without the Hub, snapshot_download gives the cached folder of that revision
    what = f"model {name!r}" + (f" at revision {revision!r}" if revision else "")
    with hub_errors(what, advice="Without the Hub, give --model a folder with the checkpoint."):
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_CONFIG_FILES, *_SAFETENSORS]))
        if not any(folder.glob("model*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=[*_CONFIG_FILES, *_PICKLED])
    return folder


def dataset_file(repo: str, filename: str, revision: str) -> Path:
    """One file of a dataset repository, downloaded or from the Hub cache; its folder's name is the commit hash."""
    from huggingface_hub import hf_hub_download

    what = f"{filename} of dataset {repo!r} at revision {revision!r}"
    with hub_errors(what, advice="Without the Hub, give the file itself."):
        return Path(hf_hub_download(repo, filename, repo_type="dataset", revision=revision))


@contextmanager
def hub_errors(what: str, advice: str = "") -> Iterator[None]:
    """Turn every failure of huggingface_hub into a UserError that names the thing, the cause and the remedy."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # its retries and fallbacks are told by the error below
    if not sys.stderr.isatty():  # in a terminal, a download of 440 MB shows its bar
        disable_progress_bars()
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(f"{what} is gated: accept its terms on its Hub page and run `hf auth login`.") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{what} does not exist on the Hub (404), or is private (`hf auth login`). {advice}") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what}: the Hub has no such revision (404).") from error
    except errors.RemoteEntryNotFoundError as error:
        raise UserError(f"{what}: file not found on the Hub (404). {advice}") from error
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"{what}: the Hub at {constants.ENDPOINT} answered with HTTP {error.response.status_code}. "
            f"Try again later. {advice}"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{what}: neither a folder nor a possible Hub id (owner/name).") from error
    except (errors.HTTPError, errors.RevisionResolutionError, OSError) as error:
        offline = constants.is_offline_mode() if hasattr(constants, "is_offline_mode") else constants.HF_HUB_OFFLINE
        reason = "HF_HUB_OFFLINE is set" if offline else _root_cause(error)
        raise UserError(f"{what} is not in the Hub cache and could not be downloaded: {reason}. {advice}") from error
    finally:
        hub_logging.set_verbosity(verbosity)
        enable_progress_bars()


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
