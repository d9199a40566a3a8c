"""mteb's registry as a source of models: its loader and prompts, our protocols."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from tiny import sentences

from simcse_bench import SimCSE, evaluate, open_model
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_task
from simcse_bench.data.task import SIMCSE
from simcse_bench.errors import UserError
from simcse_bench.models import mteb_model
from simcse_bench.models.mteb_model import import_mteb, registry_entry
from simcse_bench.reports.report import Report

RANDOM = "mteb:mteb/baseline-random-encoder"
FAST = dataclasses.replace(SIMCSE, resamples=20)


@pytest.fixture
def registered(bert, monkeypatch):
    """Tiny models in mteb's registry, loaded by mteb's own wrappers from a folder."""
    mteb = import_mteb()
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
    from mteb.models.model_implementations import MODEL_REGISTRY
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    def add(name, wrapper, **options):
        def load(_, revision, device=None, **more):
            return wrapper(str(bert), revision=revision, device=device, **more)

        fields = {"name": name, "revision": "r1", "model_type": ["dense"], "modalities": ["text"], "loader": load}
        meta = mteb.models.ModelMeta.create_empty(fields | options)
        monkeypatch.setitem(MODEL_REGISTRY, name, meta)

    template = {"instruction_template": "Instruct: {instruction}\nQuery: ", "max_seq_length": 40}
    add("tiny/plain", SentenceTransformerEncoderWrapper)
    add("tiny/prompts", SentenceTransformerEncoderWrapper, loader_kwargs={"model_prompts": {"STS": "the cat "}})
    add("tiny/instruct", InstructSentenceTransformerModel, loader_kwargs=template)
    add("tiny/code", SentenceTransformerEncoderWrapper, loader_kwargs={"trust_remote_code": True})


def test_mtebs_random_encoder_gets_our_report(cli, few_resamples, tmp_path):
    run = cli("eval", "--model", RANDOM, "--suite", "mini", "--device", "cpu")
    assert run.code == 0, run.err
    assert "Encoding" not in run.err  # mteb's bars
    (path,) = (tmp_path / "results" / "mini").glob("mteb*random-encoder.json")
    report = Report.load(path)
    assert (report.model["name"], report.model["revision"]) == (RANDOM, "2")
    assert report.model["encoded_by"] == f"mteb {import_mteb().__version__}"
    assert list(report.model["files"]) == ["probes"]
    assert report.tasks["mini-sts"]["scores"]["spearman"]["all"]["interval"]
    again = cli("eval", "--model", RANDOM, "--suite", "mini", "--device", "cpu")
    assert "already there" in again.err
    former = open_model("mteb:baseline/random-encoder", device="cpu")
    assert former.provenance == open_model(RANDOM, device="cpu").provenance


def test_its_vectors_are_mtebs(monkeypatch):
    from mteb._content_hashes import hash_item

    texts = sentences(7)
    expected = [np.random.default_rng(int(hash_item({"text": t}), 16) % 2**32).random(32, np.float32) for t in texts]
    np.testing.assert_array_equal(open_model(RANDOM, device="cpu").load().encode(texts), np.array(expected))


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("plain", ""), ("prompts", "the cat "), ("instruct", "Instruct: Retrieve semantically similar text.\nQuery: ")],
)
def test_a_loaders_prompt_is_used_and_said(registered, bert, name, prompt):
    from sentence_transformers import SentenceTransformer

    model = open_model(f"mteb:tiny/{name}", device="cpu")
    texts = sentences(9)
    plain = SentenceTransformer(str(bert), device="cpu")
    expected = plain.encode([prompt + t for t in texts])
    np.testing.assert_allclose(model.load().encode(texts), expected, atol=1e-5)
    assert model.provenance.get("template", "") == (prompt + "{sentence}" if prompt else "")
    assert sorted(model.provenance["files"]) == ["probes", "weights"]
    assert model.provenance["max_length"] == (40 if name == "instruct" else 48)
    assert (model.name, model.provenance["dtype"]) == (f"mteb:tiny/{name}", "float32")


def test_sts_transfer_and_geometry(registered, cli, few_resamples):
    names = ("mteb:tiny/plain", "mteb:tiny/prompts")
    task = load_task("mini-sts")
    reports = [evaluate(open_model(name, device="cpu"), [task], FAST) for name in names]
    assert reports[0].key != reports[1].key
    encoder, pairs = open_model(names[0], device="cpu").load(), read_task_pairs(task, "test", "senteval", None)
    known = dict(zip(pairs.left, encoder.encode(pairs.left), strict=True))
    assert len(next(iter(known.values()))) == reports[0].model["dimension"] == 32
    assert cli("eval", "--model", names[1], "--suite", "mini-transfer", "--device", "cpu").code == 0
    assert cli("analyze", "--model", names[1], "--task", "mini-sts", "--device", "cpu").code == 0


def test_an_index_of_it_is_searched(cli, tmp_path):
    texts = sentences(6)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    made = SimCSE(RANDOM, device="cpu")
    made.build_index(texts)
    made.save_index("index")
    run = cli("search", "index", texts[3], "--device", "cpu")
    assert (run.code, texts[3] in run.out) == (0, True), run.err


def test_what_does_not_go_with_it_is_told(registered, cli):
    for options, words in (
        (["--pooling", "cls", "--max-length", "9"], "--pooling, --max-length: does not apply to mteb:"),
        (["--dtype", "bfloat16"], "--dtype: does not apply to mteb:"),
        (["--prompt", "x"], "does not apply to mteb:"),
        (["--truncate-dim", "3"], "--truncate-dim: does not apply"),
        (["--batch-tokens", "99"], "--batch-tokens: does not apply"),
        (["--revision", "main"], "--revision: does not apply"),
        (["--suite", "mteb:BIOSSES"], "use `mteb run`"),
    ):
        run = cli("eval", "--model", RANDOM, "--device", "cpu", *options)
        assert (run.code, words in run.err) == (2, True), run.err
    for name, words in (
        ("mteb/baseline-random-encodr", "did you mean 'mteb/baseline-random-encoder'?"),
        ("mteb/baseline-random-cross-encoder", "mteb has cross-encoder of"),
        ("mteb/baseline-random-colbert", "late-interaction"),
        ("tiny/code", "--trust-remote-code"),
        ("sentence-transformers/all-MiniLM-L6-v2", "HF_HUB_OFFLINE is set"),
        ("", "mteb's registry has no model ''"),
    ):
        run = cli("eval", "--model", f"mteb:{name}", "--suite", "mini", "--device", "cpu")
        assert (run.code, words in run.err, "Traceback" in run.err) == (2, True, False), run.err
    assert cli("export", "--model", RANDOM, "--out", "x", "--to", "transformers").code == 2


def test_a_dry_run_loads_nothing(cli, monkeypatch):
    monkeypatch.setattr(mteb_model, "MtebEncoder", lambda *a: pytest.fail("loaded"))
    run = cli("eval", "--model", "mteb:Qwen/Qwen3-Embedding-0.6B", "--suite", "mini", "--dry-run")
    assert (run.code, registry_entry("Qwen/Qwen3-Embedding-0.6B").revision in run.out) == (0, True), run.err


def test_mteb_is_imported_only_where_it_is_named():
    code = "import sys; from simcse_bench import open_model; open_model('random-words').load(); print('mteb' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "False", run.stderr


def test_a_loader_that_fails_is_told(registered, monkeypatch):
    from mteb.models.model_implementations import MODEL_REGISTRY

    def broken(*_, **__):
        raise ImportError("needs `thing`\nand more")

    meta = MODEL_REGISTRY["tiny/plain"].model_copy(update={"loader": broken})
    monkeypatch.setitem(MODEL_REGISTRY, "tiny/plain", meta)
    with pytest.raises(UserError, match=r"mteb:tiny/plain: mteb cannot load it: needs `thing`$"):
        open_model("mteb:tiny/plain", device="cpu")
