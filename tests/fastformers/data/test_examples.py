import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.data.examples import Columns, Examples, load_examples
from fastformers.errors import InputError
from fastformers.formats.recognize import FORMATS
from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TEXT_CLASSIFICATION,
)

TEXTS = ["one", 'with "quotes", a comma', "two\nlines", "é 很 ☃"]
TABLE = {"text": TEXTS, "other": ["a", "b", "c", "d"], "label": ["yes", "no", "yes", "no"]}


def write(path: Path, columns: dict[str, list]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix in (".csv", ".tsv"):
        delimiter = "," if path.suffix == ".csv" else "\t"
        pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter=delimiter))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


def load(path, *, text="text", pair=None, label="label"):
    return load_examples(path, Columns(text=text, text_pair=pair, label=label))


every_format = pytest.mark.parametrize(
    "name", ["e.parquet", "e.csv", "e.jsonl", "e.json", "e.ndjson", "e.CSV"]
)


@every_format
def test_single_texts_are_read_from_every_format(tmp_path, name):
    path = write(tmp_path / name.lower(), TABLE).rename(tmp_path / name)
    assert load(path) == Examples(texts=TEXTS, text_pairs=None, labels=TABLE["label"])


@every_format
def test_pairs_are_read_from_every_format(tmp_path, name):
    path = write(tmp_path / name.lower(), TABLE).rename(tmp_path / name)
    examples = load(path, text="other", pair="text")
    assert examples == Examples(texts=TABLE["other"], text_pairs=TEXTS, labels=TABLE["label"])


@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [True, False, True, True]], ids=str)
@pytest.mark.parametrize("name", ["e.parquet", "e.jsonl"])
def test_labels_keep_their_kind(tmp_path, name, labels):
    assert load(write(tmp_path / name, {**TABLE, "label": labels})).labels == labels


def test_labels_of_a_csv_file_are_read_as_they_stand(tmp_path):
    (tmp_path / "e.csv").write_text("text,label\na,01\nb,02\nc,1.0\nd,true\n")
    assert load(tmp_path / "e.csv").labels == ["01", "02", "1.0", "true"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string()])
def test_every_kind_of_text_column_is_text(tmp_path, kind):
    columns = {"text": pa.array(["a", "b", "a"]).cast(kind), "label": [0, 1, 0]}
    assert load(write(tmp_path / "e.parquet", columns)).texts == ["a", "b", "a"]


def test_rows_without_text_or_label_are_left_out_and_counted(tmp_path, caplog):
    columns = {"text": ["a", None, "c", "", "e"], "pair": [*"vwxyz"], "label": [0, 1, None, 1, 0]}
    path = write(tmp_path / "e.parquet", columns)
    assert load(path) == Examples(texts=["a", "e"], text_pairs=None, labels=[0, 0])
    assert load(path, text="pair", pair="text").texts == ["v", "z"]
    [line, again] = caplog.messages
    assert (
        line
        == again.replace("pair", "text")
        == (
            f"{path}: 3 of 5 rows are left out: column 'text': null text (1), "
            "column 'text': empty text (1), no label (1)"
        )
    )


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([1.0, float("nan")], pa.float64()),
        (["x", " "], pa.string()),
        (["x", None], pa.dictionary(pa.int8(), pa.string())),
        ([["x"], None], pa.list_(pa.string())),
    ],
    ids=str,
)
def test_a_cell_without_a_value_is_no_label(tmp_path, labels, kind):
    columns = {"text": ["a", "b"], "label": pa.array(labels, kind, from_pandas=False)}
    assert load(write(tmp_path / "e.parquet", columns)).labels == labels[:1]


@pytest.mark.parametrize(
    "columns", [{"text": [None], "label": ["b"]}, {"text": ["a"], "label": [None]}]
)
def test_a_file_without_examples_is_refused(tmp_path, columns):
    columns = {name: pa.array(c, pa.string()) for name, c in columns.items()}
    with pytest.raises(
        InputError, match=r"e\.parquet: no row has both a text and a label: .*\(1\)"
    ):
        load(write(tmp_path / "e.parquet", columns))


