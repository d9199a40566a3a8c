"""results/index.html: its structure, and in a real browser every control at two widths in both schemes."""

import dataclasses
import json
from pathlib import Path

import pytest
from readers import SIZES, Page, Reader
from site_results import BEST, PAPER, WORDS, example

from simcse_bench import bundled
from simcse_bench.reports.folder import Results
from simcse_bench.reports.report import Report
from simcse_bench.reports.site import draw_site


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "index.html"
    path.write_bytes(draw_site(example()))
    return path


def test_the_structure_of_the_page(site):
    text = site.read_text("utf-8")
    page = Page(text)
    assert (page.open, page.closed_wrongly) == ([], [])
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert (
            link[1:] in page.ids if link.startswith("#") else link in ("paper/index.html", "robustness/index.html")
        ), link
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert page.images == []  # every figure says what it shows, or is told in words beside it
    assert page.unnamed == []
    words = {tuple(text.split(maxsplit=1)): kind.split()[1] for kind, text in page.verdicts}
    assert words == {
        ("✓", "holds"): "yes",
        ("✗", "does not hold"): "no",
        ("?", "undecided"): "open",
        ("1", "one seed"): "single",
    }
    assert set(page.made) == json.loads(text.split('id="made">')[1].split("</script>")[0]).keys()
    for note in (bundled.ENCODER, bundled.DATA):
        assert text.count(note) == 1  # a badge elsewhere
    assert "src=" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<b>Not" not in text


def test_the_same_results_give_the_same_page_and_others_another_source():
    first = draw_site(example())
    assert draw_site(example()) == first
    changed = example()
    other = dataclasses.replace(changed, reproductions={"paper": {**PAPER, "seeds": 3}})
    source = [page.split(b'name="source" content="')[1][:16] for page in (first, draw_site(other))]
    assert source[0] != source[1]


def test_of_nothing_there_is_a_page_without_empty_parts():
    page = Page(draw_site(Results()).decode())
    assert {link for link in page.links if link.startswith("#")} == {"#top", "#reading"}
    assert (page.open, page.closed_wrongly) == ([], [])


@pytest.mark.usefixtures("few_resamples")
def test_the_command_draws_it_and_knows_when_it_is_stale(cli, bert, senteval):
    for pooling in ("cls", "mean"):
        done = cli("eval", "--model", bert, "--pooling", pooling, "--head", "none", "--data-dir", senteval, "--device",
                   "cpu", "--name", f"<b>{pooling}</b>", "-q")  # fmt: skip
        assert done.code == 0, done.err
    assert cli("report", "results").code == 0
    text = Path("results/index.html").read_text("utf-8")
    (board,) = json.loads(text.split('id="boards">')[1].split("</script>")[0])
    reports = [Report.load(p) for p in Path("results/sts").glob("*.json")]
    assert {row["model"]: row["average"]["spearman"]["all"]["value"] for row in board["rows"]} == {
        r.model["name"]: r.average["spearman"]["all"]["value"] for r in reports
    }
    worst = json.loads(text.split('id="worst">')[1].split("</script>")[0])
    assert {len(task["pairs"]) for one in worst for task in one["tasks"]} == {20}
    assert "<b>cls" not in text
    assert cli("report", "results", "--check").code == 0
    next(Path("results/sts").glob("*cls*.json")).unlink()
    assert "index.html is stale" in cli("report", "results", "--check").err


