import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastformers.compression.recipe_config import DistillConfig  # noqa: E402
from fastformers.compression.students.distill import (  # noqa: E402
    _Collator,
    _DistillationModel,
    distill,
    match_layers,
    replace_gelu,
    weight_of_dropped,
)
from fastformers.errors import InputError, StageError  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models import trainer  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402
from fastformers.models.teacher_outputs import compute_teacher_outputs  # noqa: E402
from fastformers.models.training_config import TrainingConfig  # noqa: E402
from fastformers.models.variants.reduced_layers import (  # noqa: E402
    ReducedLayers,
    change_reduction,
    reduced_layers,
    run_with_states,
)
from fastformers.models.variants.token_reduction import (  # noqa: E402
    TokenPool,
    TokenReduction,
)

TRAINING = TrainingConfig(epochs=12, learning_rate=2e-3, batch_rows=16)


@pytest.fixture
def teacher(make_teacher):
    return make_teacher(labels=("a", "b", "c"))


@pytest.fixture
def student(make_teacher):
    """A model with other weights than the teacher's, and one layer less."""
    model = make_teacher(labels=("a", "b", "c"), num_hidden_layers=1)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=32).encode(make_texts(96, max_words=12))


def learn(student, teacher, rows, targets_N, *, work, **options):
    return distill(
        student,
        teacher,
        rows,
        targets_N,
        outputs=work / "outputs",
        checkpoints=work / "checkpoints",
        **options,
    )


def config(**changes):
    return DistillConfig(
        **{"training": TRAINING, "hard_weight": 0.0, "hidden_weight": 0.0, **changes}
    )


def in_training(student, *, hidden_weight=0.0, attention_weight=0.0):
    """The student with losses on the teacher's outputs and, if weighted, on its layers."""
    return _DistillationModel(
        student,
        32,
        [None] * (student.config.num_hidden_layers + 1),
        temperature=2.0,
        hard_weight=0.0,
        hidden_weight=hidden_weight,
        attention_weight=attention_weight,
    )


def distance(model, teacher, rows):
    error = predict_logits(model, rows) - predict_logits(teacher, rows)
    return float(np.square(error - error.mean(axis=1, keepdims=True)).mean())


def make_collator(rows, outputs):
    """Makes batches without targets."""
    return _Collator(
        rows=rows,
        targets_N=np.zeros(0, np.int64),
        outputs=outputs,
        pad_id=0,
        max_length=64,
        token_types=True,
    )


def test_a_training_that_diverges_is_refused(student, teacher, rows, tmp_path):
    training = replace(TRAINING, learning_rate=1e30)
    with pytest.raises(StageError, match="distill: the training diverged; lower --learning-rate"):
        learn(student, teacher, rows, None, config=config(training=training), work=tmp_path)


def test_a_narrower_student_is_the_same_whatever_was_drawn_before(
    make_teacher, teacher, rows, tmp_path
):
    narrow = make_teacher(labels=("a", "b", "c"), hidden_size=16, num_hidden_layers=1)
    settings = config(training=replace(TRAINING, epochs=1), hidden_weight=1.0)
    students = []
    for _ in range(2):
        torch.rand(7)
        students.append(learn(narrow, teacher, rows, None, config=settings, work=tmp_path))
        shutil.rmtree(tmp_path / "checkpoints")
    for one, other in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(one, other)


def test_what_an_embedders_configuration_says_of_labels_counts_for_nothing(
    make_teacher, rows, tmp_path
):
    """One label, as that of many embedders has it, which no other configuration says."""
    teacher, student = (
        SentenceEncoder(make_teacher(labels=labels, num_hidden_layers=1).base_model, pooling="mean")
        for labels in (("LABEL_0",), ("no", "yes"))
    )
    learn(student.eval(), teacher.eval(), rows, None, config=config(), work=tmp_path)


