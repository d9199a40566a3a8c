"""What all methods have in common: names, settings, what they refuse."""

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from processes import stop_at
from steps import STILL, batch, refused, same, sentence_model, step
from transformers import BertConfig, BertForMaskedLM

from simcse_bench.errors import UserError
from simcse_bench.papers.published import family_rows, read_table
from simcse_bench.training.config import TrainConfig, read_config
from simcse_bench.training.folder import RunFolder
from simcse_bench.training.methods.known import METHODS, method_class, setting_problems, settings_of
from simcse_bench.training.recipes import with_settings

OWN = {  # settings under which a method shows what it does in a few steps of few rows
    "iscse": {"buffer": 16, "neighbours": 3},
    "dclr": {"threshold": 0.5},
    "promptbert": {"second_template": "the {sentence} [MASK] ,"},
    "rankcse": {
        "teacher": "random-words",
        "distillation_weight": 0.1,
        "ranking_temperature": 0.2,
        "consistency_temperature": 0.2,
    },
    "diffcse": {"generator": ""},  # a masked language model, see `generator`
    "scd": {"projector_width": 64, "decorrelation_weight": 0.05},
}
NEEDS = {  # settings of the run that a method does not work without
    "promptbert": {"pooling": "mask", "template": "a {sentence} [MASK] ."},
    "diffcse": {"mlp": "none"},
    "scd": {"mlp": "none"},
}
UNSCORED = [name for name, known in METHODS.items() if not known.scored]  # the others: test_cosent.py, test_angle.py
SUCCESSORS = [name for name in UNSCORED if name != "simcse"]
PLAIN = [name for name in UNSCORED if name not in NEEDS]  # that take any rows of tokens
OUT = Path("runs/x")


@pytest.fixture(autouse=True)
def generator(bert, tmp_path, monkeypatch):
    """For the method that needs one."""
    folder = tmp_path / "lm"
    shutil.copytree(bert, folder)
    torch.manual_seed(1)
    BertForMaskedLM(BertConfig.from_pretrained(bert)).save_pretrained(folder)
    monkeypatch.setitem(OWN["diffcse"], "generator", str(folder))


def told(name):
    """What a run with a method needs, for the command line."""
    own = {key: value for key, value in OWN.get(name, {}).items() if key == "teacher"}
    return [f"{key}={value}" for key, value in ({"method": name} | NEEDS.get(name, {}) | own).items()]


def weights(out=OUT):
    return (out / "model.safetensors").read_bytes()


# --- names and settings


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name):
    known, method = METHODS[name], method_class(name)
    assert known.title
    assert known.source
    assert bool(known.changes) == (name != "simcse")
    assert known.scored == method.scored
    assert inspect.getdoc(method)
    for field in dataclasses.fields(method.Settings):
        assert field.metadata["help"], field.name
        low, high = field.metadata["low"], field.metadata["high"]
        assert isinstance(field.default, str | bool) or low <= field.default <= high
    assert method.Settings(**settings_of(name)) == method.Settings()


@pytest.mark.parametrize("name", SUCCESSORS)
def test_no_setting_has_the_name_of_a_field_of_every_run(name):
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert not fields & set(settings_of(name))
    assert "dropout" not in settings_of(name)


def test_settings_of_one_name_are_the_same_thing():
    helps = {}
    for name in SUCCESSORS:
        for field in dataclasses.fields(method_class(name).Settings):
            known = helps.setdefault(field.name, (type(field.default), field.metadata["help"]))
            assert known == (type(field.default), field.metadata["help"]), field.name


def test_an_unknown_method_is_refused_with_the_nearest_name(cli):
    assert "unknown method 'simcs++'; did you mean 'simcse++'?" in refused(cli, "method=simcs++")
    assert "unknown method 'esimsce'; did you mean 'esimcse'?" in refused(cli, "method=esimsce")
    assert "Known: simcse, gs, esimcse, arccon, mixcse" in refused(cli, "method=other")


def test_another_methods_setting_is_refused_by_name(cli):
    said = refused(cli, "method=mixcse", "margin=5")
    assert "margin: a setting of method arccon; the method here is mixcse." in said
    assert "margin: a setting of method arccon; the method here is simcse." in refused(cli, "margin=5")
    said = refused(cli, "method=arccon", "noise=2")
    assert "noise: a setting of method gs and dclr; the method here is arccon." in said


