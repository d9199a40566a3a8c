import dataclasses
import json
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_bench.errors import UserError
from simcse_bench.training.config import TrainConfig, read_config
from simcse_bench.training.job import Job
from simcse_bench.training.optimizer import learning_rate
from simcse_bench.training.processes import Processes
from simcse_bench.training.recipes import RECIPES, recipe, with_settings


def one(setting):
    """The field's value after one --set."""
    return getattr(with_settings(TrainConfig(), [setting]), setting.split("=")[0].strip())


def problems(*settings):
    with pytest.raises(UserError) as caught:
        with_settings(TrainConfig(), settings)
    return caught.value.problems


@pytest.mark.parametrize(
    "setting,value",
    [
        ("batch_size=128", 128),
        ("learning_rate=1e-5", 1e-5),
        ("epochs=3", 3.0),
        ("symmetric=true", True),
        ("symmetric=Yes", True),
        ("symmetric=1", True),
        ("symmetric=false", False),
        ("symmetric=No", False),
        ("symmetric=0", False),
        ("model=some/model", "some/model"),
        ("model=a=b", "a=b"),
        (" pooling = mean ", "mean"),
        ("revision=none", None),
        ("revision=v1", "v1"),
        ("hidden_dropout=none", None),
        ("hidden_dropout=0.2", 0.2),
        ("attention_dropout=0", 0.0),
        ("columns=sent0,sent1, hard_neg", ("sent0", "sent1", "hard_neg")),
        ("columns=text", ("text",)),
        ("columns=", ()),
        ("augmentation=none", "none"),
        ("mlp=none", "none"),
        ("augmentation_file=", ""),
    ],
)
def test_a_setting_has_the_fields_type(setting, value):
    found = one(setting)
    assert found == value
    assert type(found) is type(value)


def test_every_default_is_possible_and_comes_back_from_its_text():
    for field in dataclasses.fields(TrainConfig):
        if field.name == "method_settings":  # each is set by its own name
            continue
        default = field.default
        text = ",".join(default) if isinstance(default, tuple) else str(default)
        assert one(f"{field.name}={text}") == default


def test_dropout_stands_for_both():
    config = with_settings(TrainConfig(), ["dropout=0.05"])
    assert (config.hidden_dropout, config.attention_dropout) == (0.05, 0.05)
    config = with_settings(config, ["dropout=none", "attention_dropout=0.3"])
    assert (config.hidden_dropout, config.attention_dropout) == (None, 0.3)


def test_the_other_fields_stay_and_the_later_setting_wins():
    base = recipe("sup-bert-base")
    assert with_settings(base, ["seed=1", "seed=2"]) == dataclasses.replace(base, seed=2)
    assert with_settings(base, []) == base


def test_an_unknown_field_is_refused_with_the_nearest_name():
    (found,) = problems("learning_rat=1")
    assert "--set learning_rat=1: unknown field 'learning_rat'; did you mean 'learning_rate'?" in found
    assert "did you mean 'dropout'?" in problems("dropouts=0.1")[0]
    assert "did you mean" not in problems("xyz=1")[0]


def test_an_unknown_name_is_refused_with_the_nearest_one():
    (found,) = problems("pooling=meen")
    assert found.startswith("unknown pooling 'meen'; did you mean 'mean'?")
    assert "first_last" in found
    assert problems("pooling=cls+meen") == problems("pooling=meen")


def test_poolings_can_stand_side_by_side():
    assert with_settings(recipe("unsup-bert-base"), ["pooling=cls+mean"]).pooling == "cls+mean"
    assert "needs a template" in problems("pooling=cls+mask")[0]


def test_values_that_cannot_be_read_are_all_named():
    found = problems(
        "batch_size=64.5", "learning_rate=fast", "symmetric=maybe", "seed", "sed=1", "hidden_dropout=x", "max_rows="
    )
    assert [f.split(": ", 1)[0] for f in found] == [
        "--set batch_size=64.5", "--set learning_rate=fast", "--set symmetric=maybe", "--set seed", "--set sed=1",
        "--set hidden_dropout=x", "--set max_rows=",
    ]  # fmt: skip
    assert "expected a whole number" in found[0]
    assert "expected a number" in found[1]
    assert "expected true or false" in found[2]
    assert "expected field=value" in found[3]
    assert "did you mean 'seed'?" in found[4]


def test_impossible_values_are_all_named():
    found = problems("batch_size=1", "temperature=0", "mlp=never", "dropout=1", "encoders=3")
    assert len(found) == 6
    text = "\n".join(found)
    for part in ("batch_size 1: expected at least 2", "temperature 0.0: expected more than 0", "unknown mlp 'never'",
                 "hidden_dropout 1.0:", "attention_dropout 1.0:", "encoders 3: expected 1 or 2"):  # fmt: skip
        assert part in text


