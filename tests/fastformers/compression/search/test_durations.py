import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression.recipe import Stage, stage_directories
from fastformers.compression.recipe_config import PruneConfig, RecipeConfig, StudentConfig
from fastformers.compression.search import durations as durations_module
from fastformers.compression.search.durations import Durations, Work, WorkTimer
from fastformers.compression.token_config import TokenConfig
from fastformers.models.forward import StoppedError

STUDENT = RecipeConfig(student=StudentConfig(student_layers=3))


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def report(timer, clock, what, *, done, total, seconds_each):
    for number in range(done, total + 1):
        timer(what, number, total)
        clock.now_s += seconds_each


def test_work_that_is_taken_up_half_way_counts_as_a_whole(clock):
    timer = WorkTimer(lambda *_: None, clock=clock)
    report(timer, clock, "distill", done=60, total=100, seconds_each=2)
    report(timer, clock, "evaluate", done=1, total=10, seconds_each=1)
    report(timer, clock, "distill", done=1, total=50, seconds_each=2)  # a second round
    assert timer.seconds_of("distill") == pytest.approx(200 + 100)
    assert timer.seconds_of("evaluate") == pytest.approx(10)
    assert timer.seconds_of("teacher") == 0


def test_what_would_end_too_late_is_stopped_once_that_is_sure(clock):
    seen = []
    timer = WorkTimer(lambda *report: seen.append(report), stop_at_s=150, clock=clock)
    with pytest.raises(StoppedError):  # 200 s; after 30 s that is sure
        report(timer, clock, "distill", done=1, total=100, seconds_each=2)
    assert clock.now_s == 30
    assert seen[-1] == ("distill", 16, 100)
    report(timer, clock, "evaluate", done=1, total=100, seconds_each=1)  # fits, ends at 130
    clock.now_s = 151
    with pytest.raises(StoppedError):
        timer("evaluate", 1, 10)


@pytest.fixture
def teacher(tmp_path):
    """A teacher of 6 layers with 100 training rows of 20 tokens."""
    rows = SimpleNamespace(lengths_N=np.full(100, 20))
    return SimpleNamespace(
        key="k",
        work=tmp_path,
        model=SimpleNamespace(config=SimpleNamespace(num_hidden_layers=6)),
        train=SimpleNamespace(joined=lambda other: None),
        tokenize=lambda examples: rows,
        answers=lambda examples: tmp_path / "answers",
    )


def stages(*names):
    nothing = {"settings": {}, "requires": None, "run": None, "ensures": None}
    return [Stage(name=name, **nothing) for name in names]


def test_a_recipe_takes_as_long_as_its_tokens_and_layers(teacher, clock, monkeypatch):
    monkeypatch.setattr(durations_module, "_time_teacher", lambda teacher: 0.01)
    durations = Durations(teacher, None)
    work = durations.plan_work(STUDENT, stages("distill", "export"))
    assert work == Work(trained_tokens=2000 * 3 * 0.5, read_tokens=2000, num_stages=2)
    # The first: three passes of the teacher for each token.
    assert durations.predict(work) == pytest.approx(3000 * 0.03 + 2000 * 0.01)

    timer = WorkTimer(lambda *_: None, clock=clock)
    report(timer, clock, "teacher", done=1, total=2000, seconds_each=0.02)
    report(timer, clock, "distill", done=1, total=100, seconds_each=3)
    durations.learn(work, 380.0, timer)
    shallow = replace(STUDENT, student=StudentConfig(student_layers=1))
    work = durations.plan_work(shallow, stages("distill", "export"))
    # A third of 300 s, the teacher's pass again, and the 40 s beside both.
    assert durations.predict(work) == pytest.approx(100 + 40 + 40)


def test_a_training_without_progress_leaves_the_rate_that_was_learned(teacher, clock, monkeypatch):
    monkeypatch.setattr(durations_module, "_time_teacher", lambda teacher: 0.01)
    durations = Durations(teacher, None)
    work = Work(trained_tokens=100.0, num_stages=1)
    timer = WorkTimer(lambda *_: None, clock=clock)
    report(timer, clock, "distill", done=1, total=100, seconds_each=3)
    durations.learn(work, 300.0, timer)
    durations.learn(work, 5.0, WorkTimer(lambda *_: None))  # over before its first report
    assert durations.predict(Work(trained_tokens=10.0, num_stages=1)) == pytest.approx(30 + 5)


