"""Sentences found in text: every kind by hand, and all of them against a plain loop over the definitions."""

import random

import pytest
from tiny import sentences

from simcse_bench.data.overlap import LEAST_INSIDE, LEAST_NEAR, Match, SentenceIndex, may_differ, normal_words
from simcse_bench.data.pairs import read_task_pairs
from simcse_bench.data.registry import load_suite


@pytest.mark.parametrize(
    ("raw", "tokenised"),
    [
        ("One woman is measuring another woman's ankle.", "one woman is measuring another woman ' s ankle ."),
        ("They don't know, and can't: it's \"late\"...", "they do n't know , and can 't : it 's `` late '' ..."),
        ("The U.S. (and Britain) won’t.", "the u.s. -lrb- and britain -rrb- wo n't ."),
        ("A well-known café", "a well @-@ known  CAFE\u0301"),
    ],
)
def test_what_a_tokeniser_did_is_undone(raw, tokenised):
    assert "".join(normal_words(raw)) == "".join(normal_words(tokenised))


def test_words_of_other_scripts():
    assert normal_words("猫が好き。") == ["猫", "が", "好", "き"]
    assert normal_words("कि ที่") == ["कि", "ที่"]  # marks belong to their letters
    assert normal_words(" ...!") == []


def test_abbreviations_are_a_word():
    assert normal_words("The U.S. and e.g. 3.5 at end.Next") == [
        "the",
        "us",
        "and",
        "eg",
        "3",
        "5",
        "at",
        "end",
        "next",
    ]


INDEX = SentenceIndex(
    [
        "A man is playing a guitar.",  # 0: five different words
        "Dogs run.",  # 1
        "The prime minister of the country resigned on Monday after a vote",  # 2: twelve words
        "A MAN is playing a guitar",  # again 0
        "",
        "The Shi'ites demand help.",  # 4
        "the shi ' ites demand help .",
    ]
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A man is playing a guitar.", {Match(0, "exact")}),
        ("  A MAN is playing a guitar ", {Match(0, "exact")}),
        ("a man is playing a guitar .", {Match(0, "normalised")}),
        ("a man is playing  a flute", {Match(0, "near", 1)}),
        ("a man is playing", {Match(0, "near", 1)}),
        ("a tall man is playing a guitar", {Match(0, "near", 1)}),
        ("a guitar is playing a man", {Match(0, "near", 0)}),  # the order is not looked at
        ("a woman is playing a flute", set()),
        ("dogs run!", {Match(1, "normalised")}),
        ("dogs bark", set()),  # too short for near
        (
            "He said: the prime minister of the country resigned, on Monday, after a vote, and left.",
            {Match(2, "inside")},
        ),
        ("the prime minister of the country resigned on Sunday after a vote", {Match(2, "near", 1)}),
        ("the prime minister of that country resigned on Sunday after a vote", set()),
        ("see, a man is playing a guitar in the street there", set()),  # inside from eight words on
        ("the shiites need help", {Match(4, "near", 1)}),
        ("the shi ' ites need help", {Match(4, "near", 1)}),  # as either form of the sentence has its words
        ("", set()),
        ("?", set()),
    ],
)
def test_every_kind_by_hand(text, found):
    assert set(INDEX.find(text)) == found
    assert len(INDEX) == 5


def test_near_can_be_left_out():
    index = SentenceIndex(["one two three four", "one two three four five six"], least=6)
    assert set(index.find("one two three four five")) == {Match(1, "near", 1)}
    assert set(SentenceIndex(["one two three four"], least=0).find("one two three")) == set()


def by_definition(known, text):
    """All matches, from the definitions of ``KINDS``, sentence by sentence."""
    words = normal_words(text)
    for number, (sentence, own) in enumerate(known.items()):
        joined, inner = f" {' '.join(words)} ", f" {' '.join(own)} "
        missing, added = len({*own} - {*words}), len({*words} - {*own})
        if "".join(own) == "".join(words):
            yield Match(number, "exact" if sentence == text else "normalised")
        elif len(own) >= LEAST_INSIDE and inner in joined:
            yield Match(number, "inside")
        elif len({*own}) >= LEAST_NEAR and max(missing, added) <= max(1, len({*own}) // 10):
            yield Match(number, "near", max(missing, added))


def test_nothing_is_missed_and_nothing_made_up():
    known = {text: normal_words(text) for text in sentences(150, seed=1, longest=25)}
    rng = random.Random(2)
    index, seen = SentenceIndex(known), set()
    for text in [*list(known)[:60], *sentences(150, seed=3, longest=25)]:
        words = text.split()
        for changed in (
            text,
            text.upper(),
            " ".join(words[1:]),
            " ".join([*words, rng.choice(words), *rng.choice(list(known)).split()]),
        ):
            matches = set(index.find(changed))
            assert matches == set(by_definition(known, changed))
            seen |= {m.kind for m in matches}
    assert seen == {"exact", "normalised", "inside", "near"}


def test_one_word_in_ten():
    assert [may_differ(n) for n in (4, 10, 19, 20, 35)] == [1, 1, 1, 2, 3]


@pytest.mark.data
def test_planted_sentences_are_found_whatever_was_done_to_them(real_data):
    """Of the real test sentences: recall 1 but for near copies of sentences of fewer than four different words."""
    texts = {}
    for task in load_suite("sts"):
        for variant in ("raw", "senteval"):
            pairs = read_task_pairs(task, "test", variant, real_data)
            texts |= dict.fromkeys((*pairs.left, *pairs.right), variant)
    index, rng = SentenceIndex(texts), random.Random(0)
    for text in rng.sample([t for t, variant in texts.items() if variant == "raw"], 500):
        number, words = index.numbers[text.strip()], text.split()
        assert Match(number, "exact") in index.find(text)
        assert number in {m.sentence for m in index.find("  ".join(words).swapcase() + " !")}
        at = rng.choice([i for i, word in enumerate(words) if normal_words(word)])
        changed = " ".join([*words[:at], "zebra", *words[at + 1 :]])
        if len(set(normal_words(text))) >= LEAST_NEAR and len(normal_words(words[at])) == 1:
            assert number in {m.sentence for m in index.find(changed)}, changed
