"""`eval --dry-run`: every decision with its reason, nothing loaded, nothing written. The seed: test_seed_models.py."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def told(cli, tmp_path, monkeypatch):
    """Run it, with everything that would compute forbidden; the text with single spaces."""

    def forbidden(*_, **__):
        raise AssertionError("a dry run computed something")

    for name in ("simcse_bench.models.loading.load_encoder", "simcse_bench.evaluation.run.score_all",
                 "simcse_bench.evaluation.run.read_all",
                 "simcse_bench.models.checkpoints.sha256"):  # fmt: skip
        monkeypatch.setattr(name, forbidden)

    def run(*args):
        done = cli("eval", "--dry-run", *args)
        assert done.code == 0, done.err
        assert not (tmp_path / "results").exists()
        return " ".join(done.out.split())

    return run


def test_a_folder_with_options(told, bert, senteval):
    text = told("--model", bert, "--pooling", "cls", "--head", "mlp", "--max-length", 20, "--dtype", "bfloat16",
                "--data-dir", senteval, "--out", "elsewhere", "--name", "mine", "--split", "dev")  # fmt: skip
    for part in (
        "mine: what would be evaluated (nothing was computed)", f"folder {bert} --model", "model.safetensors (",
        "pooling cls: last layer at [CLS]", "--pooling, --head", "head mlp:", "max length 20 --max-length",
        "dtype bfloat16", "preprocessing none", "suite sts (the default), protocol simcse",
        f"stsb STS-B dev 1500 {senteval} (--data-dir)", "sts12 STS12 dev no dev split: left out",
        "report: elsewhere/sts/mine--dev--cls-mlp--bfloat16.json",
    ):  # fmt: skip
        assert part in text, (part, text)


def test_the_named_report_is_the_one_that_is_written(cli, told, bert, tasks_dir, tmp_path):
    command = ("--model", bert, "--pooling", "first_last", "--task", "own", "--tasks-dir", tasks_dir, "--limit", 20)
    text = told(*command)
    name = "tiny-bert--own--first20--first_last-none.json"
    assert f"report: results/tasks/{name} (.md, .csv)" in text
    assert f"own Own test 30 {tasks_dir}" in text
    assert "single tasks (--task)" in text
    existing = tmp_path / "results" / "tasks" / name
    existing.parent.mkdir(parents=True)
    existing.write_text("{}")
    done = cli("eval", "--dry-run", *command)
    assert "a report is there already" in " ".join(done.out.split())


def test_mini_and_its_own_limit_without_data(told):
    text = told("--model", "mini")
    assert "suite mini (the embedded data: no real data is configured)" in text
    assert "note ships with simcse-bench" in text
    assert "the model's own limit config.json" in text
    assert "report: results/mini/mini.json" in text


def test_all_is_two_suites_and_absent_data_is_told(told, bert, tmp_path, senteval):
    text = told("--model", bert, "--pooling", "mean", "--suite", "all", "--probe", "fast")
    assert text.count("not on this machine; senteval.tar (90 MB) would be downloaded from princeton-nlp") == 14
    assert "report: results/sts/tiny-bert--mean-none.json" in text
    assert "report: results/transfer/tiny-bert--fast--mean-none.json" in text
    text = told("--model", bert, "--pooling", "mean", "--suite", "transfer", "--data-dir", senteval)
    assert f"MISSING: {senteval}/MR" in text


def test_a_users_file_that_is_not_there_is_named(told, tasks_dir):
    (tasks_dir / "own.tsv").rename(tasks_dir / "pairs.tsv")
    text = told("--model", "mini", "--task", "own", "--tasks-dir", tasks_dir)
    assert f"MISSING: {tasks_dir}/own.tsv" in text


def test_other_languages(told, bert, tmp_path):
    copy = tmp_path / "multi" / "stsb-zh-test.tsv"
    copy.parent.mkdir()
    copy.write_text("1\ta\tb\n")
    text = told("--model", bert, "--pooling", "mean", "--suite", "sts-zh", "--data-dir", copy.parent)
    assert f"stsb-zh STS-B zh test 1379 copy {copy}" in text
    assert "cnsd CNSD test 1361 Hub dataset 'mteb/STSB', split test: from the Hub or its cache" in text


def test_word_vectors_and_whitening(told, tmp_path, bert, senteval):
    vectors = tmp_path / "v.txt"
    vectors.write_text("dog 1 2\n")
    text = told("--model", f"word-vectors:{vectors}", "--data-dir", senteval)
    assert "pooling mean of word vectors" in text
    text = told("--model", bert, "--pooling", "mean", "--whiten", vectors, "--data-dir", senteval)
    assert f"whitening fitted on {vectors}" in text
    assert "--mean-none--whitened.json" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "./nowhere"), "no such folder"),
        (("--model", "mini", "--pooling", "meen"), "did you mean 'mean'"),
        (("--model", "mini", "--suite", "stss"), "unknown suite 'stss'"),
        (("--model", "mini", "--whiten", "nowhere.txt"), "--whiten nowhere.txt: no such file"),
        (("--model", "mini", "--data-dir", "nowhere", "--suite", "sts"), "no data found there"),
        (("--model", "mini", "--probe", "fast"), "STS tasks have no classifier"),
    ],
)
def test_what_the_evaluation_would_refuse(cli, options, message):
    run = cli("eval", "--dry-run", *options)
    assert run.code == 2
    assert message in run.err
    assert "Traceback" not in run.err


def test_torch_is_not_even_imported(tmp_path, bert):
    code = (
        "import sys; from simcse_bench.__main__ import main\n"
        f"sys.argv = ['simcse-bench', 'eval', '--dry-run', '--model', {str(bert)!r}, '--pooling', 'mean']\n"
        "main_error = None\n"
        "try: main()\n"
        "except SystemExit as stop: main_error = stop.code\n"
        "print('torch' in sys.modules, main_error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120,
                          env=os.environ | {"HF_HUB_OFFLINE": "1"})  # fmt: skip
    assert done.stdout.splitlines()[-1].startswith("False"), done.stdout + done.stderr
