import dataclasses

import numpy as np
import pytest

from simcse_bench.data.labelled import read_labelled
from simcse_bench.data.registry import load_task
from simcse_bench.data.senteval import locate
from simcse_bench.data.task import Source, Task
from simcse_bench.errors import UserError


def task(folder, format, path, files, splits, labels, encoding="utf-8", header=False, name="t"):
    for file, content in files.items():
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    source = Source(format, path=path, encoding=encoding, header=header)
    return Task(name, "T", "transfer", "", {"only": source}, splits, labels=labels, folder=folder)


def problems(*args, **kwargs):
    with pytest.raises(UserError) as error:
        read_labelled(task(*args, **kwargs), None)
    return "\n".join(error.value.problems)


def test_class_files_in_sentevals_order(tmp_path):
    """Sorted by words, then label (neg 0 before pos 1), equals in file order; latin-1."""
    files = {"x.pos": "one two three\nb\n", "x.neg": b"caf\xe9  a\nz\n"}
    found = read_labelled(
        task(tmp_path, "class_files", "x.{subset}", files, {"all": {"pos": 2, "neg": 2}}, ("neg", "pos"), "latin-1"),
        None,
    )
    assert found.texts == ("z", "b", "café a", "one two three")
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert (found.seconds, found.sizes) == ((), {"all": 4})


def test_sst_trec_and_mrpc(tmp_path):
    sst = read_labelled(
        task(tmp_path, "sst", "{subset}", {"train": "good one \t1\nbad\t0\n", "test": "fine\t1\n"},
             {"train": {"train": 2}, "test": {"test": 1}}, ("0", "1")), None)  # fmt: skip
    assert (sst.texts, sst.labels.tolist(), sst.sizes) == (
        ("bad", "good one", "fine"),
        [0, 1, 1],
        {"train": 2, "test": 1},
    )
    trec = read_labelled(
        task(tmp_path, "trec", "{subset}.label", {"a.label": b"HUM:ind Who : me ?\nNUM:date When\xa0?\n"},
             {"train": {"a": 2}}, ("HUM", "NUM"), "latin-1"), None)  # fmt: skip
    assert (trec.texts, trec.labels.tolist()) == (("When ?", "Who : me ?"), [1, 0])
    content = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta b\tc\n0\t9\t10\td\te f\n"
    mrpc = read_labelled(
        task(tmp_path, "mrpc", "m_{subset}.txt", {"m_train.txt": content}, {"train": {"train": 2}}, ("0", "1"),
             header=True), None)  # fmt: skip
    assert (mrpc.texts, mrpc.seconds, mrpc.labels.tolist()) == (("d", "a b"), ("e f", "c"), [0, 1])


def test_sst_fine_and_columns_of_a_table(tmp_path):
    fine = read_labelled(
        task(tmp_path, "sst_fine", "{subset}", {"a": "4 very  good\n0 bad\n"}, {"x": {"a": 2}}, ("0", "4")), None)  # fmt: skip
    assert (fine.texts, fine.labels.tolist(), fine.seconds) == (("bad", "very good"), [0, 1], ())
    header = "id\tA\tB\tscore\tlabel\n"
    (tmp_path / "p").write_text(header + "1\ta b\tc\t3.6\tYES\n2\td\te  f\t1\tNO \n")
    columns = {"left": 1, "right": 2, "gold": 4}
    one = Task("t", "T", "transfer", "", {"only": Source("tsv", "p", columns, header=True)}, {"x": {"p": 2}},
               labels=("NO", "YES"), folder=tmp_path, probe="split")  # fmt: skip
    pairs = read_labelled(one, None)
    assert (pairs.texts, pairs.seconds, pairs.labels.tolist()) == (("d", "a b"), ("e f", "c"), [0, 1])
    scored = dataclasses.replace(one, sources={"only": Source("tsv", "p", columns | {"gold": 3}, header=True)},
                                 probe="relatedness", labels=(), gold=(1, 5))  # fmt: skip
    regression = read_labelled(scored, None)
    assert (regression.texts, regression.labels.tolist()) == (("d", "a b"), [1.0, 3.6])
    assert len(read_labelled(scored, None, limit=1)) == 1
    singles = dataclasses.replace(
        one, sources={"only": Source("tsv", "p", {"left": "A", "gold": "label"}, header=True)}
    )
    assert (read_labelled(singles, None).texts, read_labelled(singles, None).seconds) == (("d", "a b"), ())
    with pytest.raises(UserError, match=r"p:2: gold score 3.6 is outside \[1, 3\]"):
        read_labelled(dataclasses.replace(scored, gold=(1, 3)), None)


