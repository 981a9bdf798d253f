import numpy as np
import pytest

from fastformers.compression.pruning.pruning_plan import Importance, PruningPlan, plan_pruning
from fastformers.errors import InputError
from fastformers.export.graph import write_graph
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.tokenizer import Tokenizer
from fastformers.models.layers import LayerShape

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.compression.pruning.prune import measure_importance, prune_model, shapes_after  # noqa: E402
from fastformers.compression.students.student import (  # noqa: E402
    cut_layers,
    cut_width,
    load_student,
    spread_layers,
)
from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.layers import layer_parts, layer_shape  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=24).encode(make_texts(12))


def check_standard(student, path, rows):
    """Check that `from_pretrained` reads the student, and that its graph gives its logits."""
    student.save_pretrained(path)
    auto_class = transformers.AutoModelForSequenceClassification
    loaded, report = auto_class.from_pretrained(path, output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    assert type(loaded) is type(student)
    logits_NC = predict_logits(student, rows)
    np.testing.assert_allclose(predict_logits(loaded.eval(), rows), logits_NC, atol=1e-5)
    write_graph(read_encoder(loaded), path / "model.onnx", text_pairs=False)
    first = np.array([0])
    got = OnnxEngine(path / "model.onnx").run(rows.batch_ids(first), rows.batch_types(first))
    np.testing.assert_allclose(got, logits_NC[:1], atol=1e-4)
    assert logits_NC.std(axis=0).min() > 0.01


@pytest.mark.parametrize(
    ("num_teacher", "num_student", "kept"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (12, 4, [0, 4, 7, 11]),
        (6, 4, [0, 2, 3, 5]),
        (6, 2, [0, 5]),
        (3, 3, [0, 1, 2]),
        (6, 1, [0]),
    ],
)
def test_layers_are_spread_from_the_first_to_the_last(num_teacher, num_student, kept):
    assert spread_layers(num_teacher, num_student) == kept


@pytest.mark.parametrize("num_student", [0, 7])
def test_more_layers_than_the_teacher_has_are_refused(num_student):
    with pytest.raises(InputError, match=f"student of {num_student} layers: its teacher has 6"):
        spread_layers(6, num_student)


def test_a_student_has_the_layers_it_was_given(make_prunable, rows, tmp_path):
    teacher = make_prunable()
    student = cut_layers(teacher, [0, 2])
    assert student.config.num_hidden_layers == 2
    assert len(layer_parts(teacher)) == teacher.config.num_hidden_layers == 3
    for kept, at in zip(layer_parts(student), (0, 2), strict=True):
        torch.testing.assert_close(kept.up.weight, layer_parts(teacher)[at].up.weight)
    check_standard(student, tmp_path, rows)


def test_a_layer_that_does_nothing_can_be_cut(make_teacher, rows):
    teacher = make_teacher(num_hidden_layers=3)
    *_, before = layer_parts(teacher)[0].ffn_norm, layer_parts(teacher)[0].ffn_norm
    idle = layer_parts(teacher)[1]
    with torch.no_grad():
        for linear in (idle.output, idle.down):
            linear.weight.zero_()
            linear.bias.zero_()
        # A plain normalization leaves values that are already normalized as they are.
        for norm in (before, idle.attention_norm, idle.ffn_norm):
            norm.weight.fill_(1)
            norm.bias.zero_()
    whole_NC = predict_logits(teacher, rows)
    without_NC = predict_logits(cut_layers(teacher, [0, 2]), rows)
    np.testing.assert_allclose(without_NC, whole_NC, atol=1e-4)
    assert np.abs(predict_logits(cut_layers(teacher, [0, 1]), rows) - whole_NC).max() > 0.01


def test_layers_of_a_pruned_teacher_keep_their_shapes(make_teacher, rows, tmp_path):
    teacher = make_teacher(num_hidden_layers=3, num_attention_heads=4)
    plan = PruningPlan(
        heads=tuple(map(np.arange, (1, 3, 2))), neurons=tuple(map(np.arange, (20, 30, 64)))
    )
    shapes = shapes_after(plan)
    student = cut_layers(prune_model(teacher, plan), [2, 0])
    student.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert list(map(layer_shape, layer_parts(loaded))) == [shapes[2], shapes[0]]
    np.testing.assert_allclose(
        predict_logits(loaded, rows), predict_logits(student, rows), atol=1e-5
    )


@pytest.mark.parametrize("keep", [[], [3], [-1], [1, 1]], ids=str)
def test_layers_that_are_not_there_are_refused(make_teacher, keep):
    with pytest.raises(InputError, match="of a teacher that has 0 to 1: name each at most once"):
        cut_layers(make_teacher(), keep)


def test_a_narrow_student_is_a_standard_model(make_prunable, rows, tmp_path):
    teacher = make_prunable()  # 32 wide, 4 heads of 8
    importance = measure_importance(teacher, rows)
    student = cut_width(teacher, 16, importance)
    assert (student.config.hidden_size, student.config.num_attention_heads) == (16, 2)
    assert teacher.config.hidden_size == 32
    shape = LayerShape(num_heads=2, ffn_width=48)
    assert list(map(layer_shape, layer_parts(student))) == [shape] * 3
    check_standard(student, tmp_path, rows)
    # It can be pruned like any other model.
    plan = plan_pruning(measure_importance(student, rows), prune_heads=0.5, prune_ffn=0.5)
    assert np.isfinite(predict_logits(prune_model(student, plan), rows)).all()


@pytest.mark.parametrize("embedding_size", [8, 32])
def test_electras_own_embedding_width_stays_unless_it_is_that_of_the_layers(
    make_teacher, rows, tmp_path, embedding_size
):
    teacher = make_teacher("Electra", embedding_size=embedding_size)
    student = cut_width(teacher, 16, measure_importance(teacher, rows))
    assert student.config.embedding_size == (8 if embedding_size == 8 else 16)
    assert hasattr(student.electra, "embeddings_project") is (embedding_size == 8)
    check_standard(student, tmp_path, rows)


def test_electra_is_not_cut_to_its_embedding_width(make_teacher, rows):
    teacher = make_teacher("Electra", embedding_size=16)
    with pytest.raises(InputError, match="hidden width 16 is that of the embeddings"):
        cut_width(teacher, 16, measure_importance(teacher, rows))


def test_dimensions_heads_and_head_units_that_are_idle_go_and_nothing_changes(make_teacher, rows):
    """Half of every part carries nothing; the other half computes the same.

    A normalization over twice as many dimensions, half of them zero, sees half the variance, so
    the weights of the student's norms are set to undo that.
    """
    teacher = make_teacher(num_attention_heads=4)
    rng = np.random.default_rng(0)
    idle, used = np.split(rng.permutation(32), 2)
    shrink = np.sqrt(2.0)
    with torch.no_grad():
        embeddings = teacher.bert.embeddings
        for table in embeddings.modules():
            if isinstance(table, torch.nn.Embedding):
                center(table.weight, used, idle)
        norms = [embeddings.LayerNorm]
        for layer in layer_parts(teacher):
            for linear in (layer.output, layer.down):
                center(linear.weight.T, used, idle)
                center(linear.bias[None], used, idle)
            layer.output.weight[:, 8:24] = 0  # heads 1 and 2
            norms += [layer.attention_norm, layer.ffn_norm]
        for norm in norms:
            norm.weight[idle] = norm.bias[idle] = 0
            norm.weight[used] = 1
            norm.bias[used] = 0
        pooler = teacher.bert.pooler.dense
        pooler.weight[::2] = 0  # its outputs are units of the head, not hidden dimensions
        teacher.classifier.weight[:, ::2] = 0
        importance = measure_importance(teacher, rows)
        assert importance.hidden_D[idle].max() == 0 < importance.hidden_D[used].min()
        student = cut_width(teacher, 16, importance)
        norms = [student.bert.embeddings.LayerNorm]
        for layer in layer_parts(student):
            norms += [layer.attention_norm, layer.ffn_norm]
        for norm in norms:
            norm.weight *= shrink
    np.testing.assert_allclose(
        predict_logits(student, rows), predict_logits(teacher, rows), atol=1e-3
    )


def center(values_XD, used, idle):
    """Zero the idle dimensions and the mean of the others."""
    values_XD[:, idle] = 0
    values_XD[:, used] -= values_XD[:, used].mean(dim=1, keepdim=True)


@pytest.mark.parametrize("width", [0, 20, 40, -8])
def test_a_width_that_heads_do_not_fill_is_refused(make_teacher, width):
    importance = Importance(heads=(), neurons=(), hidden_D=np.ones(32), num_heads=4, ffn_width=64)
    with pytest.raises(InputError, match=f"hidden width {width}: give a multiple of .* 8 up to 32"):
        cut_width(make_teacher(num_attention_heads=4), width, importance)


def test_a_pruned_model_is_not_cut_narrower(make_teacher, rows):
    teacher = make_teacher(num_attention_heads=4)
    importance = measure_importance(teacher, rows)
    pruned = prune_model(teacher, plan_pruning(importance, prune_heads=0.5, prune_ffn=0))
    with pytest.raises(InputError, match="cut first, then prune"):
        cut_width(pruned, 16, measure_importance(pruned, rows))


def test_a_student_that_could_not_be_exported_is_refused_before_it_is_trained(
    make_teacher, save_teacher, tokenizer_json, tmp_path
):
    path = save_teacher(tmp_path / "albert", "Albert", embedding_size=16)
    with pytest.raises(
        InputError, match=r"--student .*albert: architecture 'albert' is not one of"
    ):
        load_student(path, make_teacher(), tokenizer_json)


def test_a_pruned_checkpoint_is_a_student_of_its_own_weights(
    make_teacher, save_teacher, tokenizer_json, rows, tmp_path
):
    teacher = make_teacher()
    importance = measure_importance(teacher, rows)
    pruned = prune_model(teacher, plan_pruning(importance, prune_heads=0.5, prune_ffn=0.5))
    path = save_teacher(tmp_path / "pruned")
    pruned.save_pretrained(path)
    student = load_student(path, teacher, tokenizer_json)
    for old, new in zip(pruned.parameters(), student.parameters(), strict=True):
        assert torch.equal(old, new)
