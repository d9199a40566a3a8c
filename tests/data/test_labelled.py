import numpy as np
import pytest

from simcse_bench.data.labelled import read_labelled
from simcse_bench.data.task import Source, Task, load_task
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
     ("sst2", None), ("trec", None), ("mrpc", [1901, 3900])],
)  # fmt: skip
def test_the_real_files(real_data, name, counts):
    found = read_labelled(load_task(name), real_data)
    assert (
        len(found) == sum(found.sizes.values()) == sum(n for s in load_task(name).splits.values() for n in s.values())
    )
    if counts:
        assert np.bincount(found.labels).tolist() == counts
