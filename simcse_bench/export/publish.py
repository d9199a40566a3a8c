"""Publish an export on the Hugging Face Hub, with plain words for every refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from simcse_bench.errors import UserError
from simcse_bench.hub import is_offline, quiet_hub

_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write (Hub: Settings, Access Tokens)."
_ALWAYS = {".gitattributes"}  # what the Hub puts into a new repository


def check_repo(repo: str, private: bool, update: bool) -> None:
    """Refuse, before any work, what the Hub would refuse after it.

    Raises:
        UserError: no possible id, offline, no token or a bad one, a repository that exists (without ``update``).
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--push-to-hub {repo!r}: not a possible Hub id; expected owner/name.") from error
    if "/" not in repo:
        raise UserError(f"--push-to-hub {repo!r}: expected owner/name, for example my-name/{repo}.")
    if is_offline():
        raise UserError(f"--push-to-hub {repo}: HF_HUB_OFFLINE is set; unset it, or export without --push-to-hub.")
    if get_token() is None:
        raise UserError(f"--push-to-hub {repo}: no token. {_LOGIN}")
    with _plain_words(repo):
        api = HfApi()
        api.whoami()
        try:
            info = api.model_info(repo)
        except RepositoryNotFoundError:
            return
    there = {s.rfilename for s in info.siblings or ()} - _ALWAYS
    if there and not update:
        raise UserError(
            f"{repo} exists already and holds {len(there)} files. Use --update-repo to commit over them, or another "
            "name."
        )
    if private and info.private is False:
        raise UserError(
            f"{repo} exists already and is public; --private would not change that. Make it private on its settings "
            "page, or choose another name."
        )


def push_export(folder: Path, files: Sequence[str], repo: str, private: bool, message: str) -> str:
    """Create the repository where it does not exist and commit these files of ``folder`` at once; gives the commit.

    Raises:
        UserError: the Hub refuses; the export in ``folder`` stays.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with _plain_words(repo, f"The export in {folder} is whole; the same command pushes it again."):
        api = HfApi()
        api.create_repo(repo, private=True if private else None, exist_ok=True)
        operations = [CommitOperationAdd(name, folder / name) for name in files]
        done = api.create_commit(repo, operations, commit_message=message)
        return str(done.commit_url)


@contextmanager
def _plain_words(repo: str, kept: str = "") -> Iterator[None]:
    """Turn every failure of huggingface_hub into a UserError; no text of ours or the Hub's holds the token."""
    from huggingface_hub import constants, errors

    start, hub = f"--push-to-hub {repo}", f"the Hub at {constants.ENDPOINT}"
    try:
        with quiet_hub():
            yield
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code == 401:
            raise UserError(f"{start}: {hub} does not accept the token (401). {_LOGIN} {kept}".rstrip()) from error
        if code == 403:
            owner = repo.split("/")[0]
            raise UserError(
                f"{start}: the token may not write to {owner!r} (403). Take a token with write access, or another "
                f"owner. {kept}".rstrip()
            ) from error
        raise UserError(f"{start}: {hub} answered with HTTP {code}. Try again later. {kept}".rstrip()) from error
    # RuntimeError: a large file's upload; ValueError: an answer that is none, or metadata that the Hub refuses
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(f"{start}: {reason.rstrip('.')}. {kept}".rstrip()) from error
