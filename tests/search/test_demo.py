"""The demo: its answers over HTTP, and its page in a real browser."""

import json
import random
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress

import pytest

from simcse_bench.errors import UserError
from simcse_bench.search import demo
from simcse_bench.search.simcse import SimCSE

CORPUS = ["a man plays a guitar .", "the dog eats .", "<b>two</b> & three <img src=x onerror=alert(1)>", "a red ball ."]


@pytest.fixture(scope="module")
def model(bert):
    found = SimCSE(str(bert), pooling="mean", device="cpu")
    found.build_index(CORPUS)
    return found


@pytest.fixture
def server(model):
    with demo.take_port("127.0.0.1", 0) as found:
        found.answers = demo.Answers(model, "<i>my</i> corpus")
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(server, path, headers=None, **query):
    url = server.url.rstrip("/") + path + ("?" + urllib.parse.urlencode(query) if query else "")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_search_answers_as_the_class_does(server, model):
    status, headers, body = get(server, "/api/search", query="the dog .", top_k=3, threshold=-1)
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    found = [(hit["sentence"], hit["score"]) for hit in json.loads(body)["results"]]
    assert found == [(text, pytest.approx(score)) for text, score in model.search("the dog .", threshold=-1, top_k=3)]
    assert len(found) == 3
    _, _, body = get(server, "/api/search", query="the dog eats .", threshold=0.999)
    assert [hit["sentence"] for hit in json.loads(body)["results"]] == ["the dog eats ."]


def test_similarity_answers_as_the_class_does(server, model):
    _, _, body = get(server, "/api/similarity", a="the dog .", b="a red ball .")
    assert json.loads(body)["similarity"] == pytest.approx(model.similarity("the dog .", "a red ball ."))


def test_the_page_says_what_it_is_and_fetches_nothing(server):
    status, headers, body = get(server, "/")
    assert status == 200
    for expected in ("tiny-bert", "mean", "none", "&lt;i&gt;my&lt;/i&gt; corpus, 4 sentences", "&lt;img src=x"):
        assert expected in body
    assert "<img" not in body
    assert "<i>my" not in body
    assert "http" not in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path, query, status, message",
    [
        ("/api/search", {}, 400, "query is empty"),
        ("/api/search", {"query": "   "}, 400, "query is empty"),
        ("/api/search", {"query": "a" * 5001}, 400, "5,001 characters"),
        ("/api/search", {"query": "a", "top_k": "0"}, 400, "top_k 0: expected 1 to 100"),
        ("/api/search", {"query": "a", "top_k": "many"}, 400, "top_k 'many': expected a number"),
        ("/api/search", {"query": "a", "threshold": "nan"}, 400, "threshold 'nan'"),
        ("/api/similarity", {"a": "x"}, 400, "b is empty"),
        ("/etc/passwd", {}, 404, "no such page"),
        ("/../api/search", {}, 404, "no such page"),
    ],
)
def test_bad_questions_are_answered_plainly(server, path, query, status, message):
    found, _, body = get(server, path, **query)
    assert found == status
    assert message in json.loads(body)["error"]


def ask_raw(server, request):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_malformed_requests_are_answered_or_dropped_without_a_traceback(server, model, capfd):
    local = b"Host: localhost\r\n"
    whole = b"GET http://localhost/api/search?query=a HTTP/1.1\r\n" + local + b"\r\n"  # as a proxy passes it on
    assert b"200 OK" in ask_raw(server, whole)
    said = ask_raw(server, b"GET http://[/ HTTP/1.1\r\n" + local + b"\r\n")
    assert b"400 Bad Request" in said
    assert b"not a web address: Invalid IPv6 URL" in said
    rng = random.Random(0)
    for number in range(150):
        request = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(request))
            request[place : place + rng.randint(0, 4)] = rng.choice(
                [
                    b"",
                    b"%",
                    b"[",
                    b"]",
                    b"//",
                    b"\0",
                    b"\xff",
                    b"\r\n",
                    b" ",
                    b"?",
                    b"&" * 50,
                    b"%ED%A0%80",
                    b"://",
                    b"#",
                ]
            )
        answered = ask_raw(server, bytes(request))
        assert b"Traceback" not in answered, (number, request)
    for request in (
        b"\0" * 100_000,
        b"GET " + b"/" * 200_000,
        b"POST / HTTP/1.1\r\n" + local + b"\r\n",
        b"GET /\r\n",
        b"",
    ):
        ask_raw_quietly(server, request)
    assert b"200 OK" in ask_raw(server, whole)
    assert capfd.readouterr().err == ""


def ask_raw_quietly(server, request):
    with suppress(ConnectionError):  # the server closes what it does not read to the end
        ask_raw(server, request)


