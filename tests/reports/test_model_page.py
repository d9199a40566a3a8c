"""A page on one model: what stands on it by hand, its commands, when it is stale; in a real browser."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from readers import SIZES, Page, Reader
from site_results import BEST, WORDS, analysis, example, mteb_report, report, sweep
from summaries import changed

from simcse_bench import bundled
from simcse_bench.__main__ import app
from simcse_bench.errors import UserError
from simcse_bench.reports.folder import Results
from simcse_bench.reports.model_page import draw_model, find_model, models_of, results_of
from simcse_bench.reports.report import Report
from simcse_bench.reports.standings import Saved

COMMANDS = typer.main.get_command(app).commands
SPEED = {
    "title": f"Embedding: {BEST.rpartition('/')[2]}, cpu", "reference": "a", "note": "Clock.",
    "rows": [{"what": "a", "dtype": "float32", "seconds": [2.0], "median": 2.0, "sentences": 9, "peak_mb": None}],
    "environment": {"processor": "p", "cores": 2, "versions": {}},
}  # fmt: skip


def everything():
    """Of one model something of all kinds, some of it with the embedded encoder or data."""
    results = example()
    model = {"name": BEST, "pooling": "mean", "head": "none", "max_length": 256}
    own = analysis("x", 0.2) | {"model": model}
    moved = changed("x") | {"model": model}
    mteb = dataclasses.replace(mteb_report("m", 80.0), model=model)
    first = results.reports[0]
    first = dataclasses.replace(
        first,
        report=dataclasses.replace(first.report, stats={"sentences": 100, "tokens": 1000}),
        seen={"stsb": "trained on data of this task (stsb)"},
    )
    short = report(BEST, {"stsb": 81.0, "sickr": 76.0}, max_length=256, dtype="bfloat16")
    reports = [first, *results.reports[1:], Saved("x/short.json", short)]
    return dataclasses.replace(
        results, reports=reports, analyses={"analysis": [own]}, robustness=[moved], mteb={"mteb/m.json": mteb},
        sweeps={"ablations/dropout-mini": sweep() | {"model": {"name": BEST, "embedded": False}}},
        speeds={"speed/a.json": SPEED, "speed/b.json": SPEED | {"title": "of another"}},
    )  # fmt: skip


def drawn(results, name, folder=Path("results")):
    html, markdown = draw_model(folder, results, name).values()
    return html.decode(), markdown.decode()


def parts(markdown):
    """Heading -> what is below it."""
    pieces = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def rows(text):
    """The cells of the tables in a Markdown text."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|") and ":-" not in line]
    return [[cell.strip() for cell in line] for line in lines]


def test_what_stands_on_it():
    _, markdown = drawn(everything(), BEST)
    page = parts(markdown)
    assert list(page) == [
        "Model", "Scores", "STS, cls", "STS, cls, bfloat16", "mteb's own tasks, BIOSSES", "Geometry (embedded)",
        "Robustness (embedded)", "Training text and contamination", "Speed", "Ablations that start from it",
        "Not measured here", "What it is drawn from",
    ]  # fmt: skip
    assert "- at most: 256 tokens\n- dimensions: 64\n" in page["Model"]
    assert rows(page["Scores"])[1:] == [
        ["STS, cls", "79.50", "78.50 to 80.50"], ["STS, cls, bfloat16", "78.50", "77.50 to 79.50"],
    ]  # fmt: skip
    sts = page["STS, cls"]
    assert "Average 79.50 (95 %: 78.50 to 80.50).\n" in sts
    assert rows(sts)[:4] == [
        ["task", "rows", "Spearman ×100", "95 %", "Pearson"], ["STSB", "5", "82.00", "81.00 to 83.00", "72.00"],
        ["SICKR", "5", "77.00", "76.00 to 78.00", "67.00"], ["Avg.", "", "79.50", "78.50 to 80.50", "69.50"],
    ]  # fmt: skip
    assert ["STSB", "· news", "2", "59.00", "58.0–60.0"] in rows(sts)  # the subsets
    assert f"```bash\nsimcse-bench eval --model {BEST} --max-length 256 --suite sts\n```" in sts
    assert "- versions: torch 2\n" in sts
    assert "[report x/0.json](../x/0.md)" in sts
    assert "† " + BEST in sts
    assert ["STSB", "trained on data of this task (stsb)"] in rows(page["Training text and contamination"])
    assert "snli" in page["Training text and contamination"]
    assert "- alignment: 0.200\n- uniformity: -2.50\n" in page["Geometry (embedded)"]
    assert ["1 to 2", "5", "0.20", "0.10 to 0.30"] in rows(page["Geometry (embedded)"])
    assert "simcse-bench analyze --model " in page["Geometry (embedded)"]
    assert "- separated %: 88.0\n" in page["Robustness (embedded)"]
    assert ["BIOSSES", "STS", "cosine_spearman", "test", "80.00"] in [
        [c.replace("\\", "") for c in row] for row in rows(page["mteb's own tasks, BIOSSES"])
    ]
    assert f"eval --model {BEST} --max-length 256 --suite mteb:BIOSSES\n" in page["mteb's own tasks, BIOSSES"]
    assert ["STS, cls", "float32", "100", "1.0", "100", "1,000", "p, 2 cores"] in rows(page["Speed"])
    assert page["Speed"].count("**Embedding:") == 1  # that of another is not its
    assert "(../ablations/dropout-mini/index.html)" in page["Ablations that start from it"]
    missing = dict(re.findall(r"^- (.+?): `(.+)`$", page["Not measured here"], re.MULTILINE))
    assert missing["probing tasks"].endswith("--suite probing")
    assert missing["STS"].endswith("--task sts12,sts13,sts14,sts15,sts16")  # what of the suite is missing
    assert missing["SentEval's other tasks (SST5, SICK-E, SICK-R (probe), STS-B (probe))"].endswith(
        "sickr-probe,stsb-probe"
    )
    assert not {"geometry", "robustness", "mteb's own tasks"} & missing.keys()
    assert "–" not in page["Scores"]  # nothing is filled in


