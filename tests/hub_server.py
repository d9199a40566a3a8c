"""A small Hub on loopback: as much of its protocol as huggingface_hub needs to download and to publish."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"  # nothing answers there
Reply = tuple[int, dict[str, str], bytes, int | None]


def ask(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path, offline: bool = False) -> None:
    """Let huggingface_hub in this process ask that Hub, with an empty cache, and try again without a pause."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(**vars(time) | {"sleep": lambda _: None}))


class Hub:
    """``repositories`` maps "models/owner/name" or "datasets/owner/name" to a folder of files.

    With ``root`` and ``token`` it also takes new repositories and commits, from whom has the token and below
    ``owner`` alone.
    """

    def __init__(self, root: Path | None = None, token: str = "", owner: str = "me") -> None:
        self.repositories: dict[str, Path] = {}
        self.requests: list[str] = []
        self.status: dict[str, int] = {}  # file name, or the last part of an API call -> HTTP status to answer with
        self.cut: dict[str, int] = {}  # file name -> bytes after which the connection is closed
        self.root, self.token, self.owner = root, token, owner
        self.private: set[str] = set()
        self.commits: list[str] = []
        self.large: dict[str, bytes] = {}  # sha256 -> what was uploaded by the LFS protocol
        self.endpoint = ""

    def reply(self, path: str, authorization: str = "") -> Reply:
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if parts[0] == "api":
            return self._api(parts[1:], authorization)
        kind = "datasets" if parts[0] == "datasets" else "models"
        if kind == "datasets":
            parts = parts[1:]
        repository, verb, file = "/".join(parts[:2]), parts[2], "/".join(parts[4:])
        folder = self.repositories.get(f"{kind}/{repository}")
        if folder is None or verb != "resolve":
            return 404, {"X-Error-Code": "RepoNotFound"}, b"", None
        if file in self.status:
            return self.status[file], {}, b"", None
        if not (folder / file).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"", None
        content = (folder / file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return 200, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}, content, self.cut.get(file)

    def _api(self, parts: list[str], authorization: str) -> Reply:
        if parts == ["whoami-v2"]:
            known = authorization == f"Bearer {self.token}"
            return _json(200, {"name": self.owner}) if known else _json(401, {"error": "Invalid username or password."})
        kind, repository, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        folder = self.repositories.get(f"{kind}/{repository}")
        if folder is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"", None
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        if rest[:1] == ["tree"]:
            entries = [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files]
            return _json(200, entries)
        if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"", None
        info = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
        return _json(200, info | {"private": repository in self.private})

    def receive(self, path: str, body: bytes, authorization: str) -> Reply:
        """A POST or PUT: create a repository, upload, commit."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if parts[0] == "upload":  # its address is its right, as with a signed one
            self.large[parts[1]] = body
            return 200, {}, b"", None
        if authorization != f"Bearer {self.token}" or self.root is None:
            return _json(401, {"error": "Invalid username or password."})
        call = next((c for c in ("create", "validate-yaml", "preupload", "batch", "commit") if c in parts), "")
        if call in self.status:
            return _json(self.status[call], {"error": "refused"})
        if call == "create":
            return self._create(json.loads(body))
        if call == "validate-yaml":
            return _json(200, {"warnings": [], "errors": []})
        if call == "preupload":
            files = json.loads(body)["files"]
            large = (".safetensors", ".onnx")
            modes = [{"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(large) else "regular",
                      "shouldIgnore": False} for f in files]  # fmt: skip
            return _json(200, {"files": modes})
        if call == "batch":
            objects = [{"oid": o["oid"], "size": o["size"], "actions": {"upload": {
                "href": f"{self.endpoint}/upload/{o['oid']}"}}} for o in json.loads(body)["objects"]]  # fmt: skip
            return _json(200, {"transfer": "basic", "objects": objects})
        if call == "commit":
            return self._commit("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])
        return _json(404, {"error": "unknown call"})

    def _create(self, wanted: dict[str, str]) -> Reply:
        repository = f"{wanted['organization'] or self.owner}/{wanted['name']}"
        if not repository.startswith(f"{self.owner}/"):
            return _json(403, {"error": "You don't have the rights to create a model under this namespace"})
        url = {"url": f"{self.endpoint}/{repository}", "name": repository}
        if f"models/{repository}" in self.repositories:
            return _json(409, url | {"error": "You already created this model repo"})
        folder = self.root / repository
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.repositories[f"models/{repository}"] = folder
        if wanted.get("visibility") == "private":
            self.private.add(repository)
        return _json(200, url)

    def _commit(self, repository: str, lines: list[dict]) -> Reply:
        folder = self.repositories[f"models/{repository}"]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
                continue
            small = line["key"] == "file"
            content = base64.b64decode(value["content"]) if small else self.large[value["oid"]]
            (folder / value["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / value["path"]).write_bytes(content)
        return _json(200, {"commitUrl": f"{self.endpoint}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})


def _json(status: int, content: object) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode(), None


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1; gives the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(hub.reply(self.path, self.headers.get("Authorization", "")))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            self._answer(hub.receive(self.path, self._body(), self.headers.get("Authorization", "")))

        do_PUT = do_POST

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, reply: Reply) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body, cut = reply
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub.endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