def test_the_teacher_is_timed_once_on_a_few_rows_and_warm(teacher, clock, monkeypatch):
    """A token takes 0.5 s, and the first pass as long again."""
    passes = []

    def predict(model, rows):
        passes.append(rows)
        clock.now_s += 0.5 * rows.lengths_N.sum() * (2 if len(passes) == 1 else 1)

    monkeypatch.setattr(durations_module, "predict_logits", predict)
    monkeypatch.setattr(durations_module, "time", SimpleNamespace(perf_counter=clock))
    asked = []
    teacher.train.sample = asked.append
    durations = Durations(teacher, None)
    work = Work(read_tokens=40.0, trained_tokens=7.0, num_stages=1)
    for _ in range(2):
        assert durations.predict(work) == pytest.approx(40 * 0.5 + 7 * 3 * 0.5)
    assert (len(passes), asked) == (2, [64])


def test_what_is_kept_takes_no_time_and_what_was_begun_the_rest(teacher, monkeypatch):
    monkeypatch.setattr(durations_module, "_time_teacher", lambda teacher: 0.01)
    durations, both = Durations(teacher, None), stages("distill", "export")
    distilled, exported = stage_directories(teacher, both)
    (distilled / "checkpoints" / "checkpoint-9").mkdir(parents=True)
    state = distilled / "checkpoints" / "checkpoint-9" / "trainer_state.json"
    state.write_text(json.dumps({"global_step": 75, "max_steps": 100}))
    assert durations.plan_work(STUDENT, both).trained_tokens == 750
    newer = distilled / "checkpoints" / "checkpoint-12"
    newer.mkdir()  # whose last file was half written when the search was killed
    (newer / "trainer_state.json").write_text('{"global_step": 100, "max_')
    assert durations.plan_work(STUDENT, both).trained_tokens == 750
    (distilled / "stage.json").write_text("{}")
    assert durations.plan_work(STUDENT, both) == Work(num_stages=1)
    exported.mkdir()
    (exported / "stage.json").write_text("{}")
    assert durations.predict(durations.plan_work(STUDENT, both)) == 0


def test_later_stages_train_what_is_left_and_static_vectors_next_to_nothing(teacher):
    durations = Durations(teacher, None)
    prune = PruneConfig(prune_heads=0.25, prune_ffn=0.75, prune_epochs=2, prune_rounds=2)
    tokens = TokenConfig(keep_tokens=(0.5,), token_epochs=1)
    config = replace(STUDENT, prune=prune, tokens=tokens)
    work = durations.plan_work(config, stages("prune", "keep_tokens", "quantize"))
    assert work.trained_tokens == pytest.approx(2000 * 0.5 * 0.5 * (2 * 2 + 1))
    assert (work.read_tokens, work.num_stages) == (2000, 3)  # the teacher reads once for both
    teacher.answers(teacher.train).mkdir()
    (teacher.answers(teacher.train) / "done.json").write_text("{}")
    assert durations.plan_work(config, stages("prune", "keep_tokens")).read_tokens == 0
    checkpoint = stage_directories(teacher, stages("prune"))[0] / "round0" / "checkpoints" / "c"
    checkpoint.mkdir(parents=True)
    state = json.dumps({"global_step": 30, "max_steps": 60})
    (checkpoint / "trainer_state.json").write_text(state)
    work = durations.plan_work(config, stages("prune"))  # half of one of two rounds is done
    assert work.trained_tokens == pytest.approx(2000 * 0.5 * 0.5 * 3)
    (checkpoint / "trainer_state.json").unlink()
    whole = replace(config, student=StudentConfig(), tokens=replace(tokens, token_epochs=0))
    work = durations.plan_work(whole, stages("prune", "keep_tokens"))
    assert work.trained_tokens == pytest.approx(2000 * 0.5 * 4)
