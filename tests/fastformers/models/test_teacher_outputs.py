import shutil
import threading

import numpy as np
import pytest

from fastformers.errors import InputError

torch = pytest.importorskip("torch")

from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.teacher_outputs import compute_teacher_outputs  # noqa: E402


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=32).encode(make_texts(24, max_words=12))


@pytest.fixture
def ask(make_teacher, rows, tmp_path):
    """Outputs of one teacher from one directory, and the number of rows that it ran on for them."""
    teacher = make_teacher(num_hidden_layers=2)

    def make(*, hidden=(), attention=()):
        rows_read = []
        outputs = compute_teacher_outputs(
            teacher,
            rows,
            tmp_path,
            hidden_layers=hidden,
            attention_layers=attention,
            on_progress=lambda what, done, total: rows_read.append(done),
        )
        return outputs, rows_read[-1] if rows_read else 0

    return make


def test_a_student_of_fewer_layers_reuses_what_a_deeper_one_left(ask, rows):
    deep, num_read = ask(hidden=[0, 1, 2], attention=[1])
    assert num_read == len(rows)
    shallow, num_read = ask(hidden=[0, 2])
    assert num_read == 0
    for ours, theirs in zip(shallow.hidden, (deep.hidden[0], deep.hidden[2]), strict=True):
        np.testing.assert_array_equal(ours.values, theirs.values)
    assert shallow.attention == ()


def test_only_layers_that_are_missing_are_computed(ask, rows):
    first, _ = ask(hidden=[0])
    kept = first.hidden[0].values.filename
    written = kept.stat().st_mtime_ns
    both, num_read = ask(hidden=[0, 2])
    assert num_read == len(rows)
    # A file that another run may have mapped is not replaced.
    assert kept.stat().st_mtime_ns == written
    assert not np.array_equal(both.hidden[0].values, both.hidden[1].values)
    assert ask(hidden=[2])[1] == 0


def test_a_disk_too_small_is_refused_before_anything_is_written(ask, rows, tmp_path, monkeypatch):
    room = 2 * 2 * int(rows.lengths_N.sum()) * 32  # float16, two layers 32 wide
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=room - 1))
    with pytest.raises(InputError, match=r"GB are free; .*--hidden-weight 0"):
        ask(hidden=[0, 2])
    assert list(tmp_path.iterdir()) == []
    assert ask()[1] == len(rows)  # logits alone take no such file
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=room))
    assert ask(hidden=[0, 2])[1] == len(rows)


def test_a_run_that_begins_meanwhile_waits_and_empties_nothing(
    make_teacher, ask, rows, tmp_path, caplog
):
    alone, _ = ask(hidden=[0, 2])
    others = []

    def begin():
        """As another run with the same teacher and texts would; it is killed soon after."""

        def die(what, done, total):
            raise SystemExit

        return compute(die)

    def compute(on_progress):
        return compute_teacher_outputs(
            make_teacher(num_hidden_layers=2),
            rows,
            tmp_path / "shared",
            hidden_layers=[0, 2],
            attention_layers=[],
            on_progress=on_progress,
        )

    def watch(what, done, total):
        if done > total // 2 and not others:
            others.append(threading.Thread(target=begin))
            others[0].start()
            while others[0].is_alive() and not caplog.messages:
                others[0].join(0.01)

    shared = compute(watch)
    others[0].join()
    for ours, theirs in zip(shared.hidden, alone.hidden, strict=True):
        np.testing.assert_array_equal(ours.values, theirs.values)
    [line] = caplog.messages
    assert line == f"{tmp_path}/shared: another run makes it; waiting for that"