def test_a_reader_sorts_and_switches_what_is_shown(site, browser):
    reader = Reader(browser, site)

    def models():
        return [t.splitlines() for t in reader.texts("#board0 tbody th")]

    assert [m[0] for m in models()] == [
        "sentence-transformers/",
        "mine embedded",
        WORDS,
        "◇ published: GloVe embeddings (avg.) (from SBERT paper)",
    ]
    assert [t.splitlines()[0] for t in reader.texts("#board0 tbody td.rank") if t] == ["1", "2", "3"]
    assert reader.texts("#board0 tbody tr:nth-child(2) td .value") == ["66.00", "71.00", "61.00"]
    assert reader.texts("#board0 tbody tr:nth-child(2) td .sd")[0].strip() == "± 1.41"
    assert reader.texts("#board0 tbody tr.published td")[-2:] == ["58.02", "53.76"]
    # by a task, then rising; the focus stays
    for expected in (
        ["sentence-transformers/", "mine embedded", WORDS],
        [WORDS, "mine embedded", "sentence-transformers/"],
    ):
        reader.press(next(b for b in reader.all("#board0 thead button") if b.get_attribute("data-column") == "SICKR"))
        assert [m[0] for m in models() if "published" not in m[0]] == expected
        assert browser.switch_to.active_element.get_attribute("data-column") == "SICKR"
    assert [th.get_attribute("aria-sort") for th in reader.all("#board0 thead th[aria-sort]")] == [
        "none",
        "none",
        "ascending",
    ]
    metric, aggregate = reader.all("#board0 select[data-switch]")
    reader.choose(metric, "pearson")
    reader.choose(aggregate, "wmean")
    assert reader.texts("#board0 tbody tr:last-child td .value") == ["67.50", "70.00", "65.00"]  # -10 and -2
    assert reader.all("#board0 tr.published") == []  # the paper has no pearson
    reader.choose(metric, "spearman")
    reader.choose(aggregate, "all")
    # seeds
    fold = reader.one("#board0 button.fold")
    assert (fold.text, fold.get_attribute("aria-expanded")) == ("mine:\n2 seeds ▸", "false")
    fold.send_keys("\n")  # by keyboard
    assert reader.texts("#board0 tr.seed th") == ["seed 1", "seed 2"]
    assert reader.texts("#board0 tr.seed:nth-of-type(n) td.average .value") == ["65.00", "67.00"]
    assert browser.switch_to.active_element.get_attribute("aria-expanded") == "true"
    # columns
    before = len(reader.all("#board0 thead th"))
    reader.press(reader.one("#board0 .menu summary"))
    boxes = {b.get_attribute("data-column"): b for b in reader.all("#board0 .choices input")}
    boxes["subsets"].click()
    assert len(reader.all("#board0 thead th")) == before + 4
    boxes["sickr"].click()
    assert len(reader.all("#board0 thead th")) == before + 1
    boxes["bars"].click()
    assert reader.all("#board0 .interval") == []
    boxes["published"].click()
    assert reader.all("#board0 tr.published") == []
    assert "cls" in reader.one("#board0 tbody tr:nth-child(1) th").text
    boxes["settings"].click()
    assert reader.texts("#board0 tbody tr th")[0] == WORDS
    browser.switch_to.active_element.send_keys("\ue00c")  # escape
    assert not reader.one("#board0 .choices").is_displayed()
    # a model brought forward in the strip plot
    legend = reader.all("#board0 .legend button")
    reader.press(legend[1])
    assert {g.get_attribute("data-lane") for g in reader.all("#board0 .plot g.on")} == {"1"}
    reader.press(reader.all("#board0 .legend button")[1])
    assert reader.all("#board0 .plot g.on") == []
    reader.ends()


