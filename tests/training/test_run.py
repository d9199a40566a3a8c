"""What lies in a run's folder decides what `train` does there: nothing foreign is touched, nothing damaged is trusted."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from processes import record, stop_at
from safetensors.torch import load_file, save_file
from tiny import tiny_bert

from simcse_bench.errors import UserError
from simcse_bench.training import selection
from simcse_bench.training.folder import RunFolder

OUT = Path("runs/x")


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def weights(out=OUT):
    return (out / "model.safetensors").read_bytes()


# --- a folder that no run made


@pytest.mark.parametrize("args", [(), ("--force",), ("--resume",)])
@pytest.mark.parametrize(
    "files",
    [
        ["model.safetensors", "checkpoints/best/model.safetensors", "log.jsonl"],
        ["checkpoints/step-00000004/state.json"],
        ["checkpoints/config.json", "notes.txt"],
        ["a.txt"],
    ],
)
def test_a_folder_that_no_run_made_is_left_as_it_is(train, files, args):
    for name in files:
        (OUT / name).parent.mkdir(parents=True, exist_ok=True)
        (OUT / name).write_text("{}")
    before = content(OUT)
    done = train(*args)
    assert done.code == 2, done.err
    assert len(done.err.splitlines()) == 1
    assert str(OUT) in done.err
    assert content(OUT) == before


@pytest.mark.parametrize("args", [(), ("--force",), ("--resume",)])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": "finished"}'])
def test_a_train_json_of_another_program_is_left_as_it_is(train, text, args):
    OUT.mkdir(parents=True)
    (OUT / "train.json").write_text(text)
    (OUT / "model.safetensors").write_text("x")
    before = content(OUT)
    done = train(*args)
    assert done.code == 2, done.err
    assert len(done.err.splitlines()) == 1
    assert "train.json" in done.err
    assert content(OUT) == before


def test_an_empty_folder_and_what_a_kill_leaves_are_no_hindrance(train):
    (OUT / "checkpoints").mkdir(parents=True)
    (OUT / "checkpoints/.config.json-abc").write_text("{")
    (OUT / ".train.json-abc").write_text("{")
    (OUT / ".gitkeep").write_text("")
    done = train()
    assert done.code == 0, done.err
    assert {p.name for p in OUT.iterdir() if p.name.startswith(".")} == {".gitkeep"}


@pytest.mark.parametrize("args", [(), ("--force",), ("--resume",)])
def test_a_run_does_not_overwrite_the_model_that_it_starts_from(train, tmp_path, args):
    model = tiny_bert(tmp_path / "start")
    (tmp_path / "link").symlink_to(model)
    before = content(model)
    for given, out in (("start", "start"), (model, "start/../start"), (model, "link"), ("link", model)):
        done = train(*args, model=given, out=Path(out))
        assert done.code == 2, done.err
        assert f"--out {Path(out)}: is the folder of model {given}" in done.err
    done = train(*args, augmentation="mlm", augmentation_file=model, out=Path("link"))
    assert "is the folder of augmentation_file" in done.err
    assert content(model) == before
    assert train(out=Path("own")).code == 0
    before = content(Path("own"))
    done = train(*args, model="own", out=Path("own"))
    assert done.code == 2
    assert content(Path("own")) == before


# --- a finished run


def damage(path, how):
    if how == "removed":
        path.unlink()
    elif how == "cut off":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["removed", "cut off", "changed"])
def test_a_finished_run_without_its_model_is_not_there_already(train, cli, how):
    assert train().code == 0
    whole = content(OUT)
    names = list(record(OUT)["files"])
    assert {"model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json", "modules.json"} <= set(names)
    for name in names:
        damage(OUT / name, how)
        for done in (train(), train("--resume"), cli("train", "--resume", "--out", OUT)):
            assert done.code == 2, done.err
            problem = f"{name} is missing" if how == "removed" else f"{name} is damaged or was changed"
            assert f"{OUT}: a finished run without its model: {problem}. Train it anew with --force" in done.err
        (OUT / name).write_bytes(whole[Path(name)])
    assert "already there" in train().err
    damage(OUT / "model.safetensors", how)
    assert train("--force").code == 0
    assert weights() == whole[Path("model.safetensors")]


def mutations(value):
    """Other values in a field's place."""
    return [v for v in (None, "?", -1.5, math.nan, math.inf, [], {}, [[]], True, [None]) if v != value]