def test_a_student_comes_close_to_its_teacher_without_any_label(student, teacher, rows, tmp_path):
    before = distance(student, teacher, rows)
    after = learn(
        student,
        teacher,
        rows,
        None,
        config=config(),
        work=tmp_path,
    )
    assert distance(after, teacher, rows) < 0.5 * before
    assert distance(student, teacher, rows) == before  # the given student is as it was
    assert not after.training


def test_labels_are_learned_against_the_teacher_where_only_they_count(
    student, teacher, rows, tmp_path
):
    labels_N = (predict_logits(teacher, rows).argmax(axis=1) + 1) % 3
    after = learn(
        student,
        teacher,
        rows,
        labels_N,
        config=config(hard_weight=1.0),
        work=tmp_path,
    )
    # No prediction of the teacher is one of these labels.
    assert (predict_logits(after, rows).argmax(axis=1) == labels_N).mean() > 0.5


@pytest.mark.parametrize(
    ("loss", "read"),
    [
        ("hidden_weight", lambda out: torch.stack([out.hidden_states[0], out.hidden_states[-1]])),
        ("attention_weight", lambda out: out.attentions[-1].mean(dim=1)),
    ],
)
def test_a_layer_loss_brings_the_layers_closer(student, teacher, rows, tmp_path, loss, read):
    ids = torch.from_numpy(rows.batch_ids(np.array([int(rows.lengths_N.argmax())])))

    def gap(model):
        outs = []
        for one in (model, teacher):
            one.set_attn_implementation("eager")
            with torch.inference_mode():
                outs.append(read(one(ids, output_hidden_states=True, output_attentions=True)))
        return float((outs[0] - outs[1]).square().mean())

    without = learn(
        student,
        teacher,
        rows,
        None,
        config=config(),
        work=tmp_path / "without",
    )
    within = learn(
        student,
        teacher,
        rows,
        None,
        config=config(**{loss: 10.0}),
        work=tmp_path / "with",
    )
    assert gap(within) < 0.7 * gap(without)


def test_a_narrower_student_learns_hidden_states_through_a_projection(
    make_teacher, teacher, rows, tmp_path
):
    narrow = make_teacher(labels=("a", "b", "c"), hidden_size=16, intermediate_size=32)
    model_in_training = in_training(narrow, hidden_weight=1.0)
    assert [tuple(p.weight.shape) for p in model_in_training.projections] == [(32, 16)] * 3
    before = distance(narrow, teacher, rows)
    after = learn(
        narrow,
        teacher,
        rows,
        None,
        config=config(hidden_weight=0.1),
        work=tmp_path,
    )
    assert distance(after, teacher, rows) < 0.5 * before


def test_the_loss_does_not_see_padding(student, teacher, rows, tmp_path):
    """A row's loss is the same alone and beside a longer row, with all parts of the loss."""
    outputs = compute_teacher_outputs(
        teacher,
        rows,
        tmp_path,
        hidden_layers=[0, 2],
        attention_layers=[1],
        on_progress=lambda *step: None,
    )
    collate = make_collator(rows, outputs)
    student.set_attn_implementation("eager")
    with_layers = in_training(student, hidden_weight=1.0, attention_weight=1.0).eval()
    lengths = rows.lengths_N
    short, long = int(lengths.argmin()), int(lengths.argmax())
    assert lengths[short] < lengths[long]

    def loss_of(model, *numbers):
        items = [
            {"row": row, "input_ids": rows.ids[rows.offsets[row] : rows.offsets[row + 1]]}
            for row in numbers
        ]
        batch = collate(items)
        with torch.inference_mode():
            return float(model(**batch)["loss"])

    soft_only = in_training(student).eval()
    alone = [loss_of(with_layers, row) for row in (short, long)]
    assert alone[0] != pytest.approx(alone[1], rel=1e-2)
    together = loss_of(soft_only, short, long)
    alone = [loss_of(soft_only, row) for row in (short, long)]
    assert together == pytest.approx(sum(alone) / 2, rel=1e-5)
    twice = loss_of(with_layers, short, short)
    assert twice == pytest.approx(loss_of(with_layers, short), rel=1e-5)
    weights = lengths[[short, long]] / lengths[[short, long]].sum()
    with_layers.hard_weight = 1.0  # without a target that leaves the layers alone
    alone = [loss_of(with_layers, row) for row in (short, long)]
    together = loss_of(with_layers, short, long)
    assert together == pytest.approx(float(np.dot(weights, alone)), rel=1e-5)


