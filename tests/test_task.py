import pytest

from simcse_bench.errors import UserError
from simcse_bench.task import MTEB, load_suite, load_suites, load_task, task_names


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
    assert set(task_names()) == {t for members in load_suites().values() for t in members}


def test_mteb_reads_all_of_sick():
    assert MTEB.split_of(load_task("sickr")) == "all"
    assert MTEB.split_of(load_task("stsb")) == "test"


def test_unknown_names_suggest():
    with pytest.raises(UserError, match="unknown task 'sts17'; did you mean 'sts1"):
        load_task("sts17")
    with pytest.raises(UserError, match="unknown suite 'stss'; did you mean 'sts'"):
        load_suite("stss")
    with pytest.raises(UserError, match="unknown task 'suites'"):  # a file of that name exists, but is no task
        load_task("suites")


def test_a_users_folder_adds_tasks_and_suites(tasks_dir):
    (tasks_dir / "suites.yaml").write_text("mine: [own, stsb]\n")
    assert [t.name for t in load_suite("mine", tasks_dir)] == ["own", "stsb"]
    assert "own" in task_names(tasks_dir)
    assert "own" not in task_names()


def test_all_problems_of_a_task_file_at_once(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "kind: stx\nsource: {format: tsw, path: x}\nsplit: {test: {a: 1}}\ngold: 5\n", encoding="utf-8"
    )
    with pytest.raises(UserError) as error:
        load_task("bad", tmp_path)
    text = str(error.value)
    for part in ("unknown kind 'stx'", "unknown format 'tsw'", "unknown field 'split'; did you mean 'splits'", "gold"):
        assert part in text, text
    (tmp_path / "worse.yaml").write_text("a: [1,\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"worse\.yaml: not a readable YAML"):
        load_task("worse", tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        load_task("own", tmp_path / "nowhere")


def test_text_variant_that_a_task_lacks():
    with pytest.raises(UserError, match="unknown text variant of task sts12 'cooked'"):
        load_task("sts12").source("cooked")
    assert load_task("sickr").source("raw")[0] == "only"
