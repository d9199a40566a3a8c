"""Every architecture of docs/architectures.md gives transformers' own vectors and gradients, or is refused in words."""

import random
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, HEAD, page, row

from simcse_bench.models.cpu_kernels import torch_trains_faster

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
# wrong at some time: masks as numbers, sinks, no causal mask, positions of given words, padding seen, shared keys
NAMED = ("mpnet", "longformer", "splinter", "bloom", "gpt_oss", "gpt2", "convbert", "llama", "squeezebert", "xlnet")


def committed():
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    return {line.split(" | ")[0].removeprefix("| "): line for line in text[len(HEAD) :].splitlines()}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(names):
    found = page([row(name) for name in names])[len(HEAD) :].splitlines()
    expected = [committed()[name] for name in names]
    if torch_trains_faster():  # our layers are torch's own then, and suit architectures that oneDNN's do not
        found, expected = (
            [line.replace("transformers' layers", "our layers") for line in x] for x in (found, expected)
        )
    assert found == expected


def test_the_page_has_every_architecture_and_none_is_wrong():
    assert list(committed()) == ARCHITECTURES
    assert len(ARCHITECTURES) >= 120
    assert "WRONG" not in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted({*NAMED, *random.Random(0).sample(ARCHITECTURES, 6)}))
def test_some_architectures(name):
    check([name])


@pytest.mark.slow
def test_all_architectures():
    check(ARCHITECTURES)