def test_an_interrupted_distillation_goes_on_and_asks_the_teacher_once(
    student, teacher, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "SAVE_STEPS", 4)

    class PowerCutError(Exception):
        pass

    def cut(what, done, total):
        if (what, done) == ("distill", 10):
            raise PowerCutError

    again = []
    with pytest.raises(PowerCutError):
        learn(
            student,
            teacher,
            rows,
            None,
            config=config(),
            work=tmp_path,
            on_progress=cut,
        )
    resumed = learn(
        student,
        teacher,
        rows,
        None,
        config=config(),
        work=tmp_path,
        on_progress=lambda *step: again.append(step),
    )
    assert again[0] == ("distill", 9, 72)  # no step of the teacher, none of the first eight
    assert again[-1] == ("distill", 72, 72)
    assert distance(resumed, teacher, rows) < 0.5 * distance(student, teacher, rows)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"vocab_size": 999}, r"the student has 999 vocabulary tokens, its teacher \d+;"),
        ({"labels": ("x", "y")}, r"the student has 2 labels, its teacher 3;"),
    ],
)
def test_a_student_of_another_vocabulary_or_other_labels_is_refused(
    make_teacher, teacher, rows, tmp_path, shape, message
):
    other = make_teacher(**{"labels": ("a", "b", "c"), **shape})
    with pytest.raises(InputError, match=message):
        learn(
            other,
            teacher,
            rows,
            None,
            config=config(),
            work=tmp_path,
        )


@pytest.mark.parametrize("architecture", ["Bert", "Roberta", "DistilBert", "Electra"])
def test_relu_replaces_gelu_in_the_layers_alone(make_teacher, rows, architecture):
    shape = {"type_vocab_size": 2} if architecture != "DistilBert" else {}
    model = make_teacher(architecture, **shape)
    changed = replace_gelu(model)
    kinds = [type(module).__name__ for module in changed.modules()]
    assert kinds.count("ReLU") >= 2
    assert sum(kind.startswith("GELU") for kind in kinds) == (architecture == "Electra")  # its head
    config_names = {"activation", "hidden_act"}
    assert "relu" in {getattr(changed.config, name, None) for name in config_names}
    assert not np.allclose(predict_logits(model, rows), predict_logits(changed, rows), atol=1e-3)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(1, 6, [0, 6]), (4, 6, [0, 2, 3, 4, 6]), (3, 3, [0, 1, 2, 3]), (2, 12, [0, 6, 12])],
)
def test_layers_are_matched_evenly_and_the_last_with_the_last(student, teacher, expected):
    assert [at for _, at in match_layers(student, teacher)] == expected


def reducing(model, *, seed=None, **reduction):
    """A copy that reduces its tokens, with other weights if there is a seed for them."""
    model = copy.deepcopy(model)
    if seed is not None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    change_reduction(model, TokenReduction(**reduction))
    return model


POOL = TokenPool(before_layer=1, every=3, how="mean")


@pytest.mark.parametrize("fewer", [{"keep_shares": (0.5,)}, {"pool": POOL}], ids=["drop", "pool"])
def test_a_student_with_fewer_tokens_learns_its_teachers_states_of_them(
    teacher, rows, tmp_path, fewer
):
    student = reducing(teacher, seed=1, **fewer)
    before = distance(student, teacher, rows)
    after = learn(
        student,
        teacher,
        rows,
        None,
        config=config(hidden_weight=0.1),
        work=tmp_path,
        soft_share=0.3,
    )
    assert distance(after, teacher, rows) < 0.7 * before
    assert reduced_layers(after).dropped_weight == 0


