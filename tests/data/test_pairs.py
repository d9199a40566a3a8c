import dataclasses

import numpy as np
import pytest

from simcse_bench.data.pairs import Pairs, data_folder, read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import DataSource
from simcse_bench.data.task import Source, Task
from simcse_bench.errors import UserError


def semeval(folder, texts, golds, rows=None, encoding="utf-8"):
    (folder / "STS.input.s.txt").write_bytes(texts if isinstance(texts, bytes) else texts.encode())
    (folder / "STS.gs.s.txt").write_text(golds, encoding="utf-8")
    sources = {"senteval": Source("semeval", path="STS.{part}.{subset}.txt", encoding=encoding)}
    return Task("t", "T", "sts", "", sources | {"raw": sources["senteval"]}, {"test": {"s": rows}}, folder=folder)


def tsv(folder, content, name="x.tsv", **source):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Task("t", "T", "sts", "", {"only": Source(**({"format": "tsv", "path": name} | source))},
                {"test": {"test": None}}, folder=folder)  # fmt: skip


def read(task, variant="senteval"):
    return read_task_pairs(task, "test", variant, None)


def problems_of(task, variant="senteval"):
    with pytest.raises(UserError) as error:
        read(task, variant)
    return "\n".join(error.value.problems)


def test_semeval_files_known_answer(tmp_path):
    pairs = read(semeval(tmp_path, "one  two \tthree\nskipped\tpair\n\tfour five\n", "4.5\n\n0\n", rows=2))
    assert pairs.left == ("one two", "")  # whitespace as SentEval joins it; an empty sentence is kept
    assert pairs.right == ("three", "four five")
    assert pairs.gold.tolist() == [4.5, 0.0]
    assert pairs.subset == ("s", "s")


def test_raw_text_keeps_inner_spaces(tmp_path):
    assert read(semeval(tmp_path, " one  two \tthree\n", "1\n"), "raw").left == ("one  two",)


def test_a_line_separator_inside_a_sentence_is_no_line_end(tmp_path):
    pairs = read(semeval(tmp_path, "a\u2028b\x85c\td\ne\tf\n", "1\n2\n"), "raw")
    assert pairs.left == ("a\u2028b\x85c", "e")


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    assert read(tsv(tmp_path, b"\xef\xbb\xbf1.5\tone\ttwo\r\n2\tthree\tfour\r\n")).right == ("two", "four")


def test_every_problem_names_file_and_line(tmp_path):
    text = problems_of(semeval(tmp_path, "a\tb\nc\td\ne\tf\n", "1\nx\n7\n"))
    assert "STS.gs.s.txt:2: gold score 'x' is not a number" in text
    assert "STS.gs.s.txt:3: gold score 7 is outside [0, 5]" in text
    assert "outside" in problems_of(semeval(tmp_path, "a\tb\n", "nan\n"))


def test_missing_second_sentence(tmp_path):
    assert "STS.input.s.txt:2: expected two sentences" in problems_of(semeval(tmp_path, "a\tb\nc d\n", "1\n2\n"))
    assert "x.tsv:2: 2 fields, expected 3 as in the first line" in problems_of(tsv(tmp_path, "1\ta\tb\n2\tc\n"))


def test_short_files_give_both_counts(tmp_path):
    text = problems_of(semeval(tmp_path, "a\tb\nc\td\n", "1\n"))
    assert "STS.input.s.txt has 2 lines but" in text
    assert "STS.gs.s.txt has 1" in text
    assert "2 scored pairs in" in problems_of(semeval(tmp_path, "a\tb\nc\td\n", "1\n2\n", rows=3))
    assert "expected 3" in problems_of(semeval(tmp_path, "a\tb\nc\td\n", "1\n2\n", rows=3))
    assert "expected at least one" in problems_of(tsv(tmp_path, ""))


def test_missing_file_and_wrong_encoding(tmp_path):
    task = semeval(tmp_path, b"a\tb\n" + "caf\xe9\tb\n".encode("latin-1"), "1\n2\n")
    assert "STS.input.s.txt:2: not utf-8 text (byte 0xe9)" in problems_of(task)
    assert read(semeval(tmp_path, "caf\xe9\tb\n".encode("latin-1"), "2\n", encoding="latin-1")).left == ("café",)
    (tmp_path / "STS.gs.s.txt").unlink()
    assert "STS.gs.s.txt: no such file" in problems_of(task.__class__(**dataclasses.asdict(task) | {
        "sources": {"senteval": Source("semeval", path="STS.{part}.{subset}.txt", encoding="latin-1")}}))  # fmt: skip


def test_a_users_file_that_is_not_there_is_named_and_nothing_downloaded(cli, tasks_dir, monkeypatch, senteval):
    (tasks_dir / "own.tsv").rename(tasks_dir / "pairs.tsv")
    missing = f"error: {tasks_dir}/own.tsv: no such file.\n"
    monkeypatch.setattr("simcse_bench.data.pairs.find_root", None)
    command = ("data", "check", "--tasks-dir", tasks_dir, "--task", "own")
    assert missing in cli(*command).err
    monkeypatch.undo()
    assert missing in cli(*command, "--data-dir", senteval).err
    path = "STS/STSBenchmark/sts-{subset}.csv"  # of the archive: it is looked for there, and may be downloaded
    task = tsv(tasks_dir, "", path=path, columns={"gold": 4, "left": 5, "right": 6})
    assert data_folder([task], DataSource(senteval)) == senteval