LIMITS = {  # field: values that are possible, values that are not
    "max_rows": (["0"], ["-1", "10" + "0" * 19]),
    "max_length": (["3"], ["2", "-5", "10" + "0" * 19]),
    "batch_size": (["2"], ["1", "0", "-64"]),
    "accumulation": (["1"], ["0"]),
    "chunk_tokens": (["32"], ["31"]),
    "epochs": (["0.01"], ["0", "-1", "nan", "inf", "1e308"]),
    "max_steps": (["0"], ["-1", "9" * 400]),
    "learning_rate": (["1e-9"], ["0", "-3e-5", "nan", "inf"]),
    "warmup_steps": (["0"], ["-1"]),
    "weight_decay": (["0"], ["-0.1", "nan"]),
    "max_grad_norm": (["0"], ["-1", "nan"]),
    "seed": (["0", "4294967295"], ["-1", "4294967296"]),
    "temperature": (["0.001"], ["0", "-0.05", "nan"]),
    "hard_negative_weight": (["0.5"], ["0", "-1", "inf"]),
    "false_negative_threshold": (["0", "0.9", "1"], ["-0.1", "1.1", "nan", "inf"]),
    "hidden_dropout": (["0", "0.99"], ["1", "-0.1", "nan", "0.999999"]),
    "attention_dropout": (["0", "0.99"], ["1", "-0.1", "nan", "0.999999"]),
    "mlm_weight": (["0"], ["-1", "nan"]),
    "mlm_probability": (["1"], ["0", "1.1"]),
    "lora_rank": (["0", "64"], ["-1", "65537"]),
    "lora_alpha": (["0.1", "64"], ["0", "-1", "1e39"]),
    "lora_dropout": (["0", "0.5"], ["-0.1", "1"]),
    "encoders": (["1", "2"], ["0", "3"]),
    "augmentation_rate": (["0.5"], ["0", "1", "nan"]),
    "eval_every": (["0"], ["-1"]),
    "track_geometry": (["0"], ["-1"]),
}


@pytest.mark.parametrize("name", LIMITS)
def test_numbers_have_their_limits(name):
    good, bad = LIMITS[name]
    for text in good:
        assert one(f"{name}={text}") == float(text)
    for text in bad:
        (found,) = problems(f"{name}={text}")
        assert found.startswith(f"{name} ")
        assert "expected" in found


NUMBERS = [f.name for f in dataclasses.fields(TrainConfig) if re.match("int|float", f.type)]
ODD = ["", " ", "-0", "1e308", "-1e308", "1e-308", "5e-324", "inf", "-inf", "nan", "1e400", "0x10", "1_000", "٣", "1,5", "²",
       "1e", "None", "none", "true", "0.999999", "1e5", "1" * 5000, "10" + "0" * 19, str(2**31), str(2**63), str(2**64)]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(NUMBERS),
    st.one_of(
        st.sampled_from(ODD), st.integers().map(str), st.floats().map(repr), st.floats(0, 1e-3).map(repr),
        st.integers(0, 40).map(lambda n: str(10**n)), st.text(max_size=8),
    ),
)  # fmt: skip
def test_a_number_is_refused_in_a_line_or_gives_a_run_that_can_be_counted(name, text):
    try:
        config = with_settings(TrainConfig(), [f"{name}={text}"])
    except UserError as error:
        (problem,) = error.problems
        assert name in problem
        assert "expected" in problem
        assert problem.isprintable()
        assert len(problem) < 300
        return
    assert TrainConfig(**json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))).check()
    for rows in (2, 1000):
        job = Job(config, None, None, range(rows), None, Processes(0, 1, torch.device("cpu")))
        assert 1 <= job.steps < 2**53
        last = job.batches_of(job.steps - 1)
        assert 0 <= last.start < last.stop
        assert math.isfinite(job.epoch(job.steps))
        assert all(math.isfinite(learning_rate(config, step, job.steps)) for step in (0, job.steps - 1))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_field_of_another_type_is_refused(name):
    for value in ("1", True, [1], float("nan"), 1.5 if name in ("seed", "encoders", "max_rows") else "x"):
        with pytest.raises(UserError, match=f"{name} .*expected") as caught:
            dataclasses.replace(TrainConfig(), **{name: value}).check()
        assert len(caught.value.problems) == 1


def test_every_number_has_a_limit():
    assert set(NUMBERS) == set(LIMITS)


def test_matryoshkas_widths():
    assert with_settings(TrainConfig(), ["matryoshka=64,128", "mlp=none"]).matryoshka == (64, 128)
    for text in ("0", "-1", "64,64"):
        (found,) = problems(f"matryoshka={text}", "mlp=always")
        assert "expected different whole numbers above 0" in found
    assert problems("matryoshka=64.5") == ("--set matryoshka=64.5: expected a whole number.",)