def test_a_loss_of_states_compares_the_tokens_that_are_left(teacher, rows, tmp_path):
    """A student with its teacher's weights differs only where fewer tokens were attended to."""
    outputs = compute_teacher_outputs(
        teacher,
        rows,
        tmp_path,
        hidden_layers=[0, 1, 2],
        attention_layers=[],
        on_progress=lambda *step: None,
    )
    student = reducing(teacher, keep_shares=(0.5,))
    collate = make_collator(rows, outputs)
    starts = rows.offsets
    batch = collate(
        [{"row": at, "input_ids": rows.ids[starts[at] : starts[at + 1]]} for at in range(8)]
    )
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        _, states = run_with_states(student, **inputs)
        model = in_training(student, hidden_weight=1.0)
        model.teacher_pools = [None, None]
        mask = batch["attention_mask"].float()
        whole = model._hidden_error(states[:2], batch["teacher_hidden"][:, :2], mask)
        last_two = model._hidden_error(states[1:], batch["teacher_hidden"][:, 1:], mask)
    assert float(whole) < 1e-3  # rounded to float16: the first layer still saw all tokens
    assert float(last_two) > 0.1


def test_a_pooled_teachers_states_are_kept_as_many_as_there_are(teacher, rows, tmp_path):
    pooled = reducing(teacher, pool=POOL)
    outputs = compute_teacher_outputs(
        pooled,
        rows,
        tmp_path,
        hidden_layers=[1, 2],
        attention_layers=[],
        on_progress=lambda *step: None,
    )
    row, length = 5, int(rows.lengths_N[5])
    assert [len(layer.row(row)) for layer in outputs.hidden] == [length, 1 + -(-(length - 1) // 3)]
    ids = torch.from_numpy(rows.batch_ids(np.array([row])))
    with torch.no_grad():
        _, states = run_with_states(pooled, input_ids=ids)
    for state, layer in zip(states[1:], outputs.hidden, strict=True):
        np.testing.assert_allclose(layer.row(row), state.values_BKD[0], atol=0.02)
    student = reducing(pooled, seed=1, pool=POOL)
    after = learn(
        student, pooled, rows, None, config=config(hidden_weight=0.1), work=tmp_path / "more"
    )
    assert distance(after, pooled, rows) < 0.8 * distance(student, pooled, rows)


def test_student_and_teacher_that_pool_differently_are_refused(teacher, rows, tmp_path):
    other = TokenPool(before_layer=1, every=2, how="mean")
    with pytest.raises(InputError, match=r"the student pools 2 tokens \(mean\), its teacher 3"):
        learn(
            reducing(teacher, pool=other),
            reducing(teacher, pool=POOL),
            rows,
            None,
            config=config(),
            work=tmp_path,
        )


def test_tokens_are_dropped_softly_at_first(teacher, rows, tmp_path, monkeypatch):
    weights, forward = [], ReducedLayers.forward

    def noted(self, *inputs, **others):
        weights.append(self.dropped_weight)
        return forward(self, *inputs, **others)

    monkeypatch.setattr(ReducedLayers, "forward", noted)
    short = TrainingConfig(epochs=2, learning_rate=1e-3, batch_rows=16)
    student = reducing(teacher, keep_shares=(0.5,))
    learn(
        student, teacher, rows, None, config=config(training=short), work=tmp_path, soft_share=0.5
    )
    assert weights == pytest.approx([1 - step / 6 for step in range(6)] + 6 * [0])


def test_dropped_tokens_lose_their_weight_step_by_step():
    assert [weight_of_dropped(done, 4) for done in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    assert weight_of_dropped(0, 0) == 0