@pytest.mark.parametrize(
    ("columns", "missing", "flag"),
    [
        ({"text": "txt"}, "txt", "--text-column/.*"),
        ({"pair": "second"}, "second", ".*/--text-pair-column/--choice-columns"),
        ({"label": "Label"}, "Label", "--label-column"),
    ],
)
def test_a_missing_column_is_named_with_those_that_exist(tmp_path, columns, missing, flag):
    with pytest.raises(InputError, match=rf"no column '{missing}' \({flag}\); it has text, other"):
        load(write(tmp_path / "e.csv", TABLE), **columns)


@pytest.mark.parametrize("column", ["text", "pair"])
def test_a_column_that_is_no_text_is_refused_with_its_kind(tmp_path, column):
    path = write(tmp_path / "e.parquet", {"text": ["a"], "number": [3], "label": [0]})
    with pytest.raises(InputError, match="column 'number' holds int64, not text"):
        load(path, **{column: "number"})


@pytest.mark.parametrize("columns", [{"label": "text"}, {"pair": "text"}])
def test_one_column_cannot_be_two_things(tmp_path, columns):
    with pytest.raises(InputError, match="'text'"):
        load(write(tmp_path / "e.csv", TABLE), **columns)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["a", "b"], TEXT_CLASSIFICATION),
        ([1, 0], TEXT_CLASSIFICATION),
        ([True, False], TEXT_CLASSIFICATION),
        ([0.5, 2.0], REGRESSION),
        (["0.5", "2"], REGRESSION),
        ([1.0, 2.0], None),
        (["1.0", "2.0"], None),
        (["1", "02"], TEXT_CLASSIFICATION),
        (["nan", "1"], TEXT_CLASSIFICATION),
        ([[0, 1], [1, 1]], MULTI_LABEL_CLASSIFICATION),
        ([["a", "b"], []], MULTI_LABEL_CLASSIFICATION),
        ([[3], [1, 2]], MULTI_LABEL_CLASSIFICATION),
        ([[], []], MULTI_LABEL_CLASSIFICATION),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["e.parquet", "e.jsonl"])
def test_the_kind_of_the_labels_tells_the_task(tmp_path, name, labels, task):
    examples = load(write(tmp_path / name, {"text": ["x", "y"], "label": labels}))
    assert examples == Examples(texts=["x", "y"], text_pairs=None, labels=labels, task=task)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["[1, 0]", "[0, 1]"], [[1, 0], [0, 1]]),
        (["['a', 'b']", "[]"], [["a", "b"], []]),
        (["[a]", "[b]"], ["[a]", "[b]"]),  # text in brackets
        (["a|b", ""], ["a|b", ""]),  # several labels, and none of them
    ],
)
def test_lists_that_a_csv_file_holds_as_text_are_lists(tmp_path, cells, labels):
    rows = "".join(f'some text,"{cell}"\n' for cell in cells)
    (tmp_path / "e.csv").write_text(f"text,label\n{rows}")
    assert load(tmp_path / "e.csv").labels == labels


def test_marks_of_classes_may_be_fractions_or_of_fixed_length(tmp_path):
    marks = [[0.0, 1.0], [1.0, 1.0]]
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float16())):
        columns = {"text": ["a", "b"], "label": pa.array(marks, kind)}
        examples = load(write(tmp_path / "e.parquet", columns))
        assert examples.labels == [[0, 1], [1, 1]]
        assert all(isinstance(mark, int) for mark in examples.labels[0])


def test_the_label_map_names_the_class_of_each_value(tmp_path):
    path = write(tmp_path / "e.csv", {"text": ["a", "b", "c"], "label": [1, 2, 1]})
    names = tmp_path / "names.json"
    names.write_text('{"1": "bad", "2": "good"}')
    assert load_examples(path, Columns(label_map=names)).labels == ["bad", "good", "bad"]
    # Texts to distill on have no labels to map.
    assert load_examples(path, Columns(label_map=names, label=None)).labels == [None] * 3
    names.write_text('{"2": "good"}')
    with pytest.raises(InputError, match=r"e\.csv: label '1' is not in --label-map"):
        load_examples(path, Columns(label_map=names))