def test_a_reader_filters(site, browser):
    reader = Reader(browser, site)

    def boards():
        return [t.splitlines()[0] for t in reader.texts("#leaderboards .board h3")]

    everything = boards()
    assert len(everything) == 5
    text, (language, numbers, protocol) = reader.one("#filters input"), reader.all("#filters select")
    assert reader.one("#count").text == "8 of 8 rows"
    text.send_keys("MINI")
    assert reader.one("#count").text == "2 of 8 rows"  # all-MiniLM, and mini in mteb's table
    assert boards() == ["STS", "mteb's own tasks"]
    text.send_keys("nothing of the kind")
    assert boards() == []
    assert reader.one("#none").is_displayed()
    text.clear()
    text.send_keys(" ", "\ue003")
    reader.choose(language, "vi")
    assert boards() == ["STSB-VI"]
    reader.choose(language, "all")
    reader.choose(numbers, "embedded")
    assert boards() == ["STS", "MINI-STS embedded", "mteb's own tasks"]
    assert reader.texts("#board0 tbody th")[0].startswith("mine")
    reader.choose(numbers, "real")
    assert "MINI-STS embedded" not in boards()
    reader.choose(numbers, "all")
    reader.choose(protocol, "mteb")
    assert boards() == ["STS"]
    reader.choose(protocol, "mteb's own")
    assert boards() == ["mteb's own tasks"]
    reader.choose(protocol, "all")
    assert boards() == everything
    reader.ends()


def test_a_number_opens_what_decided_it_and_its_command_is_copied(site, browser):
    reader = Reader(browser, site)
    drawer = reader.one("#drawer")
    score = reader.one("#board0 tbody tr:nth-child(1) td:nth-of-type(3) button.score")
    assert score.text == "82.00"
    score.send_keys("\n")
    assert "all-MiniLM-L6-v2: STSB" in drawer.text
    assert "82.00 (95 %: 81.00 to 83.00)" in drawer.text
    for fact in ("x/0.json", "torch 2", "5 rows, f"):
        assert fact in drawer.text
    command = f"simcse-bench eval --model {BEST} --max-length 256 --suite sts"
    assert reader.one("#drawer pre").text == command
    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    reader.press(reader.one("#copy"))
    assert browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == command
    assert reader.one("#copied").text == "copied"
    browser.switch_to.active_element.send_keys("\ue00c")
    assert not drawer.is_displayed()
    # a row of seeds: a command and a list of facts each
    reader.press(reader.one("#board0 tbody tr:nth-child(2) td.average button.score"))
    assert "66.00 ± 1.41" in reader.one("#drawer .score").text
    assert [line.split("--name ")[1] for line in reader.one("#drawer pre").text.splitlines()] == [
        "mine-seed1 --suite sts", "mine-seed2 --suite sts",
    ]  # fmt: skip
    assert reader.texts("#drawer .facts summary") == ["mine-seed1", "mine-seed2"]
    assert "the folder of the model" in drawer.text
    reader.press(reader.one("#drawer form button"))
    # part of a reproduction
    mini = next(b for b in reader.shown(".board") if b.text.startswith("MINI-STS"))
    reader.press(mini.find_element("css selector", "button.score"))
    assert reader.one("#drawer pre").text == "simcse-bench reproduce simcse-2021 --preset mini --seeds 2"
    reader.press(reader.one("#drawer form button"))
    reader.press(reader.all("#ablations [data-made]")[0])
    assert reader.one("#drawer pre").text.startswith("simcse-bench run-ablation dropout --preset mini --seeds 2")
    reader.ends()