def test_seeds_are_one_page_with_the_published_row_beside():
    results = example()
    html, markdown = drawn(results, "mine")
    page = parts(markdown)
    assert "2 seeds, means ± standard deviations" in markdown
    assert rows(page["STS"])[1:4] == [
        ["STSB", "5", "71.00 ± 1.41", *rows(page["STS"])[1][3:]],
        ["SICKR", "5", "61.00 ± 1.41", *rows(page["STS"])[2][3:]],
        ["Avg.", "", "66.00 ± 1.41", *rows(page["STS"])[3][3:]],
    ]
    assert ["seed 2", "72.00", "62.00", "67.00"] in rows(page["STS"])
    assert [line.split("--name ")[1] for line in page["STS"].splitlines() if "--name" in line] == [
        "mine-seed1 --suite sts", "mine-seed2 --suite sts",
    ]  # fmt: skip
    assert "MODEL_FOLDER: the folder" in page["STS"]
    assert html.count('class="badge"') == 1  # the note's: the data is real
    _, words = drawn(results, WORDS)
    assert "58.02" in parts(words)["STS"]  # GloVe's
    assert "other vectors" in parts(words)["STS"]
    assert ["STS", "55.50", "54.50 to 56.50", "61.32", "-5.82"] in rows(parts(words)["Scores"])


def test_every_command_on_it_is_understood():
    for results in (example(), everything()):
        for name in models_of(results):
            _, markdown = drawn(results, name)
            lines = re.findall(r"^(?:- .+: `)?(simcse-bench .+?)`?$", markdown, re.MULTILINE)
            assert len(lines) > 8
            for line in lines:
                _, command, *words = shlex.split(line)
                if command == "data":
                    COMMANDS["data"].commands[words[0]].make_context(words[0], words[1:])
                else:
                    COMMANDS[command].make_context(command, words)


def test_the_structure_of_the_page():
    for name in (BEST, "mine", "[CLS]"):
        html, _ = drawn(everything(), name)
        page = Page(html)
        assert (page.open, page.closed_wrongly) == ([], [])
        assert len(page.ids) == len(set(page.ids))
        assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
        assert page.headings.count(1) == 1
        assert page.images == []
        assert "src=" not in html
        assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
        for note in (bundled.ENCODER, bundled.DATA):
            assert html.count(note) <= 1


def test_a_name_is_found():
    names = {"a/Model-x": ["a/Model-x"], "b/other": ["b/other"], "c/other": ["c/other"], "mine": ["mine-1", "mine-2"]}
    for given, meant in {"a/Model-x": "a/Model-x", "A/MODEL-X": "a/Model-x", "model-X": "a/Model-x", "mine": "mine",
                         "mine-2": "mine"}.items():  # fmt: skip
        assert find_model(given, names) == meant
    with pytest.raises(UserError, match=r"'other': b/other and c/other are called so"):
        find_model("other", names)
    with pytest.raises(
        UserError, match=r"unknown model 'Modelx'; did you mean 'a/Model-x'\? Known: a/Model-x, b/other"
    ):
        find_model("Modelx", names)


def test_a_page_is_drawn_from_its_models_results_only():
    results = everything()
    mine = results_of(results, BEST)
    assert {s.report.model["name"] for s in mine.reports} == {BEST}
    assert list(mine.speeds) == ["speed/a.json"]
    assert mine.reproductions == {}
    source = re.compile(r'name="source" content="(\w+)"')
    other = dataclasses.replace(results, reports=[s for s in results.reports if s.report.model["name"] != WORDS])
    fewer = dataclasses.replace(results, robustness=())
    first, same, changed_source = (source.search(drawn(r, BEST)[0])[1] for r in (results, other, fewer))
    assert first == same != changed_source
    assert list(results_of(results, "[CLS]").reproductions) == ["paper"]
    command = "simcse-bench reproduce simcse-2021 --preset mini --seeds 2"
    assert command in parts(drawn(results, "[CLS]")[1])["MINI-STS (embedded)"]