@pytest.mark.parametrize("labels", [[{"a": 1}], [[["a"]]], [[0.5]]], ids=str)
def test_labels_of_other_kinds_are_refused(tmp_path, labels):
    (tmp_path / "e.jsonl").write_text(json.dumps({"text": "a", "label": labels[0]}) + "\n")
    with pytest.raises(InputError, match=r"column 'label' holds (struct|list)"):
        load(tmp_path / "e.jsonl")


def test_a_null_among_the_labels_of_a_row_is_refused(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"text": "a", "label": ["x", null]}\n')
    with pytest.raises(InputError, match="column 'label' has a list with a null in it"):
        load(tmp_path / "e.jsonl")


def test_labels_of_several_kinds_are_text(tmp_path):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": "x"}, {"text": "c", "label": True}]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load(tmp_path / "e.jsonl").labels == ["0", "x", "true"]


def test_a_label_of_another_kind_than_those_before_it_is_left_out_and_said(tmp_path, caplog):
    rows = [
        {"text": "x" * 2**20, "label": 0},
        {"text": "b", "label": 1},
        {"text": "c", "label": "x"},
    ]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load(tmp_path / "e.jsonl").labels == [0, 1]
    assert "1 of 3 rows are left out: no label, or one that is not int64 (1)" in caplog.text


@pytest.mark.parametrize(
    ("columns", "labels", "odd", "kind"),
    [
        (Columns(), [[1, 2], [3]], ["x"], "list<item: int64>"),
        (Columns(choices=("first", "second")), [0, 1], "second one", "int64"),
    ],
)
def test_every_row_whose_label_did_not_fit_is_counted_whatever_labels_are(
    tmp_path, caplog, columns, labels, odd, kind
):
    texts = {"text": "x" * 2**20, "first": "a", "second": "b"}
    rows = [{**texts, "label": labels[0]}]
    rows += [{**texts, "text": "short", "label": label} for label in (labels[1], odd, None)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = load_examples(tmp_path / "e.jsonl", columns)
    assert len(examples) == 2 * max(1, len(columns.choices))
    message = f"2 of 4 rows are left out: no label, or one that is not {kind} (2)"
    assert message in caplog.text


def test_no_label_column_is_needed_for_embeddings(tmp_path):
    path = write(tmp_path / "e.csv", {"text": ["a", "b"]})
    expected = Examples(texts=["a", "b"], text_pairs=None, labels=[None] * 2, task=EMBEDDING)
    assert load(path, label=None) == expected


CHOICES = {
    "text": ["p", "q"],
    "one": ["a", "b"],
    "two": ["c", "d"],
    "three": ["e", "f"],
}


@pytest.mark.parametrize("rights", [[2, 0], ["three", "one"]], ids=str)
def test_each_choice_of_a_row_becomes_an_example(tmp_path, rights):
    path = write(tmp_path / "e.jsonl", {**CHOICES, "label": rights})
    examples = load_examples(path, Columns(choices=("one", "two", "three")))
    assert examples == Examples(
        texts=["p", "p", "p", "q", "q", "q"],
        text_pairs=["a", "c", "e", "b", "d", "f"],
        labels=[0, 0, 1, 1, 0, 0],
        groups=[0, 0, 0, 1, 1, 1],
        task=MULTIPLE_CHOICE,
    )


@pytest.mark.parametrize(
    ("columns", "pair", "message"),
    [
        (("one", "four"), None, "no column 'four'"),
        (("one", "one"), None, "one column is given twice"),
        (("one", "two"), "three", "--choice-columns and --text-pair-column: give one"),
        (("one", "two"), None, "label 2 is not one of .* labels \\(one, two\\)"),
        (("one", "two", "three"), None, "no column 'label'"),
    ],
)
def test_choices_that_make_no_sense_are_refused(tmp_path, columns, pair, message):
    label = {} if columns == ("one", "two", "three") else {"label": [2, 0]}
    path = write(tmp_path / "e.parquet", {**CHOICES, **label})
    with pytest.raises(InputError, match=message):
        load_examples(path, Columns(text_pair=pair, choices=columns))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 100))
