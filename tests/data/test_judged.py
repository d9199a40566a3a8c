"""Paraphrase and triplet tasks: what is read, and what is said of bad input; sentences in one field; CxC's captions."""

import json
from functools import partial

import pytest
import yaml

from simcse_bench.data.judged import read_paraphrases, read_triplets
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.reading import read_task
from simcse_bench.data.registry import load_task
from simcse_bench.errors import UserError

TSV = {"format": "tsv", "path": "{split}.tsv"}
PAIRS = {"dev": "1\ta\tb\n0\tc\td\n", "test": "1\te\tf\n0\tg\th\n0\ti\tj\n"}
TRIPLETS = {"test": "sent0,sent1,hard_neg\na,b,c\nd,e,f\n"}
COLUMNS = {"anchor": "sent0", "positive": "sent1", "negative": "hard_neg"}


def written(folder, files, suffix="tsv", **fields):
    for name, text in files.items():
        (folder / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    (folder / "own.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    return load_task("own", folder)


@pytest.fixture
def pairs(tmp_path):
    splits = {"dev": {"dev": None}, "test": {"test": None}}
    return lambda files, **fields: written(
        tmp_path, files, **{"kind": "paraphrase", "source": TSV, "splits": splits} | fields
    )


@pytest.fixture
def triplets(tmp_path):
    source = {"format": "csv", "path": "{split}.csv", "header": True, "columns": COLUMNS}
    made = partial(written, tmp_path, suffix="csv")
    return lambda files, **fields: made(
        files, **{"kind": "triplet", "source": source, "splits": {"test": {"test": None}}} | fields
    )


def test_paraphrases(pairs):
    task = pairs(PAIRS)
    data = read_paraphrases(task, "test", "raw", None)
    assert (len(data), data.pairs.gold.tolist(), data.dev.gold.tolist()) == (3, [1, 0, 0], [1, 0])
    assert list(data.sentences()) == [*"efghij", *"abcd"]
    assert data.head(1).pairs.left == ("e", "g")
    assert read_paraphrases(task, "dev", "raw", None).pairs.fingerprint() == data.dev.fingerprint()
    changed = read_paraphrases(pairs(PAIRS | {"dev": "1\ta\tX\n0\tc\td\n"}), "test", "raw", None)
    assert changed.fingerprint() != data.fingerprint()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"test": "1\ta\tb\n0.5\tc\td\n"}, r"test\.tsv:2: label 0\.5; expected 1 for a paraphrase, else 0"),
        ({"test": "1\ta\tb\n-1\tc\td\n"}, r"test\.tsv:2: gold score -1 is outside \[0, 1\]"),
        ({"test": "1\ta\tb\nyes\tc\td\n"}, r"test\.tsv:2: gold score 'yes' is not a number"),
        ({"test": "1\ta\tb\n1\tc\td\n"}, "all 2 pairs of split test have the label 1; expected paraphrases"),
        ({"dev": "0\ta\tb\n"}, "all 1 pairs of split dev have the label 0"),
    ],
)
def test_bad_paraphrases(pairs, files, said):
    with pytest.raises(UserError, match=said) as error:
        read_paraphrases(pairs(PAIRS | files), "test", "raw", None)
    assert len(error.value.problems) == 1


def test_a_paraphrase_task_needs_dev(pairs):
    with pytest.raises(UserError, match=r"a paraphrase task needs dev \(where thresholds are chosen\) and test"):
        pairs(PAIRS, splits={"test": {"test": None}})


@pytest.mark.data
def test_mrpc_of_sentevals_folder(real_data):
    data = read_task(load_task("mrpc-pairs"), "test", "senteval", real_data)
    assert (len(data), len(data.dev)) == (1725, 4076)


def test_triplets(triplets):
    data = read_triplets(triplets(TRIPLETS), "test", "raw", None)
    assert list(data.rows()) == [("a", "b", "c"), ("d", "e", "f")]
    assert data.head(1).anchor == ("a",)
    assert data.duplicates() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sent0,sent1,hard_neg\na,b,b\n", r"test\.csv:2: the positive and the negative are the same sentence"),
        ("sent0,sent1,hard_neg\na,b\n", r"test\.csv:2: 2 fields, expected 3"),
        ("sent0,sent1,other\na,b,c\n", "no column 'hard_neg' in its header"),
        ("sent0,sent1,hard_neg\n", "own/test: 0 rows in .*, expected at least one"),
    ],
)
def test_bad_triplets(triplets, text, said):
    with pytest.raises(UserError, match=said) as error:
        read_triplets(triplets({"test": text}), "test", "raw", None)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": TSV}, "columns: expected anchor, positive and negative, found None"),
        ({"source": TSV | {"columns": {"gold": 0, "left": 1, "right": 2}}}, "expected anchor, positive and negative"),
        ({"center": True}, "center: only for ranking tasks"),
        (
            {"source": {"format": "semeval", "path": "x", "columns": COLUMNS}},
            "unknown format of triplet tasks 'semeval'",
        ),
        ({"source": TSV | {"columns": COLUMNS, "positives": {"stsb": 4}}}, "positives: only for a ranking task of"),
        ({"kind": "ranking"}, "header: not for a ranking task's format csv"),
    ],
)
def test_bad_task_files(triplets, fields, said):
    with pytest.raises(UserError, match=said):
        triplets(TRIPLETS, **fields)