def test_an_unknown_setting_is_refused_with_the_nearest_name(cli):
    assert "unknown field 'margn'; did you mean 'margin'?" in refused(cli, "method=arccon", "margn=5")
    assert setting_problems("arccon", {"margn": 5.0}) == [
        "margn: unknown setting of method arccon; did you mean 'margin'? Its settings: margin."
    ]
    said = ["other: unknown setting of method simcse. Its settings: none."]
    assert setting_problems("simcse", {"other": 1}) == said


def test_a_value_of_another_type_is_refused(cli):
    assert "--set margin=wide: expected a number." in refused(cli, "method=arccon", "margin=wide")
    assert "--set neighbours=1.5: expected a whole number." in refused(cli, "method=iscse", "neighbours=1.5")
    assert "--set off_dropout=2: expected true or false." in refused(cli, "method=simcse++", "off_dropout=2")
    for method, given, said in (
        ("arccon", {"margin": "5"}, "margin '5': expected a number."),
        ("arccon", {"margin": True}, "margin True: expected a number."),
        ("iscse", {"neighbours": 2.0}, "neighbours 2.0: expected a whole number."),
        ("simcse++", {"off_dropout": 1}, "off_dropout 1: expected true or false."),
        ("dclr", {"complement": 3}, "complement 3: expected a text."),
    ):
        with pytest.raises(UserError) as caught:
            TrainConfig(method=method, method_settings=given).check()
        assert caught.value.problems == (said,)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e9"])
def test_a_number_out_of_range_is_refused(cli, value):
    assert "margin" in refused(cli, "method=arccon", f"margin={value}")


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError) as caught:
        TrainConfig(method="esimcse", method_settings={"queue": 0.0, "momentum": 2.0, "margin": 1.0}).check()
    assert caught.value.problems == ("margin: a setting of method arccon; the method here is esimcse.",)
    with pytest.raises(UserError) as caught:
        TrainConfig(method="esimcse", method_settings={"queue": 0.0, "momentum": 2.0}).check()
    assert len(caught.value.problems) == 2


def test_settings_follow_the_method():
    config = with_settings(TrainConfig(), ["margin=20", "method=arccon"])
    assert config.method_settings == {"margin": 20.0}
    assert with_settings(config, ["margin=30"]).method_settings == {"margin": 30.0}
    assert with_settings(config, ["method=gs"]).method_settings == {}
    assert config.settled().method_settings == {"margin": 20.0}
    assert with_settings(TrainConfig(), ["method=gs"]).settled().method_settings == settings_of("gs")


def test_a_default_that_is_written_out_is_the_same_run(train):
    assert train(method="gs").code == 0
    assert "already there" in train(method="gs", noise=3).err
    assert "already there" not in train(method="gs", noise=2).err


# --- what they refuse


@pytest.mark.parametrize("name", SUCCESSORS)
def test_what_a_method_cannot_work_with_is_refused_by_its_name(cli, name):
    method = method_class(name)
    cases = {"symmetric=true": True, "similarity=dot": method.cosine_only, "same_mask=replay": method.lone_sentences,
             "same_mask=copy": method.lone_sentences, "encoders=2": method.lone_sentences,
             "augmentation=crop": method.lone_sentences, "objective=next_sentence": method.lone_sentences,
             "cached_gradients=true": not method.cached_gradients}  # fmt: skip
    for setting, refuses in cases.items():
        if refuses:
            assert f"method {name}: " in refused(cli, *told(name), setting), setting
        else:
            with_settings(TrainConfig(), [*told(name), setting])


@pytest.mark.parametrize("same_mask", ["copy", "replay"])
def test_a_method_of_dropouts_views_is_not_for_equal_ones(cli, same_mask):
    said = refused(cli, "method=esimcse", f"same_mask={same_mask}")
    assert "method esimcse: with objective self, augmentation none, same_mask no and encoders 1 only." in said


def test_a_change_of_the_cosine_is_not_for_dot_products(cli):
    said = refused(cli, "method=arccon", "similarity=dot")
    assert "method arccon: is a change of the cosine; not with similarity dot." in said


@pytest.mark.parametrize("name", PLAIN)
def test_cached_gradients_equal_plain_ones_or_are_refused(bert, name):
    settings = {"method": name, "method_settings": OWN.get(name, {}), "batch_size": 8}
    if not method_class(name).cached_gradients:
        with pytest.raises(UserError, match=f"method {name}: not with cached_gradients"):
            sentence_model(bert, cached_gradients=True, **settings)
        return
    plain, cached = (sentence_model(bert, cached_gradients=c, **settings) for c in (False, True))
    for seed in range(2):
        rows = batch(8, 1, seed=seed)
        same(step(cached, rows), step(plain, rows), 1e-5)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("cached", [False, True])
