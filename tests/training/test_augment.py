"""Positives from text: what each augmentation does to the words, document boundaries, determinism."""

import itertools
import random
import shutil
import sys

import pytest
import torch
from tiny import sentences, tiny_bert, write_tokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from simcse_bench.errors import UserError
from simcse_bench.training.augment import _load_mlm, make_pairs, mlm_filler
from simcse_bench.training.config import AUGMENTATIONS, OBJECTIVES

ROWS = [(f"{text} {i}",) for i, text in enumerate(sentences(400, seed=7))]


@pytest.fixture
def synonyms(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("man\tbloke chap\nbig\tlarge\nhouse\tbig house\tplace to live\n\nMan\tfellow\n", encoding="utf-8")
    return path


def made(augmentation, rate=0.0, seed=1, rows=ROWS, **more):
    return list(make_pairs(iter(rows), "self", augmentation, rate, seed, **more))


def following(lines, objective, seed=1):
    return list(make_pairs([(line,) for line in lines], objective, "none", 0, seed))


def test_none_and_self_give_the_sentence_itself():
    assert made("none", rows=[(" two  words",), ("",)]) == [(" two  words", " two  words"), ("", "")]
    assert made("none", rows=[("a", "b"), ("a", "b", "c")]) == [("a", "b"), ("a", "b", "c")]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3, 0.99])
def test_crop_keeps_a_contiguous_span(rate):
    starts = set()
    for (text,), (sentence, positive) in zip(ROWS, made("crop", rate), strict=True):
        assert sentence == text
        words, kept = text.split(), positive.split()
        assert len(kept) == max(1, round((1 - rate) * len(words)))
        places = [i for i in range(len(words)) if words[i : i + len(kept)] == kept]
        assert places
        starts.add(places[0])
    assert (len(starts) > 1) == (rate > 0)


@pytest.mark.parametrize(
    "augmentation, rate", [("word_deletion", 0.3), ("word_deletion", 0.99), ("delete_one_word", 0.5)]
)
def test_deletion_keeps_the_order(augmentation, rate):
    gone = set()
    for (text,), (_, positive) in zip(ROWS, made(augmentation, rate), strict=True):
        words, kept = text.split(), positive.split()
        expected = len(words) - 1 if augmentation == "delete_one_word" else max(1, round((1 - rate) * len(words)))
        assert len(kept) == expected
        remaining = iter(words)
        assert all(word in remaining for word in kept)  # a subsequence
        gone |= {i for i, word in enumerate(words) if word not in kept}
    assert len(gone) > 5


@pytest.mark.parametrize("augmentation", [a for a in AUGMENTATIONS if a != "mlm"])
def test_one_word_stays_and_empty_stays_empty(augmentation, synonyms):
    rows = [("man",), ("",), (" man\t",)]
    assert made(augmentation, 0.5, rows=rows, synonyms=synonyms) == [row * 2 for row in rows]


@pytest.mark.parametrize("augmentation", ["crop", "word_deletion", "delete_one_word", "synonym"])
def test_a_row_depends_on_seed_and_number_only(augmentation, synonyms):
    whole = made(augmentation, 0.3, synonyms=synonyms)
    random.seed(5)  # the process's own generator plays no part
    assert made(augmentation, 0.3, synonyms=synonyms, rows=ROWS[:100]) == whole[:100]
    assert made(augmentation, 0.3, seed=2, synonyms=synonyms) != whole
    same = made(augmentation, 0.3, synonyms=synonyms, rows=[("the big man sees a house",)] * 50)
    assert len(set(same)) > 2


def test_synonym_replaces_one_word(synonyms):
    replaced = {"man": {"bloke", "chap", "fellow"}, "big": {"large"}, "house": {"big house", "place to live"}}
    seen = set()
    for (text,), (_, positive) in zip(ROWS, made("synonym", synonyms=synonyms), strict=True):
        if not set(text.split()) & set(replaced):
            assert positive == text
            continue
        words = text.split()
        options = {
            " ".join([*words[:i], option, *words[i + 1 :]])
            for i, word in enumerate(words)
            for option in replaced.get(word, ())
        }
        assert positive in options
        seen.add(positive)
    assert len(seen) > 100


def test_synonym_keeps_capitals_and_punctuation(synonyms):
    rows = [("Big, it is.",), ("it is 'BIG'!",), ("BIGGER -- bigger",)]
    assert [p for _, p in made("synonym", rows=rows, synonyms=synonyms)] == [
        "Large, it is.",
        "it is 'LARGE'!",
        rows[2][0],
    ]


