import os
import re

import pytest

from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_suite, load_suites, load_task, same_name, task_name, task_names
from simcse_bench.data.task import MTEB
from simcse_bench.errors import UserError


def total(name: str, split: str) -> int:
    return sum(n for n in load_task(name).splits[split].values() if n)


@pytest.mark.parametrize(
    ("name", "split", "rows"),
    [
        ("sts12", "test", 3108), ("sts13", "test", 1500), ("sts14", "test", 3750), ("sts15", "test", 3000),
        ("sts16", "test", 1186), ("stsb", "dev", 1500), ("stsb", "test", 1379), ("sickr", "test", 4927),
        ("sickr", "all", 9927), ("mr", "all", 10662), ("cr", "all", 3775), ("subj", "all", 10000),
        ("mpqa", "all", 10606), ("sst2", "train", 67349), ("trec", "train", 5452), ("mrpc", "test", 1725),
    ],
)  # fmt: skip
def test_row_counts_are_those_of_the_papers(name, split, rows):
    assert total(name, split) == rows


def test_suites_are_the_papers_columns():
    assert [t.name for t in load_suite("sts")] == ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"]
    assert [t.name for t in load_suite("transfer")] == ["mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc"]
    members = {t.partition("/")[0] for members in load_suites().values() for t in members}
    assert set(task_names()) == members | {"evalrank-stsb"}  # where STR-2022 is not here


def test_mteb_reads_all_of_sick():
    assert MTEB.split_of(load_task("sickr")) == "all"
    assert MTEB.split_of(load_task("stsb")) == "test"


def test_unknown_names_suggest():
    with pytest.raises(UserError, match="unknown task 'sts18'; did you mean 'sts1"):
        load_task("sts18")
    with pytest.raises(UserError, match="unknown suite 'stss'; did you mean 'sts'"):
        load_suite("stss")
    with pytest.raises(UserError, match="unknown task 'suites'"):  # a file of that name exists, but is no task
        load_task("suites")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("STSBenchmark", "stsb"), ("STSB", "stsb"), ("STS-B", "stsb"), ("sts_b", "stsb"), ("STS-B de", "stsb-de"),
        ("SICKRelatedness", "sickr"), ("SICK-R", "sickr"), ("sick-r", "sickr"), ("STS12", "sts12"), ("STS16", "sts16"),
        ("MRPC", "mrpc"), ("SST2", "sst2"), ("SST-2", "sst2"), ("SUBJ", "subj"), ("TREC", "trec"), ("KorSTS", "korsts"),
    ],
)  # fmt: skip
def test_sentevals_mtebs_and_the_papers_names(name, task):
    assert load_task(name).name == task_name(name) == task


def test_names_of_other_data_are_no_aliases():
    for name in ("STSBenchmarkMultilingualSTS", "STSBenchmark-VN", "SICK-E-PL"):
        with pytest.raises(UserError, match="unknown task"):
            load_task(name)
    assert task_name("STSBenchmark.v2") == "stsb-v2"
    with pytest.raises(UserError, match=r"did you mean 'STSBenchmark'.*--suite mteb:NAME"):
        load_task("STSBenchmrk")


def test_no_two_tasks_share_a_name():
    tasks = [load_task(name) for name in task_names()]
    spellings = [name for task in tasks for name in {same_name(n) for n in (task.name, task.title, *task.aliases)}]
    assert len(spellings) == len(set(spellings)) > len(tasks)


def test_suites_in_any_spelling():
    assert load_suite("STS") == load_suite("sts")
    assert load_suite("STS_JA") == load_suite("sts-ja")


def test_a_users_task_may_have_aliases_and_comes_first(tasks_dir):
    own = tasks_dir / "own.yaml"
    own.write_text("aliases: [Mine, STSBenchmark]\n" + own.read_text())
    (tasks_dir / "broken.yaml").write_text("aliases: [: [")  # is told when it is named
    assert load_task("MINE", tasks_dir).name == load_task("stsbenchmark", tasks_dir).name == "own"
    assert load_task("stsb", tasks_dir).name == "stsb"
    own.write_text("aliases: mine\n" + own.read_text().partition("\n")[2])
    with pytest.raises(UserError, match=r"own\.yaml: aliases: expected a list of other names"):
        load_task("own", tasks_dir)


