"""Every change of a sentence by hand: what it makes, what it leaves alone, and the same on every machine."""

import random
import re
from collections import Counter

import pytest

from simcse_bench.data.perturbations import _KEYS, PERTURBATIONS, require_setting
from simcse_bench.errors import UserError

MAN = "A man is playing a guitar."


def changed(name, sentence, **how):
    return PERTURBATIONS[name].apply(sentence, **how)


@pytest.mark.parametrize(
    "name, before, after",
    [
        ("lower case", "The FBI, in Paris.", "the fbi, in paris."),
        ("upper case", "The straße in Paris.", "THE STRASSE IN PARIS."),
        ("title case", "it's the FBI's well-known (old) file", "It's The FBI's Well-known (old) File"),
        ("less punctuation", MAN, "A man is playing a guitar"),
        (
            "less punctuation",
            "He said: \"no, it's 3.5 or .5, dogs' food (5%)!\"",
            "He said no it's 3.5 or .5 dogs food 5%",
        ),
        ("less punctuation", "a well - known , old man ' s hat .", "a well - known old man s hat"),
        ("less punctuation", "...", "..."),
        ("more punctuation", MAN, "A man is playing a guitar..."),
        ("more punctuation", "Why?", "Why???"),
        ("more punctuation", "Plane lands in field", "Plane lands in field."),
        ("negation", MAN, "A man is not playing a guitar."),
        ("negation", "She will win if she can.", "She will not win if she can."),
        ("negation", "The island sank.", "It is not true that the island sank."),
        ("negation", "Obama meets Putin", "It is not true that Obama meets Putin"),
        ("negation", "Is it a dog?", "Is it a dog?"),
        ("negation", "It isn't a dog.", "It isn't a dog."),
        ("negation", "it is n ' t a dog .", "it is n ' t a dog ."),
        ("negation", "No dog barks.", "No dog barks."),
        ("word order", "Dogs bark.", "bark Dogs."),
        ("word order", "no, no no", "no, no no"),
        ("word order", "Stop!", "Stop!"),
        ("word order", "", ""),
    ],
)
def test_by_hand(name, before, after):
    assert changed(name, before) == after


def test_the_same_choices_everywhere():
    """Python keeps what a seeded generator draws from version to version, so that these stand for all machines."""
    assert changed("typos", MAN, rate=1) == "A mn is plaiyng a gutiar."
    assert changed("typos", MAN, rate=1, seed=7) != changed("typos", MAN, rate=1)
    assert changed("frame", MAN) == "It is a fact that a man is playing a guitar."
    assert changed("word order", MAN) == "A guitar is man playing a."


def test_a_frame_for_statements_and_one_for_questions():
    frames = {changed("frame", MAN, seed=seed) for seed in range(40)}
    assert frames == {f"{start} a man is playing a guitar."
                      for start in ("It is said that", "It is a fact that", "As it happens,", "In other words,")}  # fmt: skip
    questions = {changed("frame", "Is it a dog?", seed=seed) for seed in range(40)}
    assert questions == {"Please tell me: Is it a dog?", "Here is my question: Is it a dog?"}
    assert changed("frame", "Obama meets Putin").endswith(" Obama meets Putin")


def test_the_order_of_the_words_changes_and_nothing_else():
    sentence = "Well-known dogs' owners, it's said (by 3.5 men), don't bark!"
    for seed in range(30):
        after = changed("word order", sentence, seed=seed)
        assert after != sentence
        assert Counter(re.findall(r"\w+", after)) == Counter(re.findall(r"\w+", sentence))
        assert re.sub(r"\w+(?:['’-]\w+)*", "", after) == re.sub(r"\w+(?:['’-]\w+)*", "", sentence)


def distance(one, other):
    """Of two words by one error: letters put in, left out, replaced, or two neighbours swapped (Damerau 1964)."""
    table = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            steps = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (one[i - 1] != other[j - 1])]
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                steps.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(steps)
    return table[len(one), len(other)]


def test_a_typo_is_one_error_in_a_share_of_the_words():
    rng = random.Random(1)
    words = "".join(rng.choice("abcdefghij klmnopqrst uvwxyz ") for _ in range(40_000)).split()
    long = [i for i, word in enumerate(words) if len(word) >= 3]
    for rate in (0.1, 0.5, 1.0):
        after = changed("typos", " ".join(words), rate=rate).split(" ")
        assert len(after) == len(words)
        wrong = [i for i, word in enumerate(words) if after[i] != word]
        assert set(wrong) <= set(long)
        assert len(wrong) / len(long) == pytest.approx(rate, abs=0.015)
        assert {distance(words[i], after[i]) for i in wrong} == {1}


def test_the_keys_that_touch():
    assert set(_KEYS["g"]) == set("fhtyvb")
    assert set(_KEYS["q"]) == set("wa")
    assert set(_KEYS["p"]) == set("ol")
    assert all(one in _KEYS[other] for one, keys in _KEYS.items() for other in keys)
    typed = {changed("typos", "GGG", rate=1, seed=seed) for seed in range(300)}
    assert typed == {"GG"} | {f"{key}GG" for key in "FHTYVB"} | {f"G{key}G" for key in "FHTYVB"}


def test_a_letter_without_a_key_is_left_out():
    assert {changed("typos", "ééé", rate=1, seed=seed) for seed in range(20)} == {"éé"}


def test_settings_that_are_none():
    require_setting(0, 1.0)
    for seed, rate, said in (
        (0, 0.0, "above 0"),
        (0, 1.1, "at most 1"),
        (0, float("nan"), "share"),
        (-1, 0.1, "--seed -1"),
    ):
        with pytest.raises(UserError, match=said):
            require_setting(seed, rate)