def test_a_reader_browses_statements_and_pairs(site, browser):
    reader = Reader(browser, site)
    assert reader.texts(".tally") == ["3 ✓ holds", "2 ✗ does not hold", "2 ? undecided"]
    assert len(reader.shown(".claim li[data-verdict]")) == 7
    reader.press(reader.one(".tally.yes"))
    reader.press(reader.one(".tally.no"))
    assert reader.texts(".claim:not(.axis) p") == ["0.1 beats 0.0"]
    assert reader.one(".tally.yes").get_attribute("aria-pressed") == "false"
    reader.press(reader.one(".tally.yes"))
    assert reader.texts(".claim:not(.axis) p") == ["training helps", "0.1 beats 0.5", "0.1 beats 0.0"]
    # a link into the folded ablations of the reproduction opens them
    assert not reader.one("#paper-dropout-mini").is_displayed()
    reader.press(next(a for a in reader.all(".where a") if a.get_attribute("href").endswith("#paper-dropout-mini")))
    assert reader.one("#paper-dropout-mini").is_displayed()
    model, task = reader.all("#pairs select")
    assert [t.splitlines()[0] for t in reader.texts("#pairs tbody td.words")] == [
        "A guitar.",
        "An instrument.",
        "<b>Not</b> so.",
        "So.",
    ]
    reader.choose(task, "SICKR")
    assert len(reader.all("#pairs tbody tr")) == 1
    reader.choose(task, "STSB")
    reader.one("#pairs input").send_keys("Guitar")
    assert reader.texts("#pairs tbody td.words") == ["A guitar.", "An instrument."]
    reader.one("#pairs input").clear()
    reader.one("#pairs input").send_keys(" ", "\ue003")
    reader.choose(model, "[CLS]")
    assert reader.texts("#pairs tbody td.words") == ["<b>Not</b> so.", "So."]
    reader.ends()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_control_works_at_every_size(site, browser, width, scheme):
    reader = Reader(browser, site, width, scheme)
    assert reader.wide() <= width
    for board in reader.shown(".board"):
        for score in board.find_elements("css selector", "tbody tr:first-child td:not(.rank)")[:1]:
            assert score.rect["x"] + score.rect["width"] <= width, "a model's name pushes the scores out"
    light = reader.one("#scheme").get_attribute("aria-pressed")
    assert light == str(scheme == "dark").lower()
    grounds = [browser.execute_script("return getComputedStyle(document.body).backgroundColor")]
    reader.press(reader.one("#scheme"))
    grounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert grounds == sorted(["rgb(20, 23, 27)", "rgb(255, 255, 255)"], reverse=scheme == "light")
    browser.refresh()  # the choice is kept
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == grounds[1]
    reader.press(reader.one("#scheme"))
    for link in range(len(reader.all(".bar a"))):
        reader.all(".bar a")[link].click()
    for summary in reader.shown("main details:not(.menu) > summary")[::-1]:  # the inner ones first
        reader.press(summary)
    for summary in reader.all(".strips:not([open]) > summary, .sweeps:not([open]) > summary"):
        reader.press(summary)  # those that were open
    kinds = "all('main button').map((b) => b.className + ' in ' + b.closest('[id]').id + b.parentNode.className)"
    kinds = browser.execute_script(f"return {kinds}")  # one of a kind stands for all
    for place in sorted(kinds.index(kind) for kind in set(kinds)):
        button = reader.all("main button")[place]
        if button.is_displayed():
            reader.press(button)
        if reader.shown("#drawer"):
            assert reader.one("#drawer pre").text.startswith("simcse-bench ")
            reader.press(reader.one("#drawer form button"))
    assert len(set(kinds)) > 15
    for select in reader.all("main select"):
        for option in select.find_elements("css selector", "option")[::-1]:
            option.click()
    for menu in reader.shown(".menu summary"):
        reader.press(menu)
        for box in reader.shown(".choices input"):
            reader.press(box)
    for box in reader.shown("main input[type=search]"):
        box.send_keys("a")
    assert reader.wide() <= width
    reader.ends()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_axe_finds_no_serious_fault(site, browser, width, scheme):
    reader = Reader(browser, site, width, scheme)
    for summary in reader.all("main details:not([open]):not(.menu) > summary"):
        reader.press(summary)
    reader.press(reader.one("#board0 button.fold"))
    reader.press(reader.one("#board0 .menu summary"))
    assert reader.faults() == []
    reader.press(reader.one("#board0 .menu summary"))
    reader.press(reader.all("#board0 button.score")[0])
    assert reader.faults() == []


def test_print_shows_what_was_folded_and_no_control(site, browser):
    reader = Reader(browser, site, 720)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert reader.one("#paper-dropout-mini").is_displayed()
    assert reader.shown(".bar, main select, main input, .menu, button.fold") == []
    assert reader.wide() <= 720  # A4 between its margins
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert not reader.one("#paper-dropout-mini").is_displayed()