def test_a_users_folder_adds_tasks_and_suites(tasks_dir):
    (tasks_dir / "suites.yaml").write_text("mine: [own, stsb]\n")
    assert [t.name for t in load_suite("mine", tasks_dir)] == ["own", "stsb"]
    assert "own" in task_names(tasks_dir)
    assert "own" not in task_names()


def test_a_built_in_name_is_taken_but_for_a_copy(tasks_dir):
    """Published numbers stand beside its scores, and reports say no more of a task than its name."""
    built_in = load_task("stsb").folder / "stsb.yaml"
    (tasks_dir / "stsb.yaml").write_bytes(built_in.read_bytes())
    assert load_task("stsb", tasks_dir).name == "stsb"
    (tasks_dir / "stsb.yaml").write_bytes(b"# a comment\n" + built_in.read_bytes())
    assert load_task("stsb", tasks_dir).name == "stsb"
    (tasks_dir / "stsb.yaml").write_text((tasks_dir / "own.yaml").read_text())
    for read in (lambda: load_task("own", tasks_dir), lambda: load_suites(tasks_dir), lambda: task_names(tasks_dir)):
        with pytest.raises(UserError, match=r"stsb\.yaml: task 'stsb' comes with simcse-bench, .* Give yours another"):
            read()
    (tasks_dir / "stsb.yaml").unlink()
    suites = tasks_dir / "suites.yaml"
    suites.write_text("mine: [own]\nsts: [own]\n")
    with pytest.raises(UserError, match=r"suites\.yaml: suite 'sts' comes with simcse-bench"):
        load_suites(tasks_dir)
    suites.write_text(f"mine: [own]\nsts: {load_suites()['sts']}\n")
    assert load_suites(tasks_dir)["mine"] == ["own"]