def test_a_sample_keeps_groups_whole(sizes, num_rows):
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    texts = [str(row) for row in range(len(groups))]
    examples = Examples(texts=texts, text_pairs=None, labels=[0] * len(texts), groups=groups)
    sample = examples.sample(num_rows)
    assert [groups[int(text)] for text in sample.texts] == sample.groups
    assert [sizes[g] for g in dict.fromkeys(sample.groups)] == [
        sample.groups.count(g) for g in dict.fromkeys(sample.groups)
    ]
    if num_rows >= len(texts):
        assert sample == examples


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.parquet", b"not parquet at all"),
        ("e.parquet", b""),
        ("e.csv", b""),
        ("e.csv", b"text,label\na,1,too many\n"),
        ("e.csv", b"text,label\n\xff\xfe,1\n"),
        ("e.jsonl", b""),
        ("e.jsonl", b'{"text": "a", "label"'),
        ("e.jsonl", b'{"text": "\xff", "label": 1}\n'),
        ("e.txt", b"a\tb"),
    ],
)
def test_an_unreadable_file_is_refused_by_its_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_format_is_refused_with_those_there_are(tmp_path):
    (tmp_path / "e.tab").write_bytes(b"text\tlabel\na\tb\n")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "e.tab")
    assert all(suffix in str(caught.value) for suffix in FORMATS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read_alike_whatever_the_case_of_its_name(tmp_path, suffix):
    path = write(tmp_path / f"e{suffix}", TABLE).rename(tmp_path / f"e{suffix.upper()}")
    examples = load(path)
    assert (examples.texts, examples.labels) == (TEXTS, TABLE["label"])


@pytest.mark.parametrize("part", ["pages", "footer"])
def test_a_damaged_parquet_file_is_refused(tmp_path, part):
    path = write(tmp_path / "e.parquet", {"text": ["some text"] * 500, "label": [0, 1] * 250})
    content = bytearray(path.read_bytes())
    footer_length = int.from_bytes(content[-8:-4], "little")
    start = 4 if part == "pages" else len(content) - 8 - footer_length
    content[start : start + 100] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"e\.parquet: .*cannot be read"):
        load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"missing\.csv: no such file or directory"):
        load(tmp_path / "missing.csv")


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
def test_a_text_of_megabytes_is_read(tmp_path, name):
    texts = ["short", "long " * 600_000, "short"]
    assert load(write(tmp_path / name, {"text": texts, "label": [0, 1, 0]})).texts == texts


NUMBERED = Examples(texts=[str(row) for row in range(1000)], text_pairs=None, labels=[0] * 1000)


@given(st.integers(1, 1000), st.integers(1, 1200))
def test_a_sample_is_spread_over_the_file_and_is_always_the_same(num_examples, num_rows):
    examples = NUMBERED.take(range(num_examples))
    sample = examples.sample(num_rows)
    assert sample == examples.sample(num_rows)
    rows = [int(text) for text in sample.texts]
    assert len(rows) == min(num_rows, num_examples)
    if len(rows) > 1:
        assert (rows[0], rows[-1]) == (0, num_examples - 1)
        assert max(np.diff(rows)) - min(np.diff(rows)) <= 1


def test_taken_examples_keep_their_pairs_and_labels():
    examples = Examples(texts=["a", "b", "c"], text_pairs=["x", "y", "z"], labels=[0, 1, 2])
    expected = Examples(texts=["c", "a"], text_pairs=["z", "x"], labels=[2, 0])
    assert examples.take([2, 0]) == expected
    assert len(expected) == 2