def same_kind(one, other):
    kinds = [type(v) if v is None or isinstance(v, bool | str | list | dict) else float for v in (one, other)]
    return kinds[0] is kinds[1] and (kinds[0] is not float or math.isfinite(other))


def test_a_record_that_is_damaged_is_told_in_a_line(train):
    assert train(track_geometry=3).code == 0
    whole = record(OUT)
    tried = 0
    for field, value in whole.items():
        dropped = {k: v for k, v in whole.items() if k != field}
        possible = [None] if field == "dev" else []
        others = [v for v in mutations(value) if field == "status" or not (same_kind(value, v) or v in possible)]
        later = field in ("files", "state_mib")  # of a finished run; of this version
        for changed in [*([] if later else [dropped]), *(whole | {field: v} for v in others)]:
            (OUT / "train.json").write_text(json.dumps(changed))
            tried += 1
            with pytest.raises(UserError, match=f"{field}|NaN|Infinity") as caught:
                RunFolder(OUT).record()
            assert "\n" not in str(caught.value)
            if changed is dropped:
                assert train(track_geometry=3).code == 2
    assert tried > 150
    (OUT / "train.json").write_text(json.dumps({k: v for k, v in whole.items() if k != "files"}))
    assert "its record names no files" in train(track_geometry=3).err


# --- a run whose checkpoints are damaged


@pytest.fixture
def stopped(train, monkeypatch):
    """A run stopped behind step 4, with checkpoints of steps 2 and 4."""
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2").code == 130
    return OUT / "checkpoints" / "step-00000004"


def drop_a_moment(path):
    tensors = load_file(path)
    del tensors[next(k for k in tensors if k.endswith(".exp_avg_sq"))]
    save_file(tensors, path)


def drop_all_moments(path):
    save_file({}, path)


def reshape_a_moment(path):
    tensors = load_file(path)
    name = next(k for k in tensors if k.endswith("dense.weight.exp_avg"))
    tensors[name] = tensors[name].flatten()
    save_file(tensors, path)


def fill_with_nan(path):
    save_file({k: torch.full_like(v, math.nan) for k, v in load_file(path).items()}, path)


DAMAGES = {
    "removed": lambda p: p.unlink(),
    "empty": lambda p: p.write_bytes(b""),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "text": lambda p: p.write_text("no tensors"),
    "one bit": lambda p: damage(p, "changed"),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
}
OF_TENSORS = {f.__name__: f for f in (drop_a_moment, drop_all_moments, reshape_a_moment, fill_with_nan)}


@pytest.mark.parametrize(
    "name, how",
    [(n, h) for n in ("model.safetensors", "optimizer.safetensors", "state.json") for h in DAMAGES if (n, h) != ("state.json", "one bit")]
    + [("optimizer.safetensors", h) for h in OF_TENSORS] + [("model.safetensors", "fill_with_nan")],
)  # fmt: skip
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(train, stopped, name, how):
    assert train(out=Path("whole")).code == 0
    (DAMAGES | OF_TENSORS)[how](stopped / name)
    done = train("--resume")
    assert done.code == 0, done.err
    (said,) = [line for line in done.err.splitlines() if "damaged" in line or name in line]
    assert str(stopped / name) in said
    assert said.endswith("Going on from step 2.")
    assert weights() == weights(Path("whole"))
    assert not (OUT / "checkpoints").exists()


