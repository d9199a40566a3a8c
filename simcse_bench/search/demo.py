"""A small local page: search over a corpus and the similarity of two sentences."""

from __future__ import annotations

import errno
import ipaddress
import json
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simcse_bench import bundled
from simcse_bench.errors import UserError, first_line
from simcse_bench.models.identity import shown_model
from simcse_bench.reports.page import render_template
from simcse_bench.search.simcse import SimCSE

MAX_TEXT = 5000  # characters of a sentence
MAX_HITS = 100
_JSON, _HTML = "application/json; charset=utf-8", "text/html; charset=utf-8"


class Answers:
    """What the page and its two questions are answered with."""

    def __init__(self, model: SimCSE, corpus: str):
        """``model`` has its index; ``corpus`` is the name of its sentences."""
        if model.index is None:
            raise UserError("the demo searches an index: call build_index or load_index first.")
        self._model, self._index = model, model.index
        self._lock = threading.Lock()  # an encoder does one thing at a time
        self.nonce = secrets.token_urlsafe(16)
        self._page = _page(model, corpus, len(model.index.sentences), model.index.store.kind,
                           model.index.sentences[:3], self.nonce)  # fmt: skip

    def answer(self, target: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, content type and body for the path and query of a request."""
        try:
            parts = urlsplit(target)
            given = {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        except ValueError as error:  # such as http://[/
            return HTTPStatus.BAD_REQUEST, _JSON, _json({"error": f"not a web address: {error}"})
        questions = {"/api/search": self._search, "/api/similarity": self._similarity}
        if parts.path == "/":
            return HTTPStatus.OK, _HTML, self._page
        if parts.path not in questions:
            return HTTPStatus.NOT_FOUND, _JSON, _json({"error": f"no such page: expected / or {', '.join(questions)}"})
        start = time.perf_counter()
        try:
            with self._lock:
                reply = questions[parts.path](given)
        except UserError as error:
            return HTTPStatus.BAD_REQUEST, _JSON, _json({"error": str(error)})
        return HTTPStatus.OK, _JSON, _json(reply | {"seconds": round(time.perf_counter() - start, 4)})

    def _search(self, given: Mapping[str, str]) -> dict[str, Any]:
        top_k = int(_number(given, "top_k", 5))
        if not 1 <= top_k <= MAX_HITS:
            raise UserError(f"top_k {top_k}: expected 1 to {MAX_HITS}.")
        hits = self._model.nearest([_text(given, "query")], threshold=_number(given, "threshold", 0.6), top_k=top_k)[0]
        return {"results": [{"sentence": sentence, "score": score} for sentence, score in hits]}

    def _similarity(self, given: Mapping[str, str]) -> dict[str, Any]:
        return {"similarity": self._model.similarity(_text(given, "a"), _text(given, "b"))}


class Server(ThreadingHTTPServer):
    """The demo's server; ``answers`` is given when the model is loaded, the port is taken before."""

    answers: Answers

    def __init__(self, host: str, port: int):
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)
        self.local = is_local(host)

    def server_bind(self) -> None:
        """Without HTTPServer's search for the machine's name, which may take long without a network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing about a reader who has left."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30  # seconds that a silent client keeps its thread
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the page and its questions."""
        # a foreign page whose name was made to point here (DNS rebinding) asks under that name
        if self.server.local and not is_local(_hostname(self.headers.get("Host", ""))):
            status, kind, body = HTTPStatus.FORBIDDEN, _JSON, _json({"error": "this page answers this machine only"})
        else:
            status, kind, body = self.server.answers.answer(self.path)
        nonce = f"'nonce-{self.server.answers.nonce}'"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header(
            "Content-Security-Policy",
            f"default-src 'none'; style-src {nonce}; script-src {nonce}; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is searched for is nobody's business."""


def take_port(host: str, port: int) -> Server:
    """A server bound to its port, not yet answering.

    Raises:
        UserError: the port is taken or not allowed, or the host is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: expected 1 to 65535, or 0 for any free one.")
    if not host.strip():  # to the system, an empty one means every address
        raise UserError("--host is empty: expected 127.0.0.1 (this machine alone) or 0.0.0.0 (whoever reaches it).")
    try:
        return Server(host, port)
    except (ValueError, TypeError) as error:  # of a name that cannot be one
        raise UserError(f"--host {host!r:.80}: expected an address of this machine ({first_line(error)}).") from error
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "another program is using it. Choose another --port, or 0 for any free one.",
            errno.EACCES: "not allowed. Ports below 1024 belong to the system; choose another --port.",
            errno.EADDRNOTAVAIL: "no such address on this machine. Choose another --host.",
        }
        reason = reasons.get(error.errno or 0, f"{error.strerror or error}. Choose another --host or --port.")
        raise UserError(f"--port {port} on --host {host}: {reason}") from error


def is_local(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hostname(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _page(model: SimCSE, corpus: str, sentences: int, kind: str, examples: Sequence[str], nonce: str) -> bytes:
    about = model.provenance
    facts = {
        "model": shown_model(about),
        "pooling": str(about["pooling"]),
        "head": str(about["head"]),
        "length": f"at most {about['max_length']} tokens" if about["max_length"] else "any",
        "corpus": f"{corpus}, {sentences:,} sentences",
        "search": kind,
    }
    notes = [bundled.ENCODER] if about.get("embedded") else []
    notes += [bundled.DATA] if corpus in bundled.TEXTS else []
    return render_template(
        "demo.html", facts=facts, notes=notes, examples=examples, nonce=nonce, max_text=MAX_TEXT, max_hits=MAX_HITS
    )


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


def _text(given: Mapping[str, str], name: str) -> str:
    text = given.get(name, "").strip()
    if not text:
        raise UserError(f"{name} is empty; expected a sentence.")
    if len(text) > MAX_TEXT:
        raise UserError(f"{name} has {len(text):,} characters; expected at most {MAX_TEXT:,}.")
    return text


def _number(given: Mapping[str, str], name: str, otherwise: float) -> float:
    try:
        value = float(given.get(name, otherwise))
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e9:  # nan too
        raise UserError(f"{name} {given[name]!r:.40}: expected a number.")
    return value
