import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.data.labels import (
    load_label_map,
    map_label,
    number_of,
    read_labels,
    text_of,
    truth_of,
)
from fastformers.errors import InputError

STARS = [f"LABEL_{place}" for place in range(5)]
CODES = ["01", "02", "03", "04"]


def classes_of(labels, names, **settings):
    reading = read_labels(labels, names, "e.csv", **settings)
    return [reading.class_of[label] for label in labels], reading.how


@pytest.mark.parametrize(
    ("labels", "names", "classes", "how"),
    [
        (["b", "a", "b"], ["a", "b"], [1, 0, 1], "by name"),
        ([1, 0, 1], ["1", "0"], [0, 1, 0], "by name"),
        ([1, 5], ["5", "1"], [1, 0], "by name"),
        ([1.0, 5.0], ["5", "1"], [1, 0], "by name"),
        (["02", "01"], CODES, [1, 0], "by name"),
        ([True, False], ["True", "False"], [0, 1], "by name"),
        ([True, False], ["true", "false"], [0, 1], "by name"),
        ([], ["a", "b"], [], "by name"),
        (["GOOD ", "not  bad"], ["good", "not_bad"], [0, 1], "by name, whatever case and spaces"),
        (["-1", "1"], ["1", "-1"], [1, 0], "by name"),
        ([True, False], ["no", "yes"], [1, 0], "as true and false"),
        ([True, False], ["POSITIVE", "NEGATIVE"], [0, 1], "as true and false"),
        (["Yes", "no"], ["LABEL_0", "LABEL_1"], [1, 0], "as true and false"),
        ([2, 0, 1], ["a", "b", "c"], [2, 0, 1], "by place from 0"),
        (["2", "0"], ["a", "b", "c"], [2, 0], "by place from 0"),
        ([1.0, 0.0], ["a", "b", "c"], [1, 0], "by place from 0"),
        ([0, 3], CODES, [0, 3], "by place from 0"),
        ([5, 1, 2], STARS, [4, 0, 1], "by place from 1"),
        (["3", "1"], ["World", "Sports", "Sci/Tech"], [2, 0], "by place from 1"),
        ([1, 5], ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"], [0, 4], None),
        ([4, 1], CODES, [3, 0], None),
        ([1, "01", "02"], ["01", "02"], [0, 0, 1], "by the numbers in the names"),
        ([10, 20], ["grade 20", "grade 10"], [1, 0], "by the numbers in the names"),
        (["1.0", "3"], ["03", "01"], [1, 0], "by the numbers in the names"),
    ],
    ids=str,
)
def test_labels_that_can_be_read_in_one_way(labels, names, classes, how):
    found, found_how = classes_of(labels, names)
    assert found == classes
    assert how is None or found_how == how


@pytest.mark.parametrize(
    ("labels", "names", "one", "other"),
    [
        # The first or last class may be missing from the file.
        ([1, 2, 3], STARS, "LABEL_1", "LABEL_0"),
        ([1, 2, 3], CODES, "01", "02"),
        (["1"], ["bad", "good"], "good", "bad"),
        # 0 and 1 are places, and truth.
        ([0, 1], ["yes", "no"], "yes", "no"),
        ([1, 3], ["3 stars", "2 stars", "1 star", "0 stars"], "1 star", "2 stars"),
    ],
)
def test_numbers_that_can_be_read_in_two_ways_are_refused(labels, names, one, other):
    with pytest.raises(InputError, match=r"e\.csv: label .* may be class .*--label-map") as caught:
        read_labels(labels, names, "e.csv")
    assert repr(one) in str(caught.value) and repr(other) in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "names", "label"),
    [
        (["a", "c"], ["a", "b"], "c"),
        (["a", 2], ["a", "b"], 2),
        ([0, 1, 2], ["1", "2", "3"], 0),  # some are names, so none is a place
        ([0, 5], STARS, 5),
        ([-1, 1], ["a", "b"], -1),
        ([0.5, 1.0], ["a", "b"], 0.5),
        ([True, False], ["entailment", "not_entailment"], True),
        ([""], ["a", "b"], ""),
    ],
    ids=str,
)
def test_another_label_is_refused_with_the_labels_there_are(labels, names, label):
    with pytest.raises(InputError, match=r"e\.csv: label .* is not one of the model's") as caught:
        read_labels(labels, names, "e.csv")
    assert f"label {label!r} is" in str(caught.value)
    assert f"({', '.join(names)})" in str(caught.value)


def test_many_labels_are_not_all_listed():
    names = [f"label{index}" for index in range(100)]
    with pytest.raises(InputError, match=r"the model's 100 labels \(label0, .*, label7, \.\.\.\)"):
        read_labels(["x"], names, "e.csv")


def test_numbers_are_no_places_where_nobody_knew_the_order():
    with pytest.raises(InputError, match="label 0 is not one of"):
        read_labels([0, 1], ["bad", "good"], "e.csv", has_places=False)
    assert classes_of([2, 1], ["01", "02"], has_places=False)[0] == [1, 0]


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"two of the model's classes have one name"):
        read_labels(["a"], ["a", "a"], "e.csv")


@given(st.lists(st.integers(-3, 8), min_size=1), st.integers(2, 6))
def test_a_number_is_a_place_or_refused(labels, num_classes):
    names = [f"class {chr(97 + place)}" for place in range(num_classes)]
    try:
        classes, _ = classes_of(labels, names)
    except InputError:
        is_from_0 = min(labels) == 0 and max(labels) < num_classes
        is_from_1 = min(labels) > 0 and max(labels) == num_classes
        assert not (is_from_0 or is_from_1)
    else:
        offsets = {label - place for label, place in zip(labels, classes, strict=True)}
        assert offsets == {0 if 0 in labels else 1}


@pytest.mark.parametrize(
    ("label", "number", "truth", "text"),
    [
        (3, 3, None, "3"),
        (3.0, 3, None, "3"),
        (0.5, None, None, "0.5"),
        (float("nan"), None, None, "nan"),
        (float("inf"), None, None, "inf"),
        (True, None, True, "True"),
        (" 07 ", 7, None, " 07 "),
        ("2.00", 2, None, "2.00"),
        ("2.5", None, None, "2.5"),
        ("No", None, False, "No"),
        ("north", None, None, "north"),
    ],
)
def test_what_a_label_is_by_itself(label, number, truth, text):
    assert (number_of(label), truth_of(label), text_of(label)) == (number, truth, text)


@pytest.mark.parametrize(
    ("label", "name"),
    [(1, "one"), (1.0, "one"), ("1", "one"), (True, "yes"), (["1", True], ["one", "yes"])],
    ids=str,
)
def test_a_map_names_each_value_however_its_type_spells_it(label, name):
    assert map_label(label, {"1": "one", "true": "yes"}, "e.csv") == name


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '"a"', None])
def test_a_map_that_cannot_be_used_is_refused_by_its_name(tmp_path, content):
    path = tmp_path / "map.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"--label-map .*map\.json: "):
        load_label_map(path)
