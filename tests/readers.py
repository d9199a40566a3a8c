"""Who looks at a page of ours: a parser at its structure, a reader in Chromium at what it shows and does."""

import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "br", "hr", "input", "link", "img"}
SIZES = [
    (1280, "light"),
    (390, "dark"),
    pytest.param(1280, "dark", marks=pytest.mark.slow),
    pytest.param(390, "light", marks=pytest.mark.slow),
]


class Page(HTMLParser):
    """What the structure of a page is judged by."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.headings, self.images, self.unnamed = [], [], [], [], [], []
        self.verdicts, self.made, self.closed_wrongly = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.ids += [facts[k] for k in ("id",) if k in facts]
        self.links += [facts[k] for k in ("href",) if k in facts]
        self.headings += [int(level) for level in "1234" if tag == f"h{level}"]
        self.made += [facts[k] for k in ("data-made",) if k in facts]
        inside = {t for t, _ in self.open}
        if (
            tag == "svg"
            and "svg" not in inside
            and not (facts.get("aria-hidden") or self._hidden() or facts.get("aria-label"))
        ):
            self.images.append(facts)
        if tag in ("select", "input") and "label" not in inside:
            self.unnamed.append(facts)
        if "verdict" in (facts.get("class") or "").split():
            self.verdicts.append([facts["class"], ""])
        if tag not in VOID:
            self.open.append((tag, facts))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop()[0] != tag:
            self.closed_wrongly.append(tag)

    def handle_data(self, text):
        if any("verdict" in (facts.get("class") or "").split() for _, facts in self.open):
            self.verdicts[-1][1] += text

    def _hidden(self):
        return any(facts.get("aria-hidden") for _, facts in self.open)


class Reader:
    """A reader at the page, in a browser window of some width and scheme."""

    def __init__(self, browser, path, width=1280, scheme="light"):
        self.browser, self.path = browser, path
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(path.as_uri())

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        (element,) = self.all(selector)
        return element

    def press(self, element):
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def shown(self, selector):
        seen = "[...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())"
        return self.browser.execute_script(f"return {seen}", selector)

    def texts(self, selector):
        return [e.text for e in self.shown(selector)]

    def column(self, title):
        """Model -> what stands in a column of the first leaderboard."""
        titles = [t.strip(" ▾▴") for t in self.texts("#board0 thead th")]
        rows = [r.find_elements("css selector", "th, td") for r in self.all("#board0 tbody tr")]
        return {cells[1].text.splitlines()[-1]: cells[titles.index(title)].text for cells in rows}

    def choose(self, select, value):
        for option in select.find_elements("css selector", "option"):
            if option.text == value:
                option.click()

    def wide(self):
        """Pixels of the whole page's width."""
        return self.browser.execute_script("return document.documentElement.scrollWidth")

    def faults(self):
        """What axe finds of serious faults; skips the test where it is not here."""
        self.browser.execute_script(_axe())
        told = (
            "axe.run().then((r) => arguments[0](r.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html)])))"
        )
        return [f for f in self.browser.execute_async_script(told) if f[0] in ("serious", "critical")]

    def ends(self):
        """Nothing failed, nothing was fetched."""
        assert self.browser.get_log("browser") == []
        requests = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        urls = {
            r["params"]["request"]["url"].partition("#")[0]
            for r in requests
            if r["method"] == "Network.requestWillBeSent"
        }
        assert urls <= {self.path.as_uri()}


def _axe():
    places = [os.environ.get("SIMCSE_BENCH_AXE"), Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js"]
    paths = [Path(p) for p in places if p and Path(p).is_file()]
    if not paths:
        pytest.skip("no axe-core here: name its axe.min.js in SIMCSE_BENCH_AXE, or npm install axe-core")
    return paths[0].read_text("utf-8")