def test_a_foreign_name_is_not_answered(server):
    assert get(server, "/", {"Host": "evil.example"})[0] == 403
    assert get(server, "/", {"Host": f"localhost:{server.server_port}"})[0] == 200


def test_many_at_once(server, model):
    wanted = {text: model.search(text, threshold=-1, top_k=1)[0][0] for text in CORPUS}
    wrong = []

    def ask(text):
        for _ in range(3):
            _, _, body = get(server, "/api/search", query=text, threshold=-1, top_k=1)
            if json.loads(body)["results"][0]["sentence"] != wanted[text]:
                wrong.append(text)

    threads = [threading.Thread(target=ask, args=(text,)) for text in CORPUS * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_ports_and_hosts_that_cannot_be_had(server, cli):
    taken = server.server_port
    done = cli("demo", "--model", "mini", "--port", taken)
    assert done.code == 2
    assert f"--port {taken} on --host 127.0.0.1: another program is using it. Choose another --port" in done.err
    assert "Traceback" not in done.err
    for host, port, message in (
        ("127.0.0.1", 70000, "expected 1 to 65535"),
        ("192.0.2.1", 0, "no such address on this machine"),
        ("no.such.host.invalid", 0, "Choose another --host"),
        ("", 0, "--host is empty: expected 127.0.0.1 .this machine alone. or 0.0.0.0 .whoever reaches it"),
        (" ", 0, "--host is empty"),
        ("a\0b", 0, "--host"),
        ("x" * 300, 0, "--host"),
        ("\ud800", 0, "--host"),
    ):
        with pytest.raises(UserError, match=message):
            demo.take_port(host, port)


def test_only_loopback_is_local():
    assert [demo.is_local(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")] == [True] * 3 + [
        False
    ] * 2


def test_the_command_serves_until_it_is_stopped(cli, bert, tmp_path, monkeypatch):
    (tmp_path / "c.txt").write_text("a dog .\n\nthe cat eats .\n", "utf-8")
    pages = []

    def serve(server):
        pages.append(server.answers.answer("/")[2].decode())
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.Server, "serve_forever", serve)
    done = cli("demo", "--model", bert, "--pooling", "mean", "--corpus", "c.txt", "--port", 0, "--device", "cpu")
    assert done.code == 0, done.err
    assert "2 sentences; 1 blank line left out" in done.err
    assert "http://127.0.0.1:" in done.err
    assert "stopped" in done.err
    assert "c.txt, 2 sentences" in pages[0]
    done = cli("demo", "--model", "mini", "--port", 0, "--device", "cpu", "--host", "0.0.0.0")
    assert "mini-sentences, 1,000 sentences" in pages[1]
    assert "embedded mini encoder" in pages[1]
    assert "warning: whoever reaches this machine" in done.err
    assert cli("demo").code == 2


def test_a_reader_searches_and_compares(server, model, browser):
    browser.get(server.url)

    def find(selector):
        return browser.find_element("css selector", selector)

    def waited(condition):
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(browser, 30).until(lambda _: condition())

    def results():  # in one go: the list may be drawn anew in between
        cells = "[...document.querySelectorAll('#results li')].map(e => ['.sentence', '.score'].map(c => e.querySelector(c).innerText))"
        return [tuple(row) for row in browser.execute_script(f"return {cells}")]

    assert find("#fact-pooling").text == "mean"
    assert find("#fact-head").text == "none"
    threshold = find("[name=threshold]")
    threshold.clear()
    threshold.send_keys("-1")
    find("[name=query]").send_keys("the dog .\n")  # by keyboard
    waited(lambda: len(results()) == 4)
    assert results() == [(t, f"{s:.4f}") for t, s in model.search("the dog .", threshold=-1)]  # as text, not markup
    assert find("#search-status").text == "4 sentences"
    find("[name=top_k]").clear()
    find("[name=top_k]").send_keys("2")
    browser.find_elements("css selector", "button.example")[1].click()
    waited(lambda: len(results()) == 2)
    assert results()[0] == ("the dog eats .", "1.0000")
    find("[name=query]").clear()
    find("#search button").click()
    waited(lambda: "query is empty" in find("#search-status").text)
    assert results() == []
    find("[name=a]").send_keys("the dog .")
    find("[name=b]").send_keys("a red ball .\n")
    waited(lambda: find("#pair-status").text.startswith("cosine"))
    assert find("#pair-status").text == f"cosine {model.similarity('the dog .', 'a red ball .'):.4f}"
    browser.set_window_size(360, 700)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    for element in browser.find_elements("css selector", "input"):
        assert element.accessible_name
    backgrounds = []
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        backgrounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(18, 22, 27)"]
    problems = [e for e in browser.get_log("browser") if "400" not in e["message"]]
    assert problems == []
    requests = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = {r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"}
    assert all(url.startswith((server.url, "data:,")) for url in urls)