def test_bfloat16_comes_near_float32(bert, name, cached):
    cached = cached and method_class(name).cached_gradients
    settings = {"method": name, "method_settings": OWN.get(name, {}), "batch_size": 8, "cached_gradients": cached}
    half, full = (sentence_model(bert, dtype=d, **STILL, **settings) for d in ("bfloat16", "float32"))
    for seed in range(3):
        rows = batch(8, 1, seed=seed)
        found = [step(model, rows) for model in (half, full)]
        assert found[0][0].item() == pytest.approx(found[1][0].item(), abs=0.1)
        flat = [torch.cat([g.float().flatten() for g in grads.values()]) for _, grads in found]
        assert torch.cosine_similarity(*flat, dim=0) > 0.97


@pytest.mark.parametrize("name", SUCCESSORS)
def test_a_weight_of_hard_negatives_is_not_ignored(cli, name):
    said = refused(cli, *told(name), "hard_negative_weight=0.5")
    assert f"method {name}: does not weigh hard negatives; set hard_negative_weight 1." in said


def test_a_template_is_not_repeated(cli):
    assert "not with template" in refused(cli, "method=esimcse", "template=a {sentence} .")


def test_reported_gains_are_those_of_the_published_rows():
    averages = {row.row: row.average for row in family_rows("sts")}
    named = {"gs": "GS-InfoNCE", "esimcse": "ESimCSE", "promptbert": "PromptBERT", "diffcse": "DiffCSE", "scd": "SCD",
             "mixcse": "MixCSE", "dclr": "DCLR", "arccon": "ArcCSE", "rankcse": "RankCSE ListMLE", "iscse": "IS-CSE",
             "simcse": "unsup SimCSE"}  # fmt: skip
    gains = {row["method"]: row for row in read_table("simcse_successors_gains")}
    assert set(gains) == set(UNSCORED)
    for method, name in named.items():
        average = float(gains[method]["avg"])
        assert average == pytest.approx(averages[f"{name}-BERT-base"]), method
        assert float(gains[method]["gain"]) == pytest.approx(average - 76.25, abs=0.006), method


# --- runs


@pytest.mark.parametrize("name", SUCCESSORS)
def test_a_method_trains_other_weights_than_simcse(train, name):
    assert train(max_steps=3, out=Path("runs/plain")).code == 0
    done = train(max_steps=3, method=name, **NEEDS.get(name, {}), **OWN.get(name, {}))
    assert done.code == 0, done.err
    assert weights() != weights(Path("runs/plain"))
    record = json.loads((OUT / "train.json").read_text(encoding="utf-8"))
    assert record["config"]["method"] == name
    shown = settings_of(name) | OWN.get(name, {})
    assert record["config"]["method_settings"] == shown | ({"generator": "lm"} if "generator" in shown else {})


@pytest.mark.parametrize("name", SUCCESSORS)
def test_a_stopped_run_goes_on_to_the_same_weights(train, cli, monkeypatch, name):
    own = NEEDS.get(name, {}) | OWN.get(name, {})
    assert train(out=Path("whole"), method=name, **own).code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2", method=name, **own).code == 130
    assert cli("train", "--resume", "--out", OUT, "--device", "cpu").code == 0
    assert weights() == weights(Path("whole"))


LATER = ("method", "method_settings", "matryoshka", "false_negative_threshold")


def test_a_run_from_before_there_were_methods_is_resumed(train, cli, monkeypatch):
    assert train(out=Path("whole")).code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train("--save-every", "2").code == 130
    saved = OUT / "checkpoints" / "config.json"
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert not set(LATER) & set(content)  # it is written as it was then
    assert read_config(saved) == RunFolder(OUT).config()
    assert cli("train", "--resume", "--out", OUT, "--device", "cpu").code == 0
    assert weights() == weights(Path("whole"))


def test_settings_from_before_there_were_methods_keep_their_fingerprint(tmp_path):
    assert TrainConfig().fingerprint() == "67ec4aabf009fd52"
    content = dataclasses.asdict(TrainConfig())
    for later in LATER:
        del content[later]
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_config(tmp_path / "config.json") == TrainConfig()
    assert TrainConfig(method="gs").fingerprint() != TrainConfig().fingerprint()