def test_snli_is_sorted_by_the_second_sentence_and_the_name_of_the_label(tmp_path):
    files = {
        "s1.dev": "a man runs\na man\na dog\ncaf\xe9\n".encode("latin-1"),
        "s2.dev": "he walks\nhe walks\nit barks\nit\n",
        "labels.dev": "entailment\nneutral\ncontradiction\nneutral\n",
    }
    labels = ("entailment", "neutral", "contradiction")
    made = task(tmp_path, "snli", "{part}.{subset}", files, {"dev": {"dev": 4}}, labels, encoding="latin-1")
    found = read_labelled(dataclasses.replace(made, probe="snli"), None)
    assert found.texts == ("café", "a dog", "a man", "a man runs")
    assert found.seconds == ("it", "it barks", "he walks", "he walks")
    assert found.labels.tolist() == [1, 2, 1, 0]
    (tmp_path / "s2.dev").write_text("one\n")
    with pytest.raises(UserError, match=r"s2.dev has 1, .*lines; expected as many in each"):
        read_labelled(made, None)


PROBING_SPLITS = {"train": {"tr": None}, "dev": {"va": None}, "test": {"te": None}}


def test_a_probing_file_brings_its_labels_and_splits(tmp_path):
    """SentEval sorts labels as text: 10 before 5. Further fields between label and sentence are passed over."""
    content = "tr\t5\tx y .\ntr\t10\tmore\ta b c\nva\t5\tq\nte\t10\tr s\nte\t5\tt u\n"
    made = task(tmp_path, "probing", "p.txt", {"p.txt": content}, PROBING_SPLITS, ())
    found = read_labelled(made, None)
    assert found.sizes == {"train": 2, "dev": 1, "test": 2}
    assert found.texts == ("a b c", "x y .", "q", "r s", "t u")
    assert found.labels.tolist() == [0, 1, 1, 0, 1]
    text = problems(tmp_path, "probing", "p.txt", {"p.txt": content + "te\t7\tx\nxx\t5\ta\n"}, PROBING_SPLITS, ())
    assert text.count("p.txt:7: expected tr, va, te, a label and a sentence with tabs between them") == 1
    text = problems(tmp_path, "probing", "p.txt", {"p.txt": content + "te\t7\tx\n"}, PROBING_SPLITS, ())
    assert "p.txt:6: unknown label '7'; expected one of 10, 5" in text
    text = problems(tmp_path, "probing", "p.txt", {"p.txt": "tr\t5\tx\ntr\t6\tx\nva\t5\tx\n"}, PROBING_SPLITS, ())
    assert "t/te: 0 rows in" in text


def test_probing_lies_beside_the_data_folder(tmp_path):
    """SentEval's repository: data/probing beside data/downstream."""
    root = tmp_path / "data" / "downstream"
    (root / "STS").mkdir(parents=True)
    with pytest.raises(UserError, match=r"sentence_length.txt: no such file. Put SentEval's folder probing there"):
        read_labelled(load_task("Length"), root)
    (tmp_path / "data" / "probing").mkdir()
    lines = [f"{split}\t{label}\ta b\n" for split in ("tr", "va", "te") for label in "01"]
    (tmp_path / "data" / "probing" / "sentence_length.txt").write_text("".join(lines))
    assert len(read_labelled(load_task("Length"), root)) == 6
    (root / "STS").rmdir()
    assert locate(tmp_path) == tmp_path / "data"
    assert len(read_labelled(load_task("SentLen"), tmp_path / "data")) == 6