def test_two_sentences_in_one_field(tmp_path, monkeypatch):
    """STR-2022's own file, as a copy in the data folder and as what the Hub gives."""
    folder = tmp_path / "data" / "STR"
    folder.mkdir(parents=True)
    text = 'Index,PairID,Text,Score\n0,x,"He said ""a"".\nb, c",1.0\n1,y,"d\ne",0.25\n'
    copy = folder / "sem_text_rel_ranked.csv"
    copy.write_text(text, encoding="utf-8")
    content = yaml.safe_load((load_task("str22").folder / "str22.yaml").read_text(encoding="utf-8"))
    content["splits"] = {"test": {"train": 2}}
    hub = tmp_path / "hub"
    hub.mkdir()
    rows = [{"Text": 'He said "a".\nb, c', "Score": 1.0}, {"Text": "d\ne", "Score": 0.25}]
    (hub / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    content["source"] |= {"dataset": str(hub)}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    task = load_task("own", tmp_path)
    data = read_task_pairs(task, "test", "raw", tmp_path / "data")
    assert (data.left, data.right, data.gold.tolist()) == (('He said "a".', "d"), ("b, c", "e"), [1.0, 0.25])
    assert read_task_pairs(task, "test", "raw", None).fingerprint() == data.fingerprint()
    copy.write_text(text.replace("d\ne", "d e"), encoding="utf-8")
    with pytest.raises(UserError, match="expected two sentences with a line break between them, found 'd e'"):
        read_task_pairs(task, "test", "raw", tmp_path / "data")
    copy.write_text(text.replace('""a""', '"a'), encoding="utf-8")
    with pytest.raises(UserError, match=r"sem_text_rel_ranked\.csv:\d+: .*Write a quote in a field as two"):
        read_task_pairs(task, "test", "raw", tmp_path / "data")


def test_cxc_joins_ratings_with_captions(tmp_path):
    folder = tmp_path / "CxC"
    folder.mkdir()
    ratings = "caption1,caption2,agg_score,sampling_method\nCOCO_val2014:sentid:7,COCO_val2014:sentid:9,1.56,c2c_isim\n"
    (folder / "sts_test.csv").write_text(ratings, encoding="utf-8")
    sentences = [{"sentid": 7, "raw": "A kite, flying."}, {"sentid": 9, "raw": "People on a beach."}]
    captions = folder / "dataset_coco.json"
    captions.write_text(json.dumps({"images": [{"sentences": sentences}]}), encoding="utf-8")
    content = yaml.safe_load((load_task("cxc").folder / "cxc.yaml").read_text(encoding="utf-8"))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content | {"splits": {"test": {"test": 1}}}), encoding="utf-8")
    task = load_task("own", tmp_path)
    data = read_task_pairs(task, "test", "raw", None)
    assert (data.left, data.right, data.gold.tolist()) == (("A kite, flying.",), ("People on a beach.",), [1.56])
    (folder / "sts_test.csv").write_text(ratings.replace("sentid:9", "sentid:8"), encoding="utf-8")
    with pytest.raises(UserError, match=r"sts_test\.csv:2: caption 'COCO_val2014:sentid:8' is not in dataset_coco"):
        read_task_pairs(task, "test", "raw", None)
    captions.write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match=r"dataset_coco\.json: not Karpathy's dataset_coco\.json"):
        read_task_pairs(task, "test", "raw", None)
    captions.unlink()
    with pytest.raises(UserError, match=r"dataset_coco\.json: no such file"):
        read_task_pairs(task, "test", "raw", None)


def test_one_subset_of_a_task():
    task = load_task("STS-17/en-en")
    assert (task.name, task.title, task.splits) == ("sts17/en-en", "STS17 en-en", {"test": {"en-en": 250}})
    with pytest.raises(UserError, match="unknown subset of task sts17 'en-fr'; did you mean"):
        load_task("sts17/en-fr")
    with pytest.raises(UserError, match="mr/neg: mr is a transfer task; only STS tasks are taken in subsets"):
        load_task("mr/neg")
    with pytest.raises(UserError, match="unknown task 'nothing/at'"):
        load_task("nothing/at")