def test_matryoshka_needs_vectors_that_are_there_at_test():
    message = (
        "matryoshka: with mlp train_only the first values learned would be the MLP's, which is dropped at test; "
        "set mlp none or always."
    )
    assert problems("matryoshka=64") == (message,)


@pytest.mark.parametrize(
    "settings,text",
    [
        (["objective=next_sentence", "augmentation=crop"], "exclude each other"),
        (["same_mask=copy", "encoders=2"], "same_mask"),
        (["same_mask=replay", "augmentation=crop"], "same_mask"),
        (["same_mask=copy", "objective=next_sentence"], "same_mask"),
        (["encoders=2", "mlm_weight=0.1"], "mlm_weight"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, text):
    (found,) = problems(*settings)
    assert text in found
    for setting in settings:
        with_settings(TrainConfig(), [setting])


TABLE_A1 = {  # learning rate, batch, epochs, MLP
    "unsup-bert-base": (3e-5, 64, 1, "train_only"),
    "unsup-bert-large": (1e-5, 64, 1, "train_only"),
    "unsup-roberta-base": (1e-5, 512, 1, "train_only"),
    "unsup-roberta-large": (3e-5, 512, 1, "train_only"),
    "sup-bert-base": (5e-5, 512, 3, "always"),
    "sup-bert-large": (1e-5, 512, 3, "always"),
    "sup-roberta-base": (5e-5, 512, 3, "always"),
    "sup-roberta-large": (1e-5, 512, 3, "always"),
}


@pytest.mark.parametrize("name", TABLE_A1)
def test_the_recipes_are_the_papers(name):
    c = recipe(name).check()
    assert (c.learning_rate, c.batch_size, c.epochs, c.mlp) == TABLE_A1[name]
    kind, family, size = name.split("-")
    assert c.train == ("wiki1m" if kind == "unsup" else "nli")
    assert c.model.split("/")[1] == f"{family}-{size}" + ("-uncased" if family == "bert" else "")
    assert (c.temperature, c.max_length, c.pooling, c.similarity) == (0.05, 32, "cls", "cosine")
    assert (c.warmup_steps, c.weight_decay, c.max_grad_norm, c.hard_negative_weight) == (0, 0.0, 1.0, 1.0)
    assert (c.hidden_dropout, c.attention_dropout, c.mlm_weight, c.eval_task) == (None, None, 0.0, "stsb")
    assert (c.accumulation, c.max_steps, c.encoders, c.same_mask, c.symmetric) == (1, 0, 1, "no", False)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_possible(name):
    assert recipe(name).check() == recipe(name)


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown recipe 'unsup-bert-bas'; did you mean 'unsup-bert-base'"):
        recipe("unsup-bert-bas")


def test_the_fingerprint_follows_every_field():
    base = TrainConfig()
    assert base.fingerprint() == TrainConfig().fingerprint()
    seen = {base.fingerprint()}
    for field in dataclasses.fields(TrainConfig):
        value = field.default
        other = (
            not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else f"{value}other"
        )
        seen.add(dataclasses.replace(base, **{field.name: other}).fingerprint())
    assert len(seen) == 1 + len(dataclasses.fields(TrainConfig))


def written(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_config_comes_back_from_json(tmp_path):
    config = with_settings(recipe("sup-bert-base"), ["columns=a,b,c", "dropout=0.2", "revision=main"])
    path = written(tmp_path, dataclasses.asdict(config))
    assert read_config(path) == config
    assert read_config(path).fingerprint() == config.fingerprint()


def test_a_config_of_another_version_is_refused(tmp_path):
    content = dataclasses.asdict(TrainConfig())
    del content["seed"]
    with pytest.raises(UserError, match=r"another version of simcse-bench \(fields: nonsense, seed\)"):
        read_config(written(tmp_path, content | {"nonsense": 1}))


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(TrainConfig)])
def test_a_config_with_a_value_that_is_none_is_refused(tmp_path, field):
    for value in (
        {} if field != "method_settings" else [],
        math.nan,
        -1,
        "?" if field not in ("model", "revision", "train", "augmentation_file", "eval_task") else 3,
    ):
        with pytest.raises(UserError, match=f"{field}|NaN") as caught:
            read_config(written(tmp_path, dataclasses.asdict(TrainConfig()) | {field: value}))
        assert len(caught.value.problems) == 1


def test_every_field_has_a_help_text():
    assert all(f.metadata["help"] for f in dataclasses.fields(TrainConfig))


def test_simcses_flag_zero_is_our_weight_one():
    assert math.log(TrainConfig().hard_negative_weight) == 0
