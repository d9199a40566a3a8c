"""`export --push-to-hub` against a Hub on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub, serving
from huggingface_hub import ModelCard, constants

TOKEN = "hf_thisTokenIsASecretOfTheTests"
OUT = Path("out")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub", TOKEN)
    (tmp_path / "hub").mkdir()
    for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH"):
        monkeypatch.setattr(constants, name, str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol needs a server of its own
    with serving(hub) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        yield hub


@pytest.fixture
def push(cli, bert):
    def run(*args, repo="me/mine", form="transformers"):
        done = cli("export", bert, "--pooling", "mean", "--to", form, "--out", OUT, "--push-to-hub", repo, *args)
        assert TOKEN not in done.out + done.err
        return done

    return run


def refused(done, *parts):
    assert done.code == 2, done.out + done.err
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err, done.err


def test_the_export_is_published_file_by_file(hub, push):
    OUT.mkdir()
    (OUT / "thesis.txt").write_text("mine")  # beside the export, never published
    done = push("--private", "--license", "mit", "--force")
    assert done.code == 0, done.err
    there = hub.repositories["models/me/mine"]
    files = json.loads((OUT / "export.json").read_text())["files"]
    assert {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()} == {*files, ".gitattributes"}
    for name in files:
        assert (there / name).read_bytes() == (OUT / name).read_bytes(), name
    assert "model.safetensors" in files
    assert len(hub.large) == 1
    assert hub.private == {"me/mine"}
    assert hub.commits == ["simcse-bench export --to transformers"]
    assert f"me/mine: {len(files)} files published, {hub.endpoint}/me/mine/commit/" in done.out
    card = ModelCard.load(there / "README.md")
    assert card.data.license == "mit"
    assert 'SentenceTransformer("me/mine")' in card.text
    for path in OUT.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


def test_public_unless_asked(hub, push):
    assert push().code == 0
    assert hub.private == set()


def test_an_existing_repository(hub, push, tmp_path):
    (tmp_path / "hub" / "me" / "mine").mkdir(parents=True)
    there = hub.repositories["models/me/mine"] = tmp_path / "hub" / "me" / "mine"
    (there / "old.txt").write_text("of another model")
    refused(push(), "me/mine exists already and holds 1 files. Use --update-repo")
    assert not OUT.exists()  # told before any work
    refused(push("--update-repo", "--private"), "is public; --private would not change that")
    assert not hub.commits
    assert push("--update-repo").code == 0
    assert (there / "old.txt").exists()
    assert (there / "model.safetensors").is_file()


def test_a_wrong_token(hub, push, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_anotherSecret")
    done = push()
    refused(done, "does not accept the token (401)", "hf auth login")
    assert "hf_anotherSecret" not in done.out + done.err
    assert not OUT.exists()


def test_no_token(hub, push, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    refused(push(), "--push-to-hub me/mine: no token. Log in with `hf auth login`")
    assert hub.requests == []


def test_another_owner(hub, push):
    refused(push(repo="them/mine"), "the token may not write to 'them' (403)", f"The export in {OUT} is whole")
    assert (OUT / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "repo, part", [("mine", "expected owner/name"), ("a/b/c", "not a possible Hub id"), ("me/..", "not a possible")]
)
def test_no_possible_id(hub, push, repo, part):
    refused(push(repo=repo), part)
    assert hub.requests == []


def test_offline(hub, push, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(push(), "HF_HUB_OFFLINE is set")
    assert hub.requests == []
    assert not OUT.exists()


@pytest.mark.parametrize("call", ["create", "preupload", "batch", "commit"])
def test_a_hub_that_fails_half_way_keeps_the_export_and_can_be_asked_again(hub, push, call):
    hub.status[call] = 501  # not retried by huggingface_hub
    refused(push(), "501", f"The export in {OUT} is whole; the same command pushes it again.")
    assert not hub.commits
    hub.status.clear()
    done = push()  # the repository is there, but empty; the folder holds the same export
    assert done.code == 0, done.err
    assert len(hub.commits) == 1


def test_options_without_a_repository(cli, bert):
    done = cli("export", bert, "--pooling", "mean", "--to", "transformers", "--out", OUT, "--private")
    refused(done, "belong to --push-to-hub")


@pytest.mark.slow
def test_from_a_process_of_its_own_and_a_hub_that_is_gone(hub, bert, tmp_path):
    keep = {
        k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LANG", "VIRTUAL_ENV", "OMP_NUM_THREADS")
    }
    more = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "simcse_bench", "export", str(bert), "--pooling", "mean", "--to", "transformers",
               "--out", "o", "--push-to-hub", "me/mine"]  # fmt: skip

    def run(endpoint):
        env = keep | more | {"HF_ENDPOINT": endpoint}
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=180)

    gone = run("http://127.0.0.1:9")
    assert gone.returncode == 2, gone.stderr
    assert "Traceback" not in gone.stderr
    assert "--push-to-hub me/mine:" in gone.stderr
    assert not (tmp_path / "o").exists()
    done = run(hub.endpoint)
    assert done.returncode == 0, done.stderr
    assert (hub.repositories["models/me/mine"] / "model.safetensors").is_file()
    assert TOKEN not in done.stdout + done.stderr + gone.stdout + gone.stderr