def test_many_bad_lines_are_counted_not_listed(tmp_path):
    text = problems_of(tsv(tmp_path, "".join(f"x\ta{i}\tb\n" for i in range(100))))
    assert text.count("is not a number") == 5
    assert "and 95 more" in text


def test_columns_by_name_quoted_csv_and_swapped_columns(tmp_path):
    content = 'id,b,a,score\n1,"yes, two",one,3\n'
    task = tsv(
        tmp_path, content, "x.csv", format="csv", header=True, columns={"gold": "score", "left": "a", "right": "b"}
    )
    pairs = read(task)
    assert (pairs.left, pairs.right, pairs.gold.tolist()) == (("one",), ("yes, two",), [3.0])
    missing = tsv(
        tmp_path, content, "x.csv", format="csv", header=True, columns={"gold": "gold", "left": 1, "right": 2}
    )
    assert "no column 'gold' in its header; it has: id, b, a, score" in problems_of(missing)


@pytest.mark.parametrize(
    "row",
    ['2,"c,d', '2,c,"d', '2,"c,"d"', '2,c,"d" she said', '"2,c,d'],
    ids=["closed nowhere", "closed rows later", "closed too soon", "text behind it", "first field"],
)
def test_a_stray_quote_swallows_no_rows(tmp_path, row):
    for last in ("5,i,j", '5,i,"j"', '5,i,j"', '"5",i,j'):  # where csv would find the quote closed
        task = tsv(tmp_path, f"1,a,b\n{row}\n3,e,f\n4,g,h\n{last}\n", "x.csv", format="csv")
        text = problems_of(task)
        assert text.startswith(f"{tmp_path / 'x.csv'}:2: ")
        assert 'Write a field with a quote in it as "He said ""yes"".";' in text


def test_a_separator_inside_a_sentence_shifts_no_columns(tmp_path):
    rows = "".join(f"{i % 6}\ta{i}\tb{i}\n" for i in range(60))
    text = problems_of(tsv(tmp_path, rows + "3\ta\tbig\tdog\n1\tc\td\n"))
    assert text == (
        f"{tmp_path / 'x.tsv'}:61: 4 fields, expected 3 as in the first line. Replace a tab inside a sentence by a space."
    )
    named = {"header": True, "columns": {"gold": "s", "left": "a", "right": "b"}}
    text = problems_of(tsv(tmp_path, "s,a,b\n3,a dog, big,b\n", "x.csv", format="csv", **named))
    assert "x.csv:2: 4 fields, expected 3 as in the first line. Put a sentence with commas in quotes." in text
    text = problems_of(tsv(tmp_path, "s,a,b,note\n3,a,b,\n3,a b,\n", "x.csv", format="csv", **named))
    assert "x.csv:3: 3 fields, expected 4" in text  # a lost comma shifts as well
    task = tsv(tmp_path, "1\ta\tb\t\n2\tc\td\n3\te\tf\t\t \n\n")
    assert "x.tsv:2: 3 fields, expected 4" in problems_of(task)
    assert read(tsv(tmp_path, "2\tc\td\n1\ta\tb\t\n3\te\tf\t\t \n\n")).right == ("d", "b", "f")
    assert "STS.input.s.txt:2: expected two sentences" in problems_of(semeval(tmp_path, "a\tb\nc\td\te\n", "1\n2\n"))


def test_some_rows_may_have_more_fields_where_the_task_says_so(tmp_path):
    rows = "1\ta\tb\n2\tc\td\tfrom x\tfrom y\n"
    assert "x.tsv:2: 5 fields, expected 3" in problems_of(tsv(tmp_path, rows))
    assert read(tsv(tmp_path, rows, widths=(3, 5))).right == ("b", "d")
    text = problems_of(tsv(tmp_path, rows + "3\te\tf\tg\n", widths=(3, 5)))
    assert "x.tsv:3: 4 fields, expected 3 or 5. Replace a tab" in text


def test_a_file_without_line_ends(tmp_path):
    text = problems_of(tsv(tmp_path, "1\ta\tb\n" + "2\tc\td " * 300_000))
    assert "x.tsv:2: more than 1,048,576 bytes, expected a sentence a line" in text


def test_lone_quotes_in_tab_separated_text(tmp_path):
    assert read(tsv(tmp_path, '1\t"a\tb\n2\tc"\td\n')).left == ('"a', 'c"')


