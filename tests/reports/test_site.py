"""results/index.html in a real browser: sorted, switched, opened; nothing is fetched, nothing fails."""

import json
from pathlib import Path

import pytest

from simcse_bench.reports.report import Report

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def site(cli, bert, senteval):
    for pooling in ("cls", "mean", "first_last"):
        done = cli("eval", "--model", bert, "--pooling", pooling, "--head", "none", "--data-dir", senteval, "--device",
                   "cpu", "--name", f"<b>{pooling}</b>", "-q")  # fmt: skip
        assert done.code == 0, done.err
    assert cli("report", "results").code == 0
    return Path("results/index.html").resolve()


def scores(metric="spearman", aggregate="all"):
    reports = [Report.load(p) for p in sorted(Path("results/sts").glob("*.json"))]
    return {r.model["name"]: r.average[metric][aggregate]["value"] for r in reports}


def test_the_page_holds_every_number_and_fetches_nothing(site, cli):
    text = site.read_text("utf-8")
    content = text.split('id="boards">')[1].split("</script>")[0]
    (board,) = json.loads(content)
    assert {len(pairs) for row in board["rows"] for pairs in row["worst"].values()} == {20}
    assert {row["model"]: row["average"]["spearman"]["all"]["value"] for row in board["rows"]} == scores()
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    assert "<b>cls" not in text
    assert cli("report", "results", "--check").code == 0
    next(Path("results/sts").glob("*cls*.json")).unlink()
    done = cli("report", "results", "--check")
    assert "index.html is stale" in done.err


def test_a_reader_sorts_switches_and_opens_a_number(site, browser):
    browser.get(site.as_uri())

    def all_of(selector):
        return browser.find_elements("css selector", selector)

    def models():
        return [e.text for e in all_of(".scores tbody th")]

    def best_first(found):
        return [m for m, _ in sorted(found.items(), key=lambda item: -item[1])]

    assert models() == best_first(scores())
    (button,) = [b for b in all_of(".scores thead button") if b.get_attribute("data-column") == "Avg."]
    button.click()
    assert models() == best_first(scores())[::-1]
    assert browser.switch_to.active_element.get_attribute("data-column") == "Avg."
    metric, aggregate = all_of("select[data-switch]")
    metric.send_keys("pearson")
    aggregate.send_keys("wmean")
    shown = {m: c.text for m, c in zip(models(), all_of(".scores tbody td:last-child"), strict=True)}
    assert shown == {m: f"{v:.2f}" for m, v in scores("pearson", "wmean").items()}
    before = len(all_of(".scores thead th"))
    all_of("input[type=checkbox]")[0].click()
    assert len(all_of(".scores thead th")) > before + 15
    all_of("button.score")[0].send_keys("\n")  # by keyboard
    box = all_of("dialog")[0]
    assert box.is_displayed()
    for expected in ("weights", "versions", "model.safetensors", "95 % interval"):
        assert expected in box.text
    box.find_element("css selector", "button").click()
    assert not box.is_displayed()
    all_of(".worst summary")[0].click()
    model, task = all_of(".worst select")
    assert len(all_of(".worst tbody tr")) == 20
    task.send_keys("SICK")
    model.send_keys("<b>mean")
    assert task.get_attribute("value") == "sickr"
    shown = [e.text for e in all_of(".worst tbody td.words")]
    (path,) = Path("results/sts").glob("*mean*.pairs.jsonl")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    (worst,) = [row["worst"] for row in rows if row.get("task") == "sickr"]
    assert shown == [pair[side] for pair in worst for side in ("left", "right")]
    all_of(".worst input")[0].send_keys("Guitar")
    assert len(all_of(".worst tbody tr")) == sum("guitar" in pair["left"] + pair["right"] for pair in worst)
    assert browser.get_log("browser") == []
    requests = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = {r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"}
    assert urls <= {site.as_uri()}