def test_synonym_file_problems(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("man\tchap\nbig large\n\tx\nred\t \n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        made("synonym", synonyms=path)
    expected = "expected a word, a tab, and synonyms with tabs or spaces between them."
    assert error.value.problems == tuple(f"{path}:{line}: {expected}" for line in (2, 3, 4))
    path.write_text("\n")
    with pytest.raises(UserError, match="no synonyms in it"):
        made("synonym", synonyms=path)
    with pytest.raises(UserError, match="no such file"):
        made("synonym", synonyms=tmp_path / "nothing")


NLTK = """
class _Synset:
    def __init__(self, names): self._names = names
    def lemma_names(self): return self._names
class wordnet:
    def synsets(word):
        {loading}
        return [_Synset(["dog", "domestic_dog"]), _Synset(["Dog", "hound"])] if word == "dog" else []
"""


@pytest.fixture
def nltk(tmp_path, monkeypatch):
    """A package nltk with the two calls that are made of it."""

    def install(loading):
        package = tmp_path / "site" / "nltk"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "corpus.py").write_text(NLTK.format(loading=loading), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path / "site")
        for name in ("nltk", "nltk.corpus"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    yield install
    for name in ("nltk", "nltk.corpus"):
        sys.modules.pop(name, None)


def test_wordnet(nltk):
    nltk("pass")
    found = made("synonym", rows=[("a Dog,",)] * 40)
    assert {p for _, p in found} == {"a Domestic dog,", "a Hound,"}


def test_wordnet_without_its_data(nltk):
    nltk("raise LookupError('Resource wordnet not found')")
    with pytest.raises(UserError, match=r"nltk's WordNet data cannot be read.*nltk.downloader.*file of synonyms"):
        made("synonym")


def test_wordnet_without_nltk(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.delitem(sys.modules, "nltk.corpus", raising=False)
    with pytest.raises(UserError, match=r"the package nltk cannot be read: `pip install .simcse-bench\[synonyms\]"):
        made("synonym")


def test_next_sentence_stays_in_its_document():
    lines = ["a", "b", "c", "", "d", " ", "", "e", "f"]
    assert following(lines, "next_sentence") == [("a", "b"), ("b", "c"), ("e", "f")]
    assert following([], "next_sentence") == following(["a", ""], "next_sentence") == []


def test_next_3_sentences_never_crosses_a_blank_line():
    rng, lines, documents = random.Random(3), [], []
    for d in range(60):
        documents.append([f"{d}-{i}" for i in range(rng.randint(1, 9))])
        lines += [*documents[-1], *[""] * rng.randint(1, 2)]
    found = following(lines, "next_3_sentences")
    assert [a for a, _ in found] == [line for document in documents for line in document[:-1]]
    distances = {}
    for a, b in found:
        (d, i), (e, j) = (map(int, x.split("-")) for x in (a, b))
        assert d == e
        assert 1 <= j - i <= 3
        distances[j - i] = distances.get(j - i, 0) + 1
    assert len(distances) == 3
    assert min(distances.values()) > 40
    assert following(lines, "next_3_sentences") == found
    assert following(lines, "next_3_sentences", seed=2) != found


def test_next_3_sentences_reads_no_more_than_it_needs():
    endless = ((f"line {i}",) for i in itertools.count())
    assert len(list(itertools.islice(make_pairs(endless, "next_3_sentences", "none", 0, 1), 5))) == 5


@pytest.mark.parametrize("arguments, message", [
    (("next_sentences", "none", 0), "unknown objective 'next_sentences'; did you mean 'next_sentence'?"),
    (("self", "cropping", 0), "unknown augmentation 'cropping'; did you mean 'crop'?"),
    (("next_sentence", "crop", 0.1), "objective 'next_sentence' and augmentation 'crop' each make the positive"),
    (("self", "crop", 1), "rate 1 of augmentation 'crop': expected at least 0 and less than 1."),
    (("self", "word_deletion", float("nan")), "rate nan"),
    (("self", "mlm", 0.15), "augmentation 'mlm' needs a masked language model"),
])  # fmt: skip
def test_errors_before_the_first_row(arguments, message):
    with pytest.raises(UserError) as error:
        make_pairs(iter(()), *arguments, seed=1)
    assert message in str(error.value)


@pytest.mark.parametrize("objective, augmentation", [*((o, "none") for o in list(OBJECTIVES)[1:]), ("self", "crop")])
def test_rows_with_a_positive_of_their_own(objective, augmentation):
    what = objective if augmentation == "none" else augmentation
    with pytest.raises(UserError, match=f"'{what}' makes the positive of single sentences, but .* has 2 columns"):
        list(make_pairs([("a", "b")], objective, augmentation, 0.1, 1))


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-mlm"
    torch.manual_seed(3)
    write_tokenizer(folder)
    vocabulary = len((folder / "vocab.txt").read_text().split())
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=48, initializer_range=0.4,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    model.cls.predictions.bias.data[:5] = 100.0  # it would fill in special tokens only
    model.save_pretrained(folder)
    return folder


def test_mlm_fills_the_share_of_tokens(masked_lm):
    texts = [text for text in sentences(200, seed=9) if len(text.split()) > 6]
    made = mlm_filler(masked_lm, 0.15, seed=1)(texts)
    split = AutoTokenizer.from_pretrained(masked_lm).tokenize  # decoding puts a full stop behind its word
    changed = [sum(a != b for a, b in zip(split(x), split(y), strict=True)) for x, y in zip(texts, made, strict=True)]
    assert len(made) == len(texts)
    for text, new, count in zip(texts, made, changed, strict=True):
        assert "[" not in new
        assert count <= max(1, round(0.15 * len(split(text))))
    assert sum(changed) > len(texts) / 2
    again = mlm_filler(masked_lm, 0.15, seed=1, batch_size=7)
    assert [text for i in range(0, len(texts), 11) for text in again(texts[i : i + 11])] == made
    assert mlm_filler(masked_lm, 0.15, seed=2)(texts) != made


def test_mlm_fills_in_the_likeliest_token(masked_lm):
    text = "the man sees the dog"
    (new,) = mlm_filler(masked_lm, 0.0, seed=1)([text])
    tokenizer, model = (kind.from_pretrained(masked_lm) for kind in (AutoTokenizer, AutoModelForMaskedLM))
    expected = set()
    for i in range(1, 6):
        inputs = tokenizer(text, return_tensors="pt")
        inputs["input_ids"][0, i] = tokenizer.mask_token_id
        ids = inputs["input_ids"][0].tolist()
        ids[i] = 5 + int(model(**inputs).logits[0, i, 5:].argmax())  # the first five are special
        expected.add(tokenizer.decode(ids[1:-1]))
    assert new in expected


def test_mlm_of_a_checkpoint_in_half_precision_computes_in_single(masked_lm, tmp_path):
    AutoModelForMaskedLM.from_pretrained(masked_lm).half().save_pretrained(tmp_path)
    shutil.copy(masked_lm / "vocab.txt", tmp_path)
    model, _, _ = _load_mlm(tmp_path, "cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # float16 is 14 times slower on a CPU


def test_mlm_scores_the_vocabulary_at_the_masks_alone(masked_lm, monkeypatch):
    loaded = _load_mlm(masked_lm, "cpu")
    scored, forward = [], loaded[0].get_output_embeddings().forward
    loaded[0].get_output_embeddings().forward = lambda x: scored.append(len(x)) or forward(x)
    monkeypatch.setattr("simcse_bench.training.augment._load_mlm", lambda *_: loaded)
    fill = mlm_filler(masked_lm, 0.15, seed=1)
    fill(["the man sees the dog", "a dog"])
    assert scored == [2]


def test_mlm_unknown_words_long_texts_and_pairs(masked_lm, monkeypatch):
    fill = mlm_filler(masked_lm, 0.15, seed=1)
    (new,) = fill(["zebra zebra zebra zebra"])
    assert new.split().count("[UNK]") == 3
    assert len(fill(["man " * 100])[0].split()) == 46  # what the model takes
    assert fill([]) == []
    calls = []
    monkeypatch.setattr("simcse_bench.training.augment.FILL_BATCH", 256)
    rows = [("one",), *ROWS[:300], ("",)]
    found = made("mlm", 0.15, rows=rows, fill=lambda texts: calls.append(len(texts)) or [t.upper() for t in texts])
    assert calls == [255, 45]
    assert found == [("one", "one"), *((t, t.upper()) for (t,) in ROWS[:300]), ("", "")]


def test_mlm_needs_a_head_with_weights(masked_lm, tmp_path):
    with pytest.raises(UserError, match=r"masked-language head has no weights \(cls.predictions"):
        mlm_filler(tiny_bert(tmp_path / "bert"), 0.15, 1)
    with pytest.raises(UserError, match=r"no config\.json in"):
        mlm_filler(tmp_path, 0.15, 1)
    decoder = tiny_bert(tmp_path / "gpt2")
    (decoder / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 27}', encoding="utf-8")
    with pytest.raises(UserError, match=r"transformers cannot load .*gpt2") as caught:
        mlm_filler(decoder, 0.15, 1)
    assert len(str(caught.value).splitlines()) == 1