def test_hub_dataset_through_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    repository = tmp_path / "somebody-sts"
    repository.mkdir()
    (repository / "test.jsonl").write_text('{"s": 2.5, "x": "one", "y": "two"}\n{"s": 0, "x": "three", "y": "four"}\n')
    source = Source("hub", dataset=str(repository), columns={"gold": "s", "left": "x", "right": "y"})
    task = Task("t", "T", "sts", "", {"only": source}, {"test": {"test": 2}}, folder=tmp_path)
    pairs = read(task)
    assert (pairs.left, pairs.right, pairs.gold.tolist()) == (("one", "three"), ("two", "four"), [2.5, 0.0])
    wrong = dataclasses.replace(source, columns={"gold": "score", "left": "x", "right": "y"})
    assert "has no column 'score'; it has: s, x, y" in problems_of(dataclasses.replace(task, sources={"only": wrong}))
    gone = dataclasses.replace(source, dataset="somebody/never-seen")
    assert "could not be loaded" in problems_of(dataclasses.replace(task, sources={"only": gone}))


def test_fingerprint_changes_with_every_field():
    base = Pairs(("a", "b"), ("c", "d"), np.array([1.0, 2.0]), ("s", "s"))
    others = [
        dataclasses.replace(base, left=base.right, right=base.left),
        dataclasses.replace(base, gold=base.gold[::-1].copy()),
        dataclasses.replace(base, subset=("s", "t")),
        dataclasses.replace(base, left=("a", "B")),
    ]
    assert len({p.fingerprint() for p in (base, *others)}) == 5


def test_head_takes_the_first_of_every_subset():
    pairs = Pairs(tuple("abcd"), tuple("efgh"), np.arange(4.0), ("s", "s", "t", "t")).head(1)
    assert (pairs.left, pairs.gold.tolist(), pairs.subset) == (("a", "c"), [0.0, 2.0], ("s", "t"))


def test_duplicates_in_either_order():
    assert Pairs(("a", "b", "a"), ("b", "a", "c"), np.zeros(3), ("s",) * 3).duplicates() == 1


def test_builtin_layouts(senteval):
    for name in ("sts12", "sts15", "stsb", "sickr"):
        for variant in ("senteval", "raw"):
            task = load_task(name)
            assert len(read_task_pairs(task, "test", variant, senteval)) == sum(task.splits["test"].values())
    assert len(read_task_pairs(load_task("sickr"), "all", "raw", senteval)) == 9927


def test_wrong_kind_and_split():
    with pytest.raises(UserError, match="'mr' is a transfer task; pairs are read from STS and paraphrase tasks"):
        read_task_pairs(load_task("mr"), "all", "senteval", None)
    with pytest.raises(UserError, match="no split 'dev'; it has: test"):
        read_task_pairs(load_task("sts12"), "dev", "senteval", None)


def test_repeated_pairs_are_left_out_of_the_splits_that_say_so(tmp_path):
    """None of them stays; either order, any case; those of another split, too."""
    rows = {"train": "1\ta\tb\n2\ta\tb\n", "test": "3\tB\tA\n4\tc\td\n5\te\tf\n1\tF\te\n2\tg\th\n"}
    for split, text in rows.items():
        (tmp_path / f"{split}.tsv").write_text(text, encoding="utf-8")
    task = Task("t", "T", "sts", "", {"only": Source("tsv", path="{split}.tsv")},
                {"train": {"x": 2}, "test": {"x": 2}}, folder=tmp_path, unique=("test",))  # fmt: skip
    assert read(task).left == ("c", "g")
    assert len(read_task_pairs(task, "train", "raw", None)) == 2
    assert "2 scored pairs" in problems_of(dataclasses.replace(task, splits={"train": {"x": 2}, "test": {"x": 5}}))
    (tmp_path / "train.tsv").write_text("x\ta\tb\n", encoding="utf-8")
    assert "train.tsv:1: gold score 'x'" in problems_of(task)


@pytest.mark.data
@pytest.mark.parametrize("variant", ["raw", "senteval"])
def test_the_cleaned_sts_benchmark_is_mtebs(real_data, variant):
    """Counts, distinct sentences and mean score that mteb publishes of its STSBenchmark.v2."""
    import json
    from pathlib import Path

    import mteb

    published = json.loads((Path(mteb.__file__).parent / "descriptive_stats/STS/STSBenchmark.v2.json").read_text())
    for split, name in (("dev", "validation"), ("test", "test")):
        pairs, theirs = read_task_pairs(load_task("STSBenchmark.v2"), split, variant, real_data), published[name]
        assert len(pairs) == theirs["num_samples"] == theirs["unique_pairs"]
        assert pairs.gold.mean() == pytest.approx(theirs["label_statistics"]["avg_score"], abs=1e-12)
        if variant == "raw":
            assert len(set(pairs.left)) == theirs["text1_statistics"]["unique_texts"]
            assert len(set(pairs.right)) == theirs["text2_statistics"]["unique_texts"]


def test_pairs_at_positions_are_left_out():
    pairs = Pairs(("a", "b", "c"), ("d", "e", "f"), np.array([1.0, 2.0, 3.0]), ("x", "x", "y")).without([1, 1])
    assert (pairs.left, pairs.gold.tolist(), pairs.subset, pairs.left_out) == (("a", "c"), [1.0, 3.0], ("x", "y"), (1,))
    assert pairs.head(1).left_out == (1,)
