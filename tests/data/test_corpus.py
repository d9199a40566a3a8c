"""Training data in every format: what is read, and every message with file and line."""

import gzip
import json
import os
import re
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import COMMIT, NOWHERE, Hub, ask, serving

from simcse_bench.data.corpus import open_corpus, open_sentences, require_text
from simcse_bench.data.text_formats import TEXT_FORMATS, csv_rows_over_lines, file_errors
from simcse_bench.errors import UserError

DATA = "princeton-nlp/datasets-for-simcse"
ROWS = [("one, two", 'say "a"', "x"), ("ä\u2028b", "", "None"), ("", "", "")]
TEXT = {
    "a.csv": 's0,s1,hard\n"one, two","say ""a""",x\nä\u2028b,,None\n,,\n',
    "a.tsv": 's0\ts1\thard\none, two\tsay "a"\tx\nä\u2028b\t\tNone\n\t\t\n',
    "a.jsonl": "".join(json.dumps(dict(zip(("s0", "s1", "hard"), row, strict=True))) + "\n" for row in ROWS),
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems(*args, **more):
    with pytest.raises(UserError) as error:
        list(open_corpus(*args, **more).rows())
    return error.value.problems


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_three_columns_in_every_text_format(name, ending, packed, tmp_path):
    content = b"\xef\xbb\xbf" + TEXT[name].replace("\n", ending).encode()
    path = write(tmp_path / (name + ".gz" * packed), gzip.compress(content) if packed else content)
    corpus = open_corpus(str(path))
    assert (corpus.name, corpus.origin, corpus.columns) == (path.name, "file", 3)
    first = corpus.rows()
    assert next(first) == ROWS[0]
    assert list(corpus.rows()) == ROWS  # a pass of its own
    assert list(first) == ROWS[1:]


def test_txt_is_one_sentence_a_line_without_header(tmp_path):
    path = write(tmp_path / "a.TXT", "\ufeffone\u2028 more\r\n\n  two\x0b\rthree \nlast")
    corpus = open_corpus(str(path))
    assert corpus.columns == 1
    assert list(corpus.rows()) == [("one\u2028 more",), ("",), ("  two\x0b",), ("three ",), ("last",)]


def test_parquet_takes_the_text_columns(tmp_path):
    words = pa.array(["x", None, "x"]).dictionary_encode()
    path = parquet(
        tmp_path / "a.parquet", a=["one", None, ""], n=[1, 2, 3], b=words, c=pa.array(["1"] * 3, "large_string")
    )
    rows = [("one", "x", "1"), ("", "", "1"), ("", "x", "1")]
    corpus = open_corpus(str(path))
    assert corpus.columns == 3
    assert list(corpus.rows()) == list(corpus.rows()) == rows
    assert list(open_corpus(str(path), ["c", "a"], max_rows=2).rows()) == [("1", "one"), ("1", "")]
    message = f"{path}: column 'n' holds no text. Those that do: a, b, c."
    assert problems(str(path), ["n"]) == (message,)


@pytest.mark.parametrize("name", TEXT)
def test_columns_are_chosen_and_ordered_by_name(name, tmp_path):
    path = write(tmp_path / name, TEXT[name])
    corpus = open_corpus(str(path), ["hard", "s0"])
    assert corpus.columns == 2
    assert list(corpus.rows()) == [(c, a) for a, _, c in ROWS]
    assert problems(str(path), ["hrad"]) == (
        f"{path}: unknown column 'hrad'; did you mean 'hard'? Known: s0, s1, hard.",
    )
    assert problems(str(path), ["s0", "s0"]) == (f"{path}: column 's0' is named twice.",)


@pytest.mark.parametrize("name", TEXT)
def test_max_rows_takes_the_first_and_reads_no_further(name, tmp_path):
    path = write(tmp_path / name, TEXT[name] + "malformed\n")
    assert list(open_corpus(str(path), max_rows=3).rows()) == ROWS
    assert len(problems(str(path))) == 1
    assert problems(str(path), max_rows=-1) == ("max_rows -1: expected a number of rows, or 0 for all.",)


def test_more_than_three_columns(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,c,d\n1,2,3,4\n")
    assert problems(str(path)) == (
        f"{path}: 4 text columns, expected 1 to 3 (sentence, positive, hard negative), or up to 34 where those "
        "behind are called negative_1, negative_2. It has: a, b, c, d. Name them: --set columns=a,b.",
    )
    expected = f"{path}: 4 text columns, expected 1. It has: a, b, c, d. Name it: --column NAME."
    with pytest.raises(UserError, match=re.escape(expected)):
        open_sentences(str(path))
    assert list(open_corpus(str(path), ["d"]).rows()) == [("4",)]
    assert list(open_corpus(str(path), ["d", "a", "c", "b"]).rows()) == [("4", "1", "3", "2")]


@pytest.mark.parametrize("names", ["s,p,hard_neg,hard_neg2", "s,p,negative_1,negative_2", "s,p,Neg0,neg1"])
def test_several_hard_negatives_by_position(tmp_path, names):
    path = write(tmp_path / "a.csv", f"{names}\na,b,c,d\n")
    corpus = open_corpus(str(path))
    assert corpus.columns == 4
    assert list(corpus.rows()) == [("a", "b", "c", "d")]


def test_columns_have_a_limit(tmp_path):
    names = ["s", "p", *(f"neg{i}" for i in range(33))]
    path = write(tmp_path / "a.csv", ",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    assert open_corpus(str(path), names[:34]).columns == 34
    assert problems(str(path))[0].startswith(f"{path}: 35 text columns, expected 1 to 3")
    assert problems(str(path), names)[0].startswith(f"{path}: 35 text columns, expected 1 to 3")


SCORED = {
    "a.csv": 'Score,s0,s1\n3.8,"one, two",x\n,a,b\n 0 ,p,q\n',
    "a.tsv": "s0\tgold\ts1\none, two\t3.8\tx\na\t\tb\np\t 0 \tq\n",
    "a.jsonl": '{"s0": "one, two", "s1": "x", "similarity": 3.8}\n{"s0": "a", "s1": "b", "similarity": null}\n'
    '{"s0": "p", "s1": "q", "similarity": " 0 "}\n',
}


@pytest.mark.parametrize("name", SCORED)
def test_a_column_of_scores_is_found_by_its_name(tmp_path, name):
    path = write(tmp_path / name, SCORED[name])
    corpus = open_corpus(str(path), scored=True)
    assert (corpus.columns, corpus.scored) == (2, True)
    assert list(corpus.rows()) == [("one, two", "x", "3.8"), ("a", "b", ""), ("p", "q", " 0 ")]
    assert list(open_corpus(str(path), scored=True, max_rows=1).rows()) == [("one, two", "x", "3.8")]


@pytest.mark.parametrize("scores", [[3.8, None, 1.0], ["3.8", None, "1.0"], [Decimal("3.8"), None, Decimal("1.0")]])
def test_scores_of_a_parquet_file_are_numbers_or_text(tmp_path, scores):
    path = parquet(tmp_path / "a.parquet", a=["one", "two", ""], label=scores, b=["x", "y", "z"], n=[1, 2, 3])
    expected = [("one", "x", "3.8"), ("two", "y", ""), ("", "z", "1.0")]
    assert list(open_corpus(str(path), scored=True).rows()) == expected
    assert list(open_corpus(str(path), ["b", "a", "n"], scored=True).rows())[1] == ("y", "two", "2")


def test_the_column_of_scores_can_be_named(tmp_path):
    path = write(tmp_path / "a.csv", "score,a,b,grade\n1,x,y,7\n2,z,w,8\n")
    assert list(open_corpus(str(path), ["b", "a", "grade"], scored=True).rows()) == [("y", "x", "7"), ("w", "z", "8")]
    assert list(open_corpus(str(path), ["a", "b", "score"], scored=True).rows()) == [("x", "y", "1"), ("z", "w", "2")]
    said = (
        "this method trains on two sentences and a score; expected two text columns and one called score, label, "
        "similarity or gold. It has: score, a, b, grade. Give --set columns=a,b,c, the score's last."
    )
    assert problems(str(path), scored=True) == (f"{path}: {said}",)
    assert problems(str(path), ["a", "b"], scored=True) == (f"{path}: {said}",)


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_rows_without_scores_are_refused_where_scores_are_needed(tmp_path, name):
    path = write(tmp_path / name, "a,b,c\nx,y,z\n")
    assert "this method trains on two sentences and a score" in problems(str(path), scored=True)[0]


def test_scores_that_are_no_numbers_are_named_by_line(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,score\nx,y,1\n\nx,y,high\nx,y,nan\nx,y,inf\nx,y,1e31\nx,y,2\n")
    assert problems(str(path), scored=True) == tuple(
        f"{path}:{line}: 'score' is '{text}', expected a number, the score of the pair."
        for line, text in ((4, "high"), (5, "nan"), (6, "inf"), (7, "1e31"))
    )
    lines = ['{"a": "x", "b": "y", "label": 1}', "", '{"a": "x", "b": "y", "label": true}', '{"a": "x", "b": 2, "label": 1}',
             '{"a": "x", "b": "y", "label": NaN}', '{"a": "x", "b": "y"}']  # fmt: skip
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    found = problems(str(path), scored=True)
    assert found[0].startswith(f"{path}:3: 'label' is bool, expected text")
    assert found[1].startswith(f"{path}:4: 'b' is int, expected text")
    assert found[2] == f"{path}:5: 'label' is 'nan', expected a number, the score of the pair."
    assert found[3] == f"{path}:6: no 'label'; expected a, b, label."
    path = parquet(tmp_path / "a.parquet", a=["x", "x"], b=["y", "y"], score=["1", "one"])
    assert problems(str(path), scored=True) == (
        f"{path}, row 2: 'score' is 'one', expected a number, the score of the pair.",
    )


def test_scores_are_refused_where_they_are_of_no_use(tmp_path):
    table = write(tmp_path / "a.csv", "a,b,Label\nx,y,1\n")
    numbers = parquet(tmp_path / "a.parquet", a=["x"], b=["y"], Label=[1])
    for path in (table, numbers):
        assert problems(str(path), scored=False) == (
            f"{path}: column 'Label' holds scores, for which this method has no use. Choose the columns of text, "
            "--set columns=a,b, or a method for scored pairs, --set method=cosent.",
        )
        assert list(open_corpus(str(path), ["b", "a"], scored=False).rows()) == [("y", "x")]
    assert "column 'Label' holds scores" in problems(str(table), ["a", "b", "Label"], scored=False)[0]
    assert list(open_corpus(str(table), ["a", "Label"], scored=False).rows()) == [("x", "1")]
    assert list(open_corpus(str(table)).rows()) == [("x", "y", "1")]  # as a column of any other text
    one = parquet(tmp_path / "one.parquet", text=["x"], label=[1])
    assert list(open_corpus(str(one), scored=False).rows()) == [("x",)]


def test_ragged_rows_are_named_by_file_and_line(tmp_path):
    path = write(tmp_path / "a.csv", 'a,b\n"one, two",x\ny\n\n"p",q,r\nfine,row\n')
    corpus = open_corpus(str(path))
    rows = corpus.rows()
    assert next(rows) == ("one, two", "x")
    with pytest.raises(UserError) as error:
        next(rows)
    assert error.value.problems == (
        f"{path}:3: 1 fields, expected 2 (a, b).",
        f"{path}:5: 3 fields, expected 2 (a, b). Put a sentence with commas in quotes.",
    )
    table = write(tmp_path / "a.tsv", "a\tb\n1\t2\n\n" + "x\n" * 7)
    assert problems(str(table)) == (
        *(f"{table}:{line}: 1 fields, expected 2 (a, b)." for line in range(4, 9)),
        "Reading stopped there; more such rows may follow.",
    )


@pytest.mark.parametrize("rows", ['z,"w\nu,v\n', 'z,"w\nu,v"\n', 'z,"w" w\nu,v\n', 'z,"w\n' + "u,v\n" * 40_000])
def test_a_stray_quote_swallows_no_rows(tmp_path, rows):
    """Wherever csv would find it closed; sentences with line breaks are not for csv."""
    path = write(tmp_path / "a.csv", "a,b\nx,y\n" + rows)
    (said,) = problems(str(path))
    assert said.startswith(f"{path}:3: ")
    assert said.endswith("; sentences with line breaks need .jsonl.")


def test_a_field_longer_than_csv_reads(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\nx,y\nx," + "y" * 200_000 + "\n")
    expected = f"{path}:3: a field of more than 131,072 characters, expected a sentence."
    assert problems(str(path)) == (f"{expected} Longer texts need .jsonl.",)
    with pytest.raises(UserError) as error:
        list(csv_rows_over_lines(path, ["a,b", "x,y", 'x,"y' + "y" * 200_000]))
    assert str(error.value) == f"{expected} Is a quote before it not closed?"


@pytest.mark.parametrize(("name", "header", "expected"), [
    ("a.csv", "sent0;sent1;hard_neg", "commas"), ("a.csv", "sent0\tsent1", "commas"), ("a.tsv", "sent0;sent1", "tabs"),
])  # fmt: skip
def test_columns_separated_by_something_else(name, header, expected, tmp_path):
    path = write(tmp_path / name, f"{header}\nx;y;z\n")
    assert problems(str(path)) == (
        f"{path}: its header is one column, {header!r}; expected {expected} between columns. Write the file with them, or "
        "rename the column.",
    )


def test_two_columns_of_one_name(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,a\n1,2,3\n")
    for columns in ((), ["a"], ["b", "a"]):
        assert problems(str(path), columns) == (f"{path}: 2 columns are called 'a'. Give each a name of its own.",)
    assert list(open_corpus(str(path), ["b"]).rows()) == [("2",)]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.txt.gz"])
def test_a_text_without_line_ends_is_refused_by_line(tmp_path, name):
    """A tokenizer would take 24 s and 1.5 GB for these 10 MB, to keep 128 tokens."""
    start = {".csv": "text\n", ".tsv": "text\n", ".jsonl": '{"text": "x"}\n'}.get((tmp_path / name).suffix, "x\n")
    content = (start + "word " * 2_000_000 + "\n").encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    assert problems(str(path)) == (
        f"{path}:2: more than 1,048,576 bytes, expected a sentence a line. Does the file have line ends?",
    )


def test_a_long_text_of_a_table_is_refused_by_row(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b" * (1 << 20), "c" * ((1 << 20) + 1)]}), tmp_path / "a.parquet")
    assert problems(str(tmp_path / "a.parquet")) == (
        "row 3: a text of more than 1,048,576 characters, expected a sentence.",
    )
    with pytest.raises(UserError, match=r"sentence 1 has 2,000,000 characters.*1,048,576"):
        require_text(["a", "b" * 2_000_000])


def test_jsonl_problems(tmp_path):
    lines = [
        '{"a": "x", "b": null, "n": 1}',
        "",
        "{",
        '{"a": 3, "b": ""}',
        '{"a": "y"}',
        '["a"]',
        r'{"a": "\ud800", "b": ""}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert list(open_corpus(str(path), ["a", "b"], max_rows=1).rows()) == [("x", "")]
    assert problems(str(path), ["a", "b"])[:-1] == (
        f"{path}:3: not a JSON object; expected one a line.",
        f"{path}:4: 'a' is int, expected text. Choose the text columns: --set columns=a,b.",
        f"{path}:5: no 'b'; expected a, b.",
        f"{path}:6: not a JSON object; expected one a line.",
        f"{path}:7: 'a' is not valid unicode (half a surrogate pair).",
    )
    assert problems(str(path))[0].startswith(f"{path}:1: 'n' is int, expected text.")
    assert problems(str(path), ["n"], option="--column NAME")[0].endswith("Choose the text columns: --column NAME.")
    path = write(tmp_path / "b.jsonl", "\n[]\n")
    assert problems(str(path)) == (f"{path}:2: not a JSON object; expected {TEXT_FORMATS['.jsonl']}.",)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl"])
def test_bytes_that_are_no_text(name, tmp_path):
    first = b'{"a": "x"}' if name == "a.jsonl" else b"a"
    path = write(tmp_path / name, first + b"\n" + first + b"\ncaf\xe9\n")
    expected = f"{path}:3: not utf-8 text (byte 0xe9). Convert the file."
    assert problems(str(path)) == (expected,)


@pytest.mark.parametrize("content", [b"", b"a\n"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".jsonl"])
def test_files_without_rows(suffix, content, tmp_path):
    path = write(tmp_path / f"empty{suffix}", content)
    if suffix == ".txt" and content:
        assert list(open_corpus(str(path)).rows()) == [("a",)]
    else:
        assert f"expected {TEXT_FORMATS[suffix]}." in problems(str(path))[0]
        assert problems(str(path))[0].startswith(str(path))


def test_damaged_files(tmp_path):
    packed = gzip.compress(os.urandom(5000).hex().encode())
    assert "damaged or cut off" in problems(str(write(tmp_path / "a.txt.gz", packed[:1000])))[0]
    assert "damaged or cut off (Not a gzipped file" in problems(str(write(tmp_path / "b.txt.gz", "text")))[0]
    good = parquet(tmp_path / "a.parquet", a=["x"] * 10).read_bytes()
    assert "damaged or cut off" in problems(str(write(tmp_path / "b.parquet", good[:-20])))[0]
    empty = parquet(tmp_path / "c.parquet", a=pa.array([], "string"))
    assert problems(str(empty)) == (f"{empty}: no rows; expected text columns of a Parquet file.",)
    numbers = parquet(tmp_path / "d.parquet", n=[1])
    assert problems(str(numbers))[0].startswith(f"{numbers}: no text columns, expected 1 to 3")
    assert problems(str(numbers), single=True) == (f"{numbers}: no text columns, expected 1. It has: n.",)
    with pytest.raises(UserError) as error, file_errors(numbers):
        raise OSError("Corrupt snappy compressed data.")  # pyarrow's
    assert str(error.value) == f"{numbers}: Corrupt snappy compressed data."


def test_names_that_lead_nowhere(tmp_path):
    (tmp_path / "folder").mkdir()
    assert problems("folder") == (f"folder: is a folder, expected a file ({', '.join(TEXT_FORMATS)}).",)
    for name in ("./a", "a/b/c", "data/a.txt", "a.csv.gz", "~/x"):
        assert problems(name) == (f"{name}: no such file.",)
    assert problems("wiki1") == (
        f"unknown training data 'wiki1'; did you mean 'wiki1m'? Expected a file ({', '.join(TEXT_FORMATS)}), a dataset on the "
        "Hub (owner/name, owner/name:config, with @revision or without), or one of: wiki1m, nli, mini-sentences, mini-nli.",
    )
    path = write(tmp_path / "a.doc", "text")
    assert problems("a.doc")[0].startswith(
        "a.doc: unknown suffix '.doc'. Known, all but .parquet also with .gz:\n  .txt"
    )
    path = write(tmp_path / "a@b.txt", "text")
    assert list(open_corpus(str(path)).rows()) == [("text",)]
    assert problems("a.txt@main")[0].startswith("unknown training data 'a.txt@main'")


def test_fingerprint_tells_content_format_columns_and_limit_apart(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n1,2\n3,4\n")
    base = open_corpus(str(path)).fingerprint
    assert len(base) == 16
    copy = write(tmp_path / "elsewhere.csv", path.read_bytes())
    assert base == open_corpus(str(copy)).fingerprint == open_corpus(str(copy), ["a", "b"]).fingerprint
    others = [
        open_corpus(str(copy), c, max_rows=n).fingerprint for c, n in ((["b", "a"], 0), (["a"], 0), ((), 1), ((), 2))
    ]
    others.append(open_corpus(str(write(tmp_path / "a.txt", path.read_bytes()))).fingerprint)
    others.append(open_corpus(str(write(tmp_path / "b.csv", "a,b\n1,2\n3,5\n"))).fingerprint)
    assert len({base, *others}) == 7
    path = write(tmp_path / "c.csv", "a,b,score\n1,2,3\n")
    three = open_corpus(str(path)).fingerprint, open_corpus(str(path), scored=True).fingerprint
    assert len(set(three)) == 2
    assert (
        open_corpus(str(path), ["a", "b"], scored=False).fingerprint == open_corpus(str(path), ["a", "b"]).fingerprint
    )


def test_importing_loads_no_torch():
    code = "import sys, simcse_bench.training.tokenised; print('torch' in sys.modules or 'datasets' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.stdout.strip(), run.stderr) == ("False", "")


# The Hub on loopback, from a process of its own: datasets reads the endpoint when it is imported

SHOW = """
import json, sys
from simcse_bench.data.corpus import open_corpus, require_text
from simcse_bench.errors import UserError
for arguments in json.loads(sys.argv[1]):
    try:
        c = open_corpus(**arguments)
        print(json.dumps([c.name, c.origin, c.fingerprint, c.columns, list(c.rows()), list(c.rows()) == list(c.rows())]))
    except UserError as error:
        print(json.dumps(error.problems))
"""


@pytest.fixture(scope="module")
def show(tmp_path_factory):
    """Open each of the corpora in one process of its own, with the cache of the ones before."""
    home = tmp_path_factory.mktemp("home")

    def run(endpoint, *calls, **more):
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "SYSTEMROOT", "VIRTUAL_ENV", "PYTHONPATH")}
        environment = keep | {
            "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_OFFLINE": "0",
        } | more  # fmt: skip
        command = [sys.executable, "-c", SHOW, json.dumps(calls)]
        result = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


OFFICIAL = {"wiki": {"train": "wiki1m"}, "nli": {"train": "nli", "max_rows": 1, "columns": ["hard_neg"]}}
WHOLE = {"train": "me/pairs"}
FEW = WHOLE | {"columns": ["a"], "max_rows": 3}
WRONG = {
    "number": WHOLE | {"columns": ["n"]}, "unknown": WHOLE | {"columns": ["b"]},
    "revision": {"train": "me/pairs@v9"}, "config": {"train": "me/pairs:other"}, "nothing": {"train": "me/nothing"},
}  # fmt: skip
DAMAGED = {"train": "me/damaged"}
ONLINE = {
    **OFFICIAL, "few": FEW, "whole": WHOLE, **WRONG,
    "scored": WHOLE | {"columns": ["q", "a", "n"], "scored": True, "max_rows": 2},
    "null": {"train": "me/null", "max_rows": 5}, "damaged": DAMAGED, "damaged streamed": DAMAGED | {"max_rows": 5},
}  # fmt: skip
OFFLINE = {
    **OFFICIAL, "few": FEW, "whole": WHOLE, "commit": {"train": f"me/pairs@{COMMIT}"}, "other": {"train": "me/pairs@v9"},
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    hub, root = Hub(), tmp_path_factory.mktemp("hub")
    hub.repositories = {f"datasets/{name}": root / name for name in (DATA, "me/pairs", "me/null", "me/damaged")}
    data, pairs, null, damaged = hub.repositories.values()
    for folder in (data, pairs, null, damaged):
        folder.mkdir(parents=True)
    write(data / "wiki1m_for_simcse.txt", "one\n\ntwo\n")
    write(data / "nli_for_simcse.csv", "sent0,sent1,hard_neg\na,b,c\n")
    write(pairs / "train.jsonl", "".join(json.dumps({"q": f"q{i}", "a": f"a{i}", "n": i}) + "\n" for i in range(2500)))
    lines = [{"q": "x", "a": None}, {"q": None, "a": "y"}]
    write(null / "train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write(damaged / "train.jsonl", '{"q": "x"}\n{"q": \n')
    return hub


@pytest.fixture(scope="module")
def online(hub, show):
    with serving(hub) as endpoint:
        return dict(zip(ONLINE, show(endpoint, *ONLINE.values()), strict=True))


@pytest.fixture(scope="module")
def offline(online, show):
    """The same machine without a network."""
    return dict(zip(OFFLINE, show(NOWHERE, *OFFLINE.values(), HF_HUB_OFFLINE="1"), strict=True))


def test_simcse_files_from_the_hub_and_then_from_its_cache(hub, online, offline):
    origin = f"Hub dataset {DATA} at revision {COMMIT}"
    local = open_corpus(str(hub.repositories[f"datasets/{DATA}"] / "wiki1m_for_simcse.txt"))
    assert online["wiki"] == ["wiki1m", origin, local.fingerprint, 1, [["one"], [""], ["two"]], True]
    assert online["nli"][:2] + online["nli"][3:] == ["nli", origin, 1, [["c"]], True]
    assert {name: offline[name] for name in OFFICIAL} == {name: online[name] for name in OFFICIAL}


def test_a_simcse_file_that_is_gone(hub, monkeypatch, tmp_path):
    with serving(Hub()) as endpoint:
        ask(monkeypatch, endpoint, tmp_path / "hf")
        assert problems("nli@v9")[0].startswith(
            f"nli_for_simcse.csv of dataset {DATA!r} at revision 'v9' does not exist on the Hub (404)"
        )


def test_dataset_from_the_hub(online, offline):
    streamed, full = online["few"], online["whole"]
    assert streamed[:2] == ["me/pairs", f"Hub dataset me/pairs at revision {COMMIT}"]
    assert streamed[3:] == [1, [["a0"], ["a1"], ["a2"]], True]
    assert full[3:] == [2, [[f"q{i}", f"a{i}"] for i in range(2500)], True]
    assert full[2] != streamed[2]
    number, unknown, revision, config, nothing = (online[name][0] for name in WRONG)
    assert number.endswith("column 'n' holds no text. Those that do: q, a.")
    assert "unknown column 'b'" in unknown
    assert "Known: q, a, n." in unknown
    assert "Revision 'v9' doesn't exist" in revision
    assert "BuilderConfig 'other' not found" in config
    assert "Dataset 'me/nothing' doesn't exist on the Hub or cannot be accessed" in nothing
    assert [offline[name] for name in ("whole", "few")] == [full, streamed]
    assert offline["commit"] == [f"me/pairs@{COMMIT}", *full[1:]]
    assert offline["other"][0].endswith(
        f"'me/pairs@v9', split 'train': the Hub cannot be reached, and the cache holds revision {COMMIT}."
    )


def test_null_and_other_types_in_a_streamed_dataset(online):
    assert online["null"][4] == [["x", ""], ["", "y"]]


def test_scores_of_a_dataset(online):
    assert online["scored"][3:5] == [2, [["q0", "a0", "0"], ["q1", "a1", "1"]]]


def test_a_damaged_file_of_a_dataset(online):
    for name in ("damaged", "damaged streamed"):
        (problem,) = online[name]
        assert problem.startswith("Hub dataset 'me/damaged', split 'train' could not be loaded: ")
        assert "JSON" in problem


def test_dataset_without_the_hub():
    assert problems("nobody/nothing", max_rows=1) == (
        "Hub dataset 'nobody/nothing', split 'train' is not in the Hub cache and could not be downloaded: "
        "HF_HUB_OFFLINE is set. Without the Hub, give a file.",
    )
    assert "HF_HUB_OFFLINE is set" in problems("nli")[0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\f", "\v", "\x1c", "\x85", "\u2028", "\u2029"])
def test_lines_of_a_text_file_are_those_of_datasets(tmp_path, end):
    """The loader that SimCSE's train.py calls, as it is installed here: lines end where Python's open ends them."""
    import datasets

    path = tmp_path / "text.txt"
    path.write_bytes((f"one{end}two{end}{end}three\nfour{end}").encode())
    theirs = datasets.load_dataset("text", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]["text"]
    assert [text for (text,) in open_corpus(str(path)).rows()] == list(theirs)
    with path.open(encoding="utf-8") as stream:
        assert [line.removesuffix("\n") for line in stream] == list(theirs)
