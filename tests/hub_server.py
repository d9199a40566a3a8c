"""A small Hub on loopback: as much of its protocol as huggingface_hub needs for two repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """``repositories`` maps "models/owner/name" or "datasets/owner/name" to a folder of files."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.requests: list[str] = []
        self.status: dict[str, int] = {}  # file name -> HTTP status to answer with
        self.cut: dict[str, int] = {}  # file name -> bytes after which the connection is closed

    def reply(self, path: str) -> tuple[int, dict[str, str], bytes, int | None]:
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if parts[0] == "api":
            return self._api(parts[1:])
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

    def _api(self, parts: list[str]) -> tuple[int, dict[str, str], bytes, None]:
        kind, repository, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        folder = self.repositories.get(f"{kind}/{repository}")
        if folder is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"", None
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        if rest[:1] == ["tree"]:
            entries = [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files]
            return 200, {}, json.dumps(entries).encode(), None
        if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"", None
        info = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files], "private": False}
        return 200, {}, json.dumps(info).encode(), None


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1; gives the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body, cut = hub.reply(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
