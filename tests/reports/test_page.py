"""The pages of ablations and whole papers: verdicts in a line, contents on the side, one file; in a real browser."""

import json
import re
import shutil
from pathlib import Path

import pytest

from simcse_bench.papers.simcse_2021 import PAPERS
from simcse_bench.reports.ablation import draw_ablation
from simcse_bench.reports.page import Section, Verdict, shown_tally
from simcse_bench.reports.reproduction import draw_reproduction, scores_table
from simcse_bench.reports.summary import read_summary

PAPER = Path(__file__).parents[2] / "results" / "embedded" / "simcse-2021-mini"


def test_one_task_has_no_average_but_an_order():
    if not PAPER.is_dir():
        pytest.skip("no committed results here")
    drawn = scores_table(PAPER / "mini", PAPERS["simcse-2021"], "sts", [])
    assert drawn is not None
    table, order = drawn
    assert table.header == ["model", "seeds", "mini-sts", "paper's Avg., BERT-base"]
    assert all(len(row) == 4 for row in table.rows)
    assert order.startswith("Averages in the paper's order: supervised SimCSE > unsupervised SimCSE")


@pytest.mark.parametrize(
    "verdicts, line",
    [
        ([], ""),
        (["holds"], "The statement of the paper holds"),
        (["not run"], "The statement of the paper was not run"),
        (["one seed"] * 2, "Both statements of the paper have one seed, so no verdict"),
        (["undecided", "undecided"], "Both statements of the paper are undecided"),
        (["does not hold"] * 3, "All 3 statements of the paper do not hold"),
        (
            ["undecided", "holds", "does not hold", "holds"],
            "Of 4 statements of the paper 2 hold, 1 does not hold, 1 is undecided",
        ),
    ],
)
def test_verdicts_in_a_line(verdicts, line):
    assert shown_tally([Verdict("a beats b", verdict) for verdict in verdicts]) == line


def test_a_heading_is_a_number_and_a_title():
    assert Section("Table D.1: Temperature").place == ("Table D.1", "Temperature")
    assert Section("Table D.1: Temperature").ident == "table-d-1-temperature"
    assert Section("Time").place == ("", "Time")


@pytest.fixture
def paper(tmp_path):
    """The committed reproduction, without one of its ablations."""
    folder = tmp_path / "paper"
    shutil.copytree(PAPER, folder)
    shutil.rmtree(folder / "ablations" / "pooling-mini", ignore_errors=True)
    return folder


@pytest.fixture
def page(paper):
    for path, content in draw_reproduction(paper, []).items():
        path.write_bytes(content)
    return paper / "index.html"


def test_a_whole_paper_from_first_to_last(page, paper):
    text = page.read_text("utf-8")
    heads = re.findall(r"<h2><small>(.+?)</small> (.+?)</h2>", text)
    parts = PAPERS["simcse-2021"].parts
    numbers = [p.number if p.number.startswith("Figure") else f"Table {p.number}" for p in parts]
    assert list(dict.fromkeys(number for number, _ in heads)) == numbers
    assert numbers.index("Figure 2") == numbers.index("Table 3") + 1
    assert numbers.index("Figure 3") == numbers.index("Table 7") + 1
    pieces = dict(zip(heads, re.split(r"<h2><small>", text)[1:], strict=True))
    for head, piece in pieces.items():
        if head[1] != "Cosines by gold score":
            assert re.search(r'<p class="said">\S', piece), head
    assert "Not run yet." in pieces["Table 6", "Pooling and MLP"]
    # every statement stands in its own table, with its verdict
    summary = read_summary(paper / "ablations" / "dropout-mini" / "summary.json")
    piece = pieces["Table 3", "Dropout probability"]
    shown = re.findall(
        r'class="verdict \w+"><span aria-hidden="true">\S</span> (.+?)</span> <span>(.+?) <small>', piece
    )
    assert shown == [(f["verdict"], f["text"]) for f in summary["findings"]]
    record = json.loads((paper / "reproduction.json").read_text("utf-8"))
    for statement in record["statements"]:
        assert statement["text"].replace("'", "&#39;") in pieces["Table 5", "Semantic textual similarity"]
    assert "http" not in re.sub(r"https?://(www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", "", text)


def test_contents_follow_the_reader_and_fold_on_a_narrow_screen(page, browser):
    browser.get(page.as_uri())

    def all_of(selector):
        return browser.find_elements("css selector", selector)

    def at_width(width):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    at_width(1280)
    links = all_of(".contents a")
    headings = all_of("h2")
    assert len(links) == len(headings) - 1  # "How to read it" is not of the paper
    assert all(link.is_displayed() for link in links)
    links[4].click()
    assert browser.execute_script("return arguments[0].getBoundingClientRect().top", links[4]) > 0  # it stays in view
    current = "return document.querySelector('.contents [aria-current]')?.hash"
    assert (
        browser.execute_async_script(
            f"const done = arguments[0]; setTimeout(() => done((() => {{ {current} }})()), 500)"
        )
        == "#" + links[4].get_attribute("href").split("#")[1]
    )
    at_width(390)
    browser.get(page.as_uri())
    assert not all_of(".contents a")[0].is_displayed()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    all_of(".contents summary")[0].click()
    all_of(".contents a")[3].click()
    assert not all_of(".contents a")[0].is_displayed()
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.get_log("browser") == []
    requests = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = {r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"}
    assert {url.partition("#")[0] for url in urls if not url.startswith("data:")} == {page.as_uri()}


def test_an_ablation_says_what_came_out(paper):
    folder = paper / "ablations" / "dropout-mini"
    text = draw_ablation(folder)[folder / "index.html"].decode()
    findings = read_summary(folder / "summary.json")["findings"]
    said = shown_tally([Verdict(f["text"], f["verdict"]) for f in findings]).replace("'", "&#39;")
    assert f'<p class="said">{said}' in text
    assert 'class="contents"' not in text  # of one part
    assert text.count("<svg") == 1
