from dataclasses import replace
from pathlib import Path

import pytest

from fastformers.data.examples import Examples, choice_examples
from fastformers.data.splitting import SelectConfig, leave_out_known, split_off, split_rows
from fastformers.errors import InputError
from fastformers.inference.tasks import MULTIPLE_CHOICE, REGRESSION

FILE = Path("t.csv")


def make(texts, **columns):
    labels = [row % 2 for row in range(len(texts))]
    return Examples(**{"texts": texts, "text_pairs": None, "labels": labels, **columns})


def numbered(num_rows, **columns):
    return make([f"text {row}" for row in range(num_rows)], **columns)


def split(train, *, given=None, evaluation=None, **config):
    found = SelectConfig(**config)
    return split_rows(found, train, FILE, given=given, evaluation=evaluation)


def test_a_share_of_each_class_is_split_off():
    labels = ["rare" if row % 20 == 0 else "common" for row in range(2000)]
    rest, select = split_off(numbered(2000, labels=labels), 0.1)
    assert (len(rest), len(select)) == (1800, 200)
    assert select.labels.count("rare") == 10
    assert {*rest.texts}.isdisjoint(select.texts)
    # A class of a few rows keeps them: it is trained on, or it would be none.
    labels = [f"class {row // 3}" if row < 30 else "common" for row in range(1000)]
    rest, select = split_off(numbered(1000, labels=labels), 0.1)
    assert {*select.labels} == {"common"} and len(select) == 100
    _, select = split_off(
        numbered(1000, labels=[row / 7 for row in range(1000)], task=REGRESSION), 0.1
    )
    assert len(select) == 100


def test_the_split_is_the_same_in_any_order_and_moves_little_where_rows_are_added():
    texts, labels = [f"text {row}" for row in range(2000)], [row % 3 for row in range(2000)]
    _, select = split_off(make(texts, labels=labels), 0.1)
    _, again = split_off(make(texts[::-1], labels=labels[::-1]), 0.1)
    assert again.texts == select.texts[::-1]
    _, more = split_off(make([*texts, "one more"], labels=[*labels, 0]), 0.1)
    assert len({*more.texts} ^ {*select.texts}) <= 2


def test_equal_texts_are_on_one_side_whatever_their_case_and_white_space():
    texts = [f"text {row % 300}" for row in range(600)]
    texts += [f"Text  {row % 300} " for row in range(600)]
    rest, select = split_off(make(texts), 0.25)
    assert len(select) == 300
    plain = [{" ".join(text.split()).lower() for text in one.texts} for one in (rest, select)]
    assert plain[0].isdisjoint(plain[1])