def test_elsewhere_it_has_no_links(tmp_path):
    inside, outside = (draw_model(tmp_path / "results", example(), BEST, out) for out in (None, tmp_path / "pages"))
    assert next(iter(inside)) == tmp_path / "results/models/sentence-transformers__all-MiniLM-L6-v2.html"
    assert [b"](../" in text for path, text in (*inside.items(), *outside.items()) if path.suffix == ".md"] == [
        True,
        False,
    ]
    assert str(tmp_path).encode() not in b"".join([*inside.values(), *outside.values()])


@pytest.mark.usefixtures("few_resamples")
def test_the_command_writes_it_and_report_keeps_it(cli):
    for name, size in (("a/first", 20), ("second", 30)):
        done = cli("eval", f"random-words:{size}", "--suite", "mini", "--name", name, "-q")
        assert done.code == 0, done.err
    assert cli("report").code == 0
    (path,) = Path("results/mini").glob("*first.json")
    value = Report.load(path).tasks["mini-sts"]["scores"]["spearman"]["all"]["value"]
    done = cli("card", "First")
    assert done.code == 0, done.err
    assert f"{value:.2f}" in done.out
    assert done.err.strip() == "written: results/models/a__first.html (.md)"
    page = Path("results/models/a__first.html")
    assert f"{value:.2f}" in page.with_suffix(".md").read_text("utf-8")
    assert "index.html is stale" in cli("report", "--check").err
    assert cli("report").code == 0
    assert cli("report", "--check").code == 0
    boards = json.loads(Path("results/index.html").read_text("utf-8").split('id="boards">')[1].split("</script>")[0])
    assert {row["model"]: row["page"] for row in boards[0]["rows"]} == {
        "a/first": "models/a__first.html", "second": "",
    }  # fmt: skip
    # another number makes it stale, an older page of ours is named, and one that is not ours stays
    saved = json.loads(path.read_text("utf-8"))
    saved["tasks"]["mini-sts"]["scores"]["spearman"]["all"]["value"] = 10.0
    path.write_text(json.dumps(saved), encoding="utf-8")
    assert "models/a__first.html is stale" in cli("report", "--check").err
    page.rename(page.with_name("gone.html"))
    assert "gone.html is stale: no model" in cli("report", "--check").err
    page.write_text("mine", encoding="utf-8")
    done = cli("card", "a/first")
    assert (done.code, "not a page of simcse-bench" in done.err) == (2, True)
    assert page.read_text("utf-8") == "mine"
    done = cli("card", "a/first", "--out", "pages", "-q")
    assert (done.code, done.err) == (0, "")
    text = Path("pages/a__first.md")
    assert cli("card", "a/first", "--out", "pages", "-q").code == 0  # its own page is drawn again
    text.write_text("mine", encoding="utf-8")
    Path("pages/a__first.html").unlink()
    done = cli("card", "a/first", "--out", "pages")
    assert (done.code, "a__first.md: not a page of simcse-bench" in done.err) == (2, True)
    assert (text.read_text("utf-8"), list(Path("pages").iterdir())) == ("mine", [text])


def test_bad_input_is_told_in_a_line(cli):
    assert cli("card", "mini").err.startswith("error: results: no such folder")
    Path("results").mkdir()
    done = cli("card", "mini")
    assert (done.code, done.err) == (
        2,
        "error: results: no results of a model; `simcse-bench eval MODEL` writes them.\n",
    )
    report("mine", {"stsb": 70.0}).save(Path("results/sts/mine.json"))
    Path("results/sts/b.json").write_text("{", encoding="utf-8")
    done = cli("card", "mime")
    assert (done.code, done.err) == (2, "error: unknown model 'mime'; did you mean 'mine'? Known: mine.\n")
    done = cli("card", "mine")
    assert done.code == 0
    assert "left out: results/sts/b.json: not readable JSON" in done.err


def test_no_model_is_loaded(tmp_path):
    report("mine", {"stsb": 70.0}).save(tmp_path / "results/sts/mine.json")
    code = (
        "import sys; from simcse_bench import write_model_page; write_model_page('mine')\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture
def page(tmp_path):
    for path, content in draw_model(tmp_path, everything(), BEST).items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return next(tmp_path.rglob("*.html"))


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_a_reader_at_every_size(page, browser, width, scheme):
    reader = Reader(browser, page, width, scheme)
    assert reader.wide() <= width
    assert len(reader.shown("td.mark .mean")) == (0 if width < 500 else len(reader.all("td.mark .mean")))
    for summary in reader.shown("main details > summary"):
        reader.press(summary)
    assert reader.wide() <= width
    assert reader.shown("dl:not(.facts):not(.commands) dd")
    reader.ends()
    assert reader.faults() == []


def test_print(page, browser):
    reader = Reader(browser, page, 720)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not reader.one(".contents").is_displayed()
    assert reader.wide() <= 720


def test_of_no_report_there_is_still_a_page():
    results = Results(robustness=[changed("only")])
    assert list(parts(drawn(results, "only")[1])) == [
        "Model", "Robustness (embedded)", "Training text and contamination", "Not measured here", "What it is drawn from",
    ]  # fmt: skip
