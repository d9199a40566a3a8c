"""Other languages: Hub datasets and their copies, one fingerprint for both, NFC, what is said where neither is there."""

import json
import unicodedata
from pathlib import Path

import pytest
import yaml
from tiny import sentences

from simcse_bench.bundled import builtin_tasks_dir
from simcse_bench.data.pairs import data_root, read_task_pairs
from simcse_bench.data.registry import load_suite, load_suites, load_task
from simcse_bench.data.senteval import DataSource, given_root
from simcse_bench.errors import UserError

LANGUAGES = ("de", "es", "fr", "ja", "ko", "th", "vi", "zh")
ROWS = [(2.5, "一个女孩正在梳头。", "女孩梳头。"), (3.6, "狗在跑", "猫在跑"), (0, "人", "山")]
COLUMNS = {"gold": "s", "left": "x", "right": "y"}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """What datasets.load_dataset takes for a dataset: 3.6 is a float32 there, as in stsb_multi_mt."""
    import numpy as np

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "somebody-sts"
    folder.mkdir()
    lines = (json.dumps({"s": float(np.float32(g)), "x": a, "y": b}, ensure_ascii=False) for g, a, b in ROWS)
    (folder / "validation.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def own_task(tmp_path, repository):
    """A task file that names both, in a folder of its own."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    source = {"format": "hub", "dataset": str(repository), "columns": COLUMNS, "unicode": "NFC",
              "path": "sts_multilingual/own-{split}.tsv"}  # fmt: skip
    content = {"source": source, "splits": {"test": {"validation": 3}}}
    (folder / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def write_copy(path, rows=ROWS, form="NFC"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{g}\t{a}\t{b}\n" for g, a, b in rows)
    path.write_text(unicodedata.normalize(form, text), encoding="utf-8")
    return path


def test_hub_and_copy_give_one_fingerprint(tmp_path, own_task):
    task = load_task("own", own_task)
    from_hub = read_task_pairs(task, "test", "senteval", None)
    assert from_hub.gold.tolist() == [2.5, 3.6, 0.0]
    assert from_hub.left[0] == "一个女孩正在梳头。"
    write_copy(tmp_path / "data" / "sts_multilingual" / "own-test.tsv")
    copy = read_task_pairs(task, "test", "senteval", tmp_path / "data")
    assert copy.fingerprint() == from_hub.fingerprint()
    write_copy(tmp_path / "data" / "sts_multilingual" / "own-test.tsv", [*ROWS[:2], (1, "人", "山")])
    assert read_task_pairs(task, "test", "senteval", tmp_path / "data").fingerprint() != from_hub.fingerprint()


@pytest.mark.parametrize(
    "place", ["data/sts_multilingual", "data", "data/senteval/../sts_multilingual", "tasks/sts_multilingual"]
)
def test_where_a_copy_may_lie(tmp_path, own_task, place):
    root = tmp_path / "data" / "senteval" / "downstream" if "senteval" in place else tmp_path / "data"
    root.mkdir(parents=True)
    path = write_copy((tmp_path / place).resolve() / "own-test.tsv", [(1, "copy", "here"), *ROWS[1:]])
    assert read_task_pairs(load_task("own", own_task), "test", "senteval", root).left[0] == "copy"
    path.unlink()
    assert read_task_pairs(load_task("own", own_task), "test", "senteval", root).left[0] == ROWS[0][1]


def test_faults_of_a_copy_name_it(tmp_path, own_task):
    path = write_copy(tmp_path / "sts_multilingual" / "own-test.tsv", [(7, "a", "b")])
    with pytest.raises(UserError) as error:
        read_task_pairs(load_task("own", own_task), "test", "senteval", tmp_path)
    assert f"{path}:1: gold score 7 is outside [0, 5]" in str(error.value)
    assert f"1 scored pairs in {path}, expected 3" in str(error.value)


def test_nfc_only_where_the_task_asks_for_it(tmp_path, own_task):
    korean = [(1, "한국어", "호랑이"), (2, "안녕", "학교"), (3, "café", "Hà Nội")]
    copy = tmp_path / "data" / "sts_multilingual" / "own-test.tsv"
    task = load_task("own", own_task)
    found = {}
    for form in ("NFC", "NFD"):
        write_copy(copy, korean, form)
        found[form] = read_task_pairs(task, "test", "senteval", tmp_path / "data")
    assert found["NFD"].left == ("한국어", "안녕", "café")
    assert found["NFD"].fingerprint() == found["NFC"].fingerprint()
    plain = {"source": {"format": "tsv", "path": str(copy)}, "splits": {"test": {"test": 3}}}
    (own_task / "plain.yaml").write_text(yaml.safe_dump(plain))
    untouched = read_task_pairs(load_task("plain", own_task), "test", "senteval", None)
    assert untouched.left[0] == unicodedata.normalize("NFD", "한국어") != "한국어"


def test_bad_fields(own_task):
    content = yaml.safe_load((own_task / "own.yaml").read_text())
    for field, value, message in (("unicode", "NFX", "unicode 'NFX': expected NFC"), ("path", "{lang}.tsv", "only {split}"),
                                  ("path", "", "path: expected text"), ("dataset", None, "dataset: expected text")):  # fmt: skip
        changed = content | {"source": content["source"] | {field: value}}
        (own_task / "bad.yaml").write_text(yaml.safe_dump(changed))
        with pytest.raises(UserError) as error:
            load_task("bad", own_task)
        assert message in str(error.value)


def test_the_data_folder_need_not_be_sentevals(tmp_path, monkeypatch, own_task, tasks_dir):
    task = load_task("own", own_task)
    assert data_root([task]) is None
    assert data_root([task], DataSource(tmp_path)).path == tmp_path
    monkeypatch.setenv("SIMCSE_BENCH_DATA", str(tmp_path / "mistyped"))
    with pytest.raises(UserError, match=r"SIMCSE_BENCH_DATA .*mistyped: no such folder"):
        data_root([task])
    assert data_root([load_task("own", tasks_dir)]) is None  # brings its own file: the data folder does not matter
    (tmp_path / "d" / "downstream" / "STS").mkdir(parents=True)
    assert given_root(DataSource(tmp_path / "d")).path == tmp_path / "d" / "downstream"


@pytest.mark.parametrize("language", LANGUAGES)
def test_suites_name_hub_and_copy(language):
    for task in load_suite(f"sts-{language}"):
        source = task.sources["only"]
        assert source.format == "hub"
        assert source.dataset.count("/") == 1
        assert source.path.startswith("sts_multilingual/")
        assert source.unicode == "NFC"
        assert "test" in task.splits
    assert set(load_suites()["sts-multilingual"]) <= {t.name for code in LANGUAGES for t in load_suite(f"sts-{code}")}


def test_hub_ids_are_those_that_mteb_reads():
    """The ids, revisions and configs of the installed mteb, from its source; nothing is downloaded."""
    from mteb.tasks.sts import jpn, kor, multilingual, zho

    known = {
        "jsts": jpn.JSTS, "korsts": kor.KorSTS, "cnsd": zho.STSB,
        **{f"stsb-{c}": multilingual.STSBenchmarkMultilingualSTS for c in ("de", "es", "fr", "zh")},
    }  # fmt: skip
    for name, task in known.items():
        source = load_task(name).sources["only"]
        assert source.dataset == task.metadata.dataset["path"], name
        assert source.revision == task.metadata.dataset["revision"], name
        assert source.config in (None, *task.metadata.eval_langs)


def test_missing_data_is_one_error_that_says_what_to_do(cli, bert, tmp_path):
    run = cli("eval", "--model", bert, "--pooling", "mean", "--suite", "sts-zh")
    assert run.code == 2
    assert "Hub dataset 'mteb/STSB', split 'test' could not be loaded" in run.err
    assert "No copy of it at sts_multilingual/stsb-zh-test.tsv in the data folder either." in run.err
    assert run.err.count("Without the Hub, put copies there (a pair a line: score, tab") == 1
    assert "--data-dir or SIMCSE_BENCH_DATA" in run.err
    assert not (tmp_path / "results").exists()


def test_a_dataset_out_of_reach_is_told_once_with_its_subsets(cli):
    done = cli("eval", "mini", "--task", "sts22")
    assert done.code == 2
    assert done.err.count("could not be loaded") == 1
    assert "The same holds for its other subsets: de, es, pl," in done.err


def test_evaluated_from_copies_by_suite(cli, bert, tmp_path):
    pool = sentences(300)
    rows = [(i % 6, f"第 {pool[i % 300]}", f"個 {pool[i * 7 % 300]}") for i in range(1457)]
    write_copy(tmp_path / "multi" / "jsts-valid.tsv", rows)
    command = ("eval", "--model", bert, "--pooling", "mean", "--suite", "sts-ja", "--data-dir", tmp_path / "multi")
    run = cli(*command, "--quiet")
    assert run.code == 0, run.err
    assert "JSTS" in run.out
    saved = json.loads((tmp_path / "results" / "sts-ja" / "tiny-bert--mean-none.json").read_text())
    assert saved["tasks"]["jsts"]["n"] == 1457
    assert cli("report", "results").code == 0
    dev = cli(*command, "--split", "dev")
    assert dev.code == 2
    assert "has no dev split" in dev.err


def test_data_check_and_lists(cli, tmp_path, senteval):
    write_copy(tmp_path / "multi" / "korsts-test.tsv")
    named = cli("data", "check", "--suite", "sts-ko", "--data-dir", tmp_path / "multi")
    assert named.code == 2  # its dev split is on the Hub only
    assert "korsts" in named.out
    assert "could not be loaded" in named.err
    here = cli("data", "check", "--task", "korsts", "--task", "stsb", "--data-dir", senteval)
    assert here.out.count("FAILED") == 2
    listed = cli("ls", "tasks").out
    for name in ("stsb-de", "cnsd", "jsts", "korsts", "stsb-th", "sickr-vi"):
        assert name in listed
    assert "sts-multilingual" in cli("ls", "suites").out


def test_a_check_of_everything_downloads_no_other_language(senteval):
    from simcse_bench.cli.lists import check_data

    table, problems = check_data([load_task("jsts"), load_task("stsb")], senteval, fetch=False)
    assert not problems
    assert table.rows[0][-1] == "no copy here (Hub dataset 'mteb/JSTS')"


@pytest.mark.data
def test_the_real_files(cli, real_data):
    folder = next((up / "sts_multilingual" for up in real_data.parents if (up / "sts_multilingual").is_dir()), None)
    if folder is None:
        pytest.skip("no sts_multilingual beside the real data")
    run = cli("data", "check", "--suite", "sts-multilingual", "--data-dir", folder)
    assert run.code == 0, run.err
    prints = {}
    for name in load_suites()["sts-multilingual"]:
        task = load_task(name)
        for split, subsets in task.splits.items():
            pairs = read_task_pairs(task, split, "senteval", folder)
            assert pairs.fingerprint() == read_task_pairs(task, split, "senteval", real_data).fingerprint()
            assert pairs.fingerprint()[:8] in run.out
            assert all(unicodedata.is_normalized("NFC", s) for s in pairs.left + pairs.right)
            assert list(subsets) == list(pairs.sizes())
            prints[name, split] = len(pairs)
    assert prints["jsts", "test"] == 1457
    assert prints["korsts", "test"] == 1379
    assert prints["cnsd", "dev"] == 1458
    assert prints["stsb-th", "dev"] == 1499
    # the files are NFC already: what is read is what stands there
    lines = (folder / "stsb-th-test.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    thai = read_task_pairs(load_task("stsb-th"), "test", "senteval", folder)
    assert [line.split("\t")[1].strip() for line in lines] == list(thai.left)
    assert 3.6 in thai.gold  # the file says 3.5999999999999996
    assert 3.5999999999999996 not in thai.gold.tolist()


@pytest.mark.data
def test_the_fingerprints_of_the_english_tasks_are_untouched(real_data):
    """NFC would change one row of STS15 and STS-B dev: the English tasks do without it."""
    for name, split in (("sts15", "test"), ("stsb", "dev")):
        task = load_task(name)
        assert not any(s.unicode for s in task.sources.values())
        pairs = read_task_pairs(task, split, "senteval", real_data)
        assert sum(not unicodedata.is_normalized("NFC", s) for s in pairs.left + pairs.right) == 1
    committed = Path(builtin_tasks_dir()).parent / "results" / "sts" / "all-MiniLM-L6-v2.json"
    if committed.is_file():
        tasks = json.loads(committed.read_text())["tasks"]
        for name, saved in tasks.items():
            found = read_task_pairs(load_task(name), saved["data"]["split"], "senteval", real_data)
            assert found.fingerprint() == saved["data"]["fingerprint"], name


@pytest.mark.data
def test_minilm_on_japanese_equals_a_plain_computation(cli, minilm, real_data):
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    data = ("--suite", "sts-ja", "--data-dir", real_data, "--limit", 300)
    run = cli("eval", "--model", minilm, *data, "--format", "json", "--quiet")
    assert run.code == 0, run.err
    pairs = read_task_pairs(load_task("jsts"), "test", "senteval", real_data).head(300)
    model = SentenceTransformer(str(minilm), device="cpu")
    u, v = (model.encode(list(side), normalize_embeddings=True) for side in (pairs.left, pairs.right))
    expected = 100 * spearmanr((u * v).sum(1), pairs.gold).statistic
    found = json.loads(run.out)["tasks"]["jsts"]["scores"]["spearman"]["all"]["value"]
    assert found == pytest.approx(expected, abs=0.01)