def test_rows_of_one_passage_are_on_one_side():
    texts = [f"passage {row // 8}" for row in range(1600)]
    groups = [row // 4 for row in range(1600)]
    pairs = [f"answer {row}" for row in range(1600)]
    rest, select = split_off(make(texts, text_pairs=pairs, groups=groups), 0.25)
    assert len(select) == 400
    assert {*rest.texts}.isdisjoint(select.texts)


def test_pairs_of_one_passage_are_on_one_side_whichever_column_it_is_in():
    """BoolQ's passages are second, NLI's premises first; a hypothesis may be that of many rows."""
    passages = [f"a passage of many words, number {row // 4}" for row in range(1600)]
    shorts = [("yes", "no", "maybe", f"other {row}")[row % 4] for row in range(1600)]
    for texts, pairs in ((shorts, passages), (passages, shorts)):
        rest, select = split_off(make(texts, text_pairs=pairs), 0.1)
        assert len(select) == 160
        sides = [{*one.texts, *one.text_pairs} - {*shorts} for one in (rest, select)]
        assert sides[0].isdisjoint(sides[1]) and len(sides[1]) == 40
    # One row of a passage is evaluated: all of it trains, so that it is on one side still.
    evaluation = select.take([0])
    rest, fewer = split_off(make(texts, text_pairs=pairs), 0.1, but=[evaluation])
    assert {*select.texts} - {*fewer.texts} == {*evaluation.texts}
    assert {*rest.texts}.isdisjoint(fewer.texts)


def test_wording_that_all_rows_share_ties_no_rows_together(caplog):
    question = "Which of the following two is the better answer to what was asked?"
    texts = [f"text {row}" for row in range(400)]
    rest, select = split_off(make(texts, text_pairs=[question] * 400), 0.1)
    assert len(select) == 40 and {*rest.texts}.isdisjoint(select.texts)
    choices = [[f"{name} {row}" for row in range(400)] for name in "ab"]
    asked = choice_examples([question] * 400, choices, [1] * 400)
    rest, select = split_off(asked, 0.1)
    assert len(select) == 80 and {*rest.text_pairs}.isdisjoint(select.text_pairs)
    both = choice_examples([question] * 2, [["a 7", "a new"], ["b 7", "b new"]], [1, 1])
    assert leave_out_known(both, asked, path=FILE).text_pairs == ["a new", "b new"]


def test_where_rows_of_one_passage_are_of_several_classes_the_rare_one_gives_its_share_too():
    labels = ["rare" if row % 20 == 0 else "common" for row in range(2000)]
    passages = [f"a passage of many words, number {row // 2}" for row in range(2000)]
    questions = [f"question {row}" for row in range(2000)]
    _, select = split_off(make(questions, text_pairs=passages, labels=labels), 0.1)
    assert select.labels.count("rare") == 10


def test_each_row_of_several_labels_may_choose_however_rare_its_labels_are_together():
    labels = ["a" if row % 2 else f"a|b|{row}" for row in range(2000)]
    _, select = split_off(numbered(2000, labels=labels), 0.1)
    assert 60 < select.labels.count("a") < 140


def test_pairs_that_differ_only_in_where_they_are_split_are_different():
    given = make(["ab", "a", "a"], text_pairs=["c", "bc", "b"])
    left = leave_out_known(given, make(["a"], text_pairs=["bc"]), path=FILE)
    assert list(zip(left.texts, left.text_pairs, strict=True)) == [("ab", "c"), ("a", "b")]


def test_no_row_of_the_evaluation_file_chooses_and_the_others_are_the_same_whatever_it_has():
    """What finetune sets apart without an evaluation file, compress does not train with one."""
    train = numbered(1000)
    alone = split(train)
    assert (len(alone.train), len(alone.select)) == (900, 100)
    assert alone.meaning == "900 train, 100 others of t.csv choose"
    assert alone.whole is train and alone.select_path == FILE
    both = split(train, evaluation=train.take(range(500)))
    assert {*both.select.texts} < {*alone.select.texts}
    assert {*both.select.texts}.isdisjoint(train.texts[:500])


def test_too_few_rows_choose_nothing_and_that_is_said():
    train = numbered(190)
    few = split(train)
    assert few.train is train and few.select is None
    assert few.meaning == (
        "190 train, none choose (--select-share 0.1 gives 19 that --eval has not: too few)"
    )
    assert split(numbered(200)).select is not None
    assert split(train, share=0).meaning == "190 train, none choose"
    assert split(numbered(1000), evaluation=numbered(1000)).select is None
    for share in (-0.1, 0.6):
        with pytest.raises(InputError, match=f"--select-share {share}: give 0 to 0.5"):
            SelectConfig(share=share)


def test_rows_that_are_given_choose_but_for_those_that_are_known(caplog):
    train, evaluation = make(["a", "x"]), make(["d"])
    found = split(
        train, given=make(["A", "b", "c", "d"]), evaluation=evaluation, file=Path("s.csv")
    )
    assert found.select.texts == ["b", "c"] and found.train is found.whole is train
    assert found.meaning == "2 train, 2 of s.csv choose" and found.select_path == Path("s.csv")
    assert "s.csv: 2 of 4 rows are left out: their texts are in --train or --eval" in caplog.text
    with pytest.raises(InputError, match=r"--select s\.csv: each of its texts is in --train or"):
        split(train, given=make(["a"]), file=Path("s.csv"))


def questions(*numbers):
    return choice_examples(
        [f"question {number}" for number in numbers],
        [["the same"] * len(numbers), [f"choice {number}" for number in numbers]],
        [1] * len(numbers),
    )


def test_a_question_that_trains_is_left_out_with_all_its_choices():
    train = questions(0, 1)
    given = replace(questions(1, 2, 3), text_pairs=["the same", "another"] * 3)
    left = leave_out_known(given, train, path=FILE)
    assert left.texts == ["question 2"] * 2 + ["question 3"] * 2
    assert left.groups == [1, 1, 2, 2]


def test_where_a_question_has_one_answer_questions_are_counted():
    few = split(questions(*range(190)))
    assert few.select is None
    assert few.meaning.endswith("gives 19 questions that --eval has not: too few)")
    enough = split(questions(*range(200)))
    assert len(enough.select) == 40 and enough.select.task == MULTIPLE_CHOICE


def test_rows_that_train_and_are_evaluated_and_few_that_choose_are_said(caplog):
    split(numbered(300), evaluation=numbered(280).take(range(260, 280)))
    split(numbered(300), evaluation=make(["Text  7 ", "new"]))
    split(numbered(300), given=make([f"new {row}" for row in range(20)]), file=Path("s.csv"))
    first, second = caplog.messages
    assert first.startswith("t.csv: has the texts of 20 of 20 rows of --eval; models are trained")
    assert second.startswith("t.csv: has the texts of 1 of 2 rows of --eval")
    caplog.clear()
    split(numbered(300), given=make([f"new {row}" for row in range(19)]), file=Path("s.csv"))
    assert caplog.messages == [
        "--select s.csv: 19 rows choose; so few choose by chance, so give 20 or more"
    ]