def test_a_run_without_a_usable_checkpoint_is_refused(train, stopped):
    for step in ("step-00000002", "step-00000004"):
        (stopped.parent / step / "optimizer.safetensors").unlink()
    before = content(OUT)
    done = train("--resume")
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert [("step-00000004" in x, "step-00000002" in x) for x in lines] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert "no usable checkpoint. Start anew with --force" in lines[2]
    assert content(OUT) == before
    assert train("--force").code == 0
    assert train(out=Path("whole")).code == 0
    assert weights() == weights(Path("whole"))


def test_a_state_that_is_damaged_is_passed_over(stopped):
    whole = json.loads((stopped / "state.json").read_text())
    assert RunFolder(OUT).last_state()[0].step == 4
    tried = 0
    for field, value in whole.items():
        dropped = {k: v for k, v in whole.items() if k != field}
        for changed in [dropped, *(whole | {field: v} for v in mutations(value))]:
            if changed.get(field, 0) in ([], None) and field in ("measured", "best"):
                continue  # those are possible
            if field in ("best", "seconds", "tokens", "sentences", "processes") and changed.get(field) == -1.5:
                continue  # numbers like others
            if field == "key" and changed.get(field) == "?":
                continue  # another run's, which --resume refuses
            (stopped / "state.json").write_text(json.dumps(changed))
            tried += 1
            try:
                state, problems = RunFolder(OUT).last_state()
            except UserError:
                raise AssertionError(changed) from None
            assert state.step == 2, changed
            assert len(problems) == 1
            assert "\n" not in problems[0]
    assert tried > 80


def test_a_checkpoint_without_its_loss_scale_and_a_binary_log_are_no_traceback(train, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2", dtype="float16").code == 130
    path = OUT / "checkpoints/step-00000004/state.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | {"scaler": {}}))
    done = train("--resume", dtype="float16")
    assert done.code == 2
    assert "the checkpoint of step 4 has no loss scale" in done.err
    path.write_text(whole)
    log = OUT / "log.jsonl"
    log.write_bytes(log.read_bytes() + b"\xff\x00\xfe")
    done = train("--resume", dtype="float16")
    assert done.code == 0, done.err
    assert [json.loads(x)["step"] for x in log.read_text().splitlines()] == [2, 4, 6]


def test_the_settings_of_an_unfinished_run_are_typed(train, cli, stopped):
    path = stopped.parent / "config.json"
    whole = json.loads(path.read_text())
    for text in ("", "[]", "{}", json.dumps(whole | {"seed": "x"}), json.dumps(whole | {"temperature": math.nan}),
                 json.dumps(whole | {"columns": None}), json.dumps(whole | {"mlm_tied": None})):  # fmt: skip
        path.write_text(text)
        done = cli("train", "--resume", "--out", OUT, "--device", "cpu")
        assert done.code == 2, text
        assert len(done.err.splitlines()) == 1
    assert train("--force").code == 0


def test_a_checkpoint_whose_best_weights_are_damaged_is_not_gone_on_with(train, monkeypatch):
    scores = iter([10.0, 50.0, 30.0, 30.0, 30.0])
    monkeypatch.setattr(selection.Dev, "measure", lambda *_, **__: {"dev": next(scores)})
    settings = {"max_steps": 12, "eval_every": 2}
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        assert train("--save-every", "1", **settings).code == 130
    assert sorted(RunFolder(OUT).checkpoints()) == [4, 7, 8]
    shutil.copytree(OUT, "copy")
    damage(OUT / "checkpoints/step-00000004/model.safetensors", "changed")
    done = train("--resume", **settings)
    assert done.code == 2
    assert "no usable checkpoint" in done.err
    shutil.rmtree(OUT)
    shutil.copytree("copy", OUT)
    shutil.rmtree(OUT / "checkpoints/step-00000004")
    done = train("--resume", **settings)
    assert done.code == 2
    assert "no checkpoint of its best weights, those of step 4" in done.err