def test_all_problems_of_a_task_file_at_once(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "kind: stx\nsource: {format: tsw, path: x}\nsplit: {test: {a: 1}}\ngold: 5\n", encoding="utf-8"
    )
    (tmp_path / "kind.yaml").write_text(
        "kind: stx\nsource: {format: tsv, path: x}\nsplits: {test: {a: 1}}\nunique: [test]\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="unknown kind 'stx'") as error:
        load_task("kind", tmp_path)
    assert len(error.value.problems) == 1  # whether it may have unique is not known
    with pytest.raises(UserError) as error:
        load_task("bad", tmp_path)
    text = str(error.value)
    for part in (
        "unknown kind 'stx'",
        "unknown format of stx tasks 'tsw'",
        "unknown field 'split'; did you mean 'splits'",
        "gold",
    ):
        assert part in text, text
    (tmp_path / "worse.yaml").write_text("a: [1,\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"worse\.yaml:2: not a readable YAML"):
        load_task("worse", tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        load_task("own", tmp_path / "nowhere")


def test_text_variant_that_a_task_lacks():
    with pytest.raises(UserError, match="unknown text variant of task sts12 'cooked'"):
        load_task("sts12").source("cooked")
    assert load_task("sickr").source("raw")[0] == "only"


GOOD = {"source": {"format": "tsv", "path": "x"}, "splits": {"test": {"test": 3}}}
TRANSFER = GOOD | {"kind": "transfer", "labels": ["a", "b"], "probe": "kfold", "source": {"format": "sst", "path": "x"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (GOOD | {"source": None}, "expected fields such as {format: tsv"),
        (GOOD | {"source": [1, 2]}, "expected fields such as {format: tsv"),
        (GOOD | {"source": {"format": 5, "path": "x"}}, "unknown format of sts tasks '5'"),
        (GOOD | {"source": {"format": "tsv"}}, "path: expected text, found None"),
        (GOOD | {"source": {"format": "hub"}}, "dataset: expected text, found None"),
        (GOOD | {"source": {"format": "tsv", "path": "{foo}"}}, "only {split}, {subset} and {part}"),
        (GOOD | {"source": {"format": "tsv", "path": "a{.tsv"}}, "only {split}, {subset} and {part}"),
        (GOOD | {"source": {"format": "tsv", "path": "a{split.x}"}}, "only {split}, {subset} and {part}"),
        (GOOD | {"source": {"format": "tsv", "path": "x", "encoding": "klingon"}}, "encoding 'klingon'"),
        (GOOD | {"source": {"format": "tsv", "path": "x", "columns": {"gold": 0}}}, "expected gold, left and right"),
        (
            GOOD | {"source": {"format": "tsv", "path": "x", "columns": {"gold": "s", "left": 1, "right": 2}}},
            "gold is 's'",
        ),
        (
            GOOD | {"source": {"format": "tsv", "path": "x", "columns": {"gold": 0, "left": -1, "right": 2}}},
            "left is -1",
        ),
        (GOOD | {"source": {"format": "sst", "path": "x"}}, "unknown format of sts tasks 'sst'"),
        (GOOD | {"splits": {"test": {}}}, "splits: expected"),
        (GOOD | {"splits": {"test": {"test": "3"}}}, "splits: expected"),
        (
            GOOD | {"source": {"format": "tsv", "path": "x", "header": "no"}},
            "header: expected true or false, found 'no'",
        ),
        (GOOD | {"source": {"format": "tsv", "path": "x", "header": 1}}, "header: expected true or false, found 1"),
        (GOOD | {"source": {"format": "tsv", "path": "x", "encoding": "hex"}}, "encoding 'hex'"),
        (GOOD | {"source": {"format": "tsv", "path": "x", "encoding": "a\0b"}}, "encoding 'a\\x00b'"),
        (GOOD | {"source": {"format": "tsv", "path": "x", "encoding": ["utf-8"]}}, "encoding ['utf-8']"),
        (GOOD | {"source": {"format": "tsv", "path": "x", "widths": 7}}, "widths: expected the numbers of fields"),
        (GOOD | {"source": {"format": "tsv", "path": "x", "widths": [7, True]}}, "widths: expected the numbers"),
        (GOOD | {"source": {"format": "tsv", "path": "a\0b"}}, "path: expected text, found 'a\\x00b'"),
        (GOOD | {"source": {"format": "tsv", "path": "{split:>99999999999}"}}, "only {split}, {subset} and {part}"),
        (GOOD | {"source": {"format": "tsv", "path": "{}"}}, "only {split}, {subset} and {part}"),
        (GOOD | {"source": {"format": ["tsv"], "path": "x"}}, "unknown format of sts tasks \"['tsv']\""),
        (GOOD | {"source": {"format": "hub", "dataset": "a/b", "config": 3}}, "config: expected text (in quotes"),
        (
            GOOD | {"title": 2012},
            "title: expected text (in quotes, where YAML would take it for something else), found",
        ),
        (GOOD | {"title": ["x"] * 10**5}, "title: expected text"),
        (GOOD | {"reference": None}, "reference: expected text"),
        (GOOD | {"kind": ["sts"]}, "unknown kind"),
        (GOOD | {"gold": [0, float("inf")]}, "gold: expected [lowest, highest]"),
        (GOOD | {"gold": [0, float("nan")]}, "gold: expected [lowest, highest]"),
        (GOOD | {"gold": [False, True]}, "gold: expected [lowest, highest]"),
        (GOOD | {"gold": [0, 10**400]}, "gold: expected [lowest, highest]"),
        (GOOD | {"splits": {"test": {True: 3}}}, "splits: expected"),
        (GOOD | {"splits": {None: {"test": 3}}}, "splits: expected"),
        (GOOD | {"splits": {"test": {"a": 0}}}, "splits: expected"),
        (TRANSFER | {"labels": [False, True]}, "labels: expected a list of at least two"),  # [no, yes]
        (TRANSFER | {"labels": ["a", "a"]}, "labels: expected a list of at least two"),
        (TRANSFER | {"labels": [["a"], "b"]}, "labels: expected a list of at least two"),
        (TRANSFER | {"probe": {"k": 1}}, "unknown probe"),
        (GOOD | {"gold": [5, 0]}, "gold: expected [lowest, highest]"),
        (TRANSFER, "splits: probe kfold takes 2, found 1"),
        (TRANSFER | {"probe": "zork"}, "unknown probe 'zork'"),
        (TRANSFER | {"labels": None}, "labels: expected a list of at least two"),
        (TRANSFER | {"source": {"format": "hub", "path": "x"}}, "unknown format of transfer tasks 'hub'"),
        (
            TRANSFER | {"source": {"format": "tsv", "path": "x", "columns": {"gold": 0}}},
            "expected gold, left and right",
        ),
        (GOOD | {"source": {"format": "tsv", "path": "x", "columns": {"gold": 0, "left": 1}}}, "expected gold, left"),
        (TRANSFER | {"probe": "relatedness"}, "probe relatedness: takes pairs of sentences"),
        (TRANSFER | {"probe": "snli"}, "probe snli: takes pairs of sentences"),
    ],
)
def test_bad_fields_of_a_task_file(tmp_path, fields, message):
    import yaml

    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(UserError) as error:
        load_task("bad", tmp_path)
    assert message in str(error.value)
    assert all(len(p) < 400 and "\n" not in p for p in error.value.problems)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title: x\n".encode("utf-16"), "not a readable YAML file in UTF-8"),
        ("title: é\n".encode("latin-1"), "not a readable YAML file in UTF-8"),
        (b"title: a\0b\n", "not a readable YAML file in UTF-8"),
        (b"", "expected fields such as 'title: ...', found None"),
        (b"[" * 10**5, "not a readable YAML file in UTF-8"),
        (b"title: x\n" * 10**6, "more than 1,048,576 bytes"),
        (b"title: !!python/object/apply:os.system ['false']\n", r":1: not a readable YAML file \(could not determine"),
        (b"title: [1,\nb: ]]", r":2: not a readable YAML file"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntitle: &d [*c, *c]\n", "title: expected text"),
    ],
)
@pytest.mark.parametrize("name", ["bad", "suites"])
def test_files_that_are_no_task_files(tmp_path, content, message, name):
    (tmp_path / f"{name}.yaml").write_bytes(content)
    with pytest.raises(UserError) as error:
        load_task("bad", tmp_path) if name == "bad" else load_suites(tmp_path)
    if "title: expected" not in message or name == "bad":
        assert re.search(rf"{name}\.yaml.*{message}", str(error.value))
    assert all(len(p) < 500 and "\n" not in p for p in error.value.problems)


def test_a_folder_or_a_pipe_is_no_task_file(tmp_path):
    (tmp_path / "bad.yaml").mkdir()
    os.mkfifo(tmp_path / "suites.yaml")
    with pytest.raises(UserError, match=r"bad\.yaml: is a folder or a pipe, expected a file"):
        load_task("bad", tmp_path)
    with pytest.raises(UserError, match=r"suites\.yaml: is a folder or a pipe"):
        load_suites(tmp_path)
    (tmp_path / "own.yaml").write_text("source: {format: tsv, path: pipe}\nsplits: {test: {test: }}\n")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: is a folder or a pipe"):
        read_task_pairs(load_task("own", tmp_path), "test", "senteval", None)
    for name in ("x" * 5000, "a\0b", "../own", ""):
        with pytest.raises(UserError, match="unknown task"):
            load_task(name, tmp_path)


def test_a_byte_order_mark_and_whole_numbers_as_names(tmp_path):
    text = (
        "\ufefftitle: T\r\nsource: {format: tsv, path: '{subset}.tsv', widths: [3, 4]}\r\nsplits: {test: {2012: 3}}\r\n"
    )
    (tmp_path / "own.yaml").write_bytes(text.encode())
    task = load_task("own", tmp_path)
    assert (task.title, task.splits, task.sources["only"].widths) == ("T", {"test": {"2012": 3}}, (3, 4))


@pytest.mark.parametrize(
    "suites",
    [
        "mine: []",
        "mine:",
        "mine: stsb",
        "mine: [[a]]",
        "[1]",
        "1: [stsb]",
        "x: 2024-13-45",
        "mine: [1]",
        "mine: [a, a]",
    ],
)
def test_bad_suites(tmp_path, suites):
    (tmp_path / "suites.yaml").write_text(suites + "\n")
    with pytest.raises(UserError, match=r"suites\.yaml"):
        load_suites(tmp_path)