def test_every_problem_names_file_and_line(tmp_path):
    text = problems(tmp_path, "sst", "{subset}", {"a": "x\t1\ny\t2\nz\n"}, {"train": {"a": 3}}, ("0", "1"))
    assert "a:3: 1 fields, expected a sentence and a label with a tab between them" in text
    text = problems(tmp_path, "sst", "{subset}", {"a": "x\t1\ny\t0\t1\n"}, {"train": {"a": 2}}, ("0", "1"))
    assert "a:2: 3 fields, expected a sentence and a label with a tab between them" in text
    text = problems(tmp_path, "sst", "{subset}", {"a": "x\t1\ny\t2\n"}, {"train": {"a": 3}}, ("0", "1"))
    assert "a:2: unknown label '2'; expected one of 0, 1" in text
    assert "2 rows in" in text
    assert "expected 3" in text
    text = problems(tmp_path, "trec", "{subset}", {"a": "HUM Who ?\nABC:x Why ?\n"}, {"train": {"a": 2}}, ("HUM",))
    assert "a:1: expected 'COARSE:fine question'" in text
    assert "a: not utf-8" not in text
    text = problems(
        tmp_path, "class_files", "{subset}", {"pos": b"caf\xe9\n"}, {"all": {"pos": 1, "neg": 1}}, ("neg", "pos")
    )
    assert "pos:1: not utf-8 text (byte 0xe9)" in text
    assert "neg: no such file" in text


def test_the_corrupt_subj_is_recognised(tmp_path):
    files = {"subj.objective": "x\n" * 10, "subj.subjective": "y\n" * 10}
    splits = {"all": {"objective": 5000, "subjective": 5000}}
    labels = ("subjective", "objective")
    text = problems(tmp_path, "class_files", "subj.{subset}", files, splits, labels, name="subj")
    assert "corrupt SUBJ of archives made before September 2021" in text
    assert "data fetch --force" in text


def test_limit_takes_the_first_of_every_class_and_split(tmp_path):
    files = {"train": "".join(f"s{i}\t{i % 2}\n" for i in range(20)), "test": "a\t0\nb\t0\nc\t1\n"}
    found = read_labelled(
        task(tmp_path, "sst", "{subset}", files, {"train": {"train": 20}, "test": {"test": 3}}, ("0", "1")),
        None,
        limit=1,
    )
    assert found.sizes == {"train": 2, "test": 2}
    assert found.labels.tolist() == [0, 1, 0, 1]


def test_fingerprint_follows_labels_and_text(tmp_path):
    def fingerprint(content):
        return read_labelled(
            task(tmp_path, "sst", "{subset}", {"a": content}, {"x": {"a": None}}, ("0", "1")), None
        ).fingerprint()

    assert len({fingerprint("a\t0\nb\t1\n"), fingerprint("a\t1\nb\t0\n"), fingerprint("a\t0\nc\t1\n")}) == 3


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [("mr", [5331, 5331]), ("cr", [1368, 2407]), ("subj", [5000, 5000]), ("mpqa", [7294, 3312]),
     ("sst2", None), ("trec", None), ("mrpc", [1901, 3900]), ("sst5", None), ("sick-e", [1459, 5611, 2857]),
     ("sickr-probe", None), ("stsb-probe", None)],
)  # fmt: skip
def test_the_real_files(real_data, name, counts):
    found = read_labelled(load_task(name), real_data)
    assert (
        len(found) == sum(found.sizes.values()) == sum(n for s in load_task(name).splits.values() for n in s.values())
    )
    if counts:
        assert np.bincount(found.labels).tolist() == counts
