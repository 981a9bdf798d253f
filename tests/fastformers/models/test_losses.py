import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastformers.inference.tasks import (  # noqa: E402
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TASKS,
    TEXT_CLASSIFICATION,
)
from fastformers.models.losses import DISTILLABLE_TASKS, confidence, hard_loss, soft_loss  # noqa: E402

OUTPUTS_BC = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]])


@pytest.mark.parametrize("task", DISTILLABLE_TASKS, ids=str)
def test_the_soft_loss_of_a_row_is_least_at_the_teachers_own_answer(task):
    """Each row has its own loss: another answer to the first changes nothing for the second."""
    teacher_BC = OUTPUTS_BC[:, :1] if task == REGRESSION else OUTPUTS_BC
    outputs_BC = teacher_BC.clone().requires_grad_()
    equal_B = soft_loss(outputs_BC, teacher_BC, task, temperature=2.0)
    (gradient_BC,) = torch.autograd.grad(equal_B.sum(), outputs_BC)
    np.testing.assert_allclose(gradient_BC, 0, atol=1e-6)
    if task != MULTI_LABEL_CLASSIFICATION:  # its minimum is the entropy of the teacher's answer
        np.testing.assert_allclose(equal_B.detach(), 0, atol=1e-6)
    other_BC = teacher_BC.clone()
    other_BC[0, 0] += 0.5
    other_B = soft_loss(other_BC, teacher_BC, task, temperature=2.0)
    assert other_B.shape == (2,)
    assert other_B[0] > equal_B[0] + 1e-3
    assert other_B[1] == equal_B[1]


@pytest.mark.parametrize("task", [TEXT_CLASSIFICATION, MULTI_LABEL_CLASSIFICATION])
def test_the_soft_loss_keeps_its_gradient_at_any_temperature(task):
    def gradient(temperature):
        outputs_BC = OUTPUTS_BC + 0.01
        outputs_BC[0, 0] += 0.2
        outputs_BC.requires_grad_()
        soft_loss(outputs_BC, OUTPUTS_BC, task, temperature=temperature).sum().backward()
        return outputs_BC.grad.norm()

    assert 0.8 < float(gradient(8.0) / gradient(4.0)) < 1.3


def test_embeddings_are_compared_by_direction_alone():
    loss_B = soft_loss(3 * OUTPUTS_BC, OUTPUTS_BC, EMBEDDING, temperature=2.0)
    np.testing.assert_allclose(loss_B, 0, atol=1e-6)
    opposite_B = soft_loss(-OUTPUTS_BC, OUTPUTS_BC, EMBEDDING, temperature=2.0)
    np.testing.assert_allclose(opposite_B, 2, atol=1e-6)


def test_the_hard_loss_is_the_negative_logarithm_of_the_likelihood():
    probabilities_BC = OUTPUTS_BC.softmax(dim=1)
    expected_B = -probabilities_BC[[0, 1], [2, 0]].log()
    loss_B = hard_loss(OUTPUTS_BC, torch.tensor([2, 0]), TEXT_CLASSIFICATION)
    np.testing.assert_allclose(loss_B, expected_B, rtol=1e-6)

    targets_BC = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    likelihoods_BC = torch.where(targets_BC == 1, OUTPUTS_BC.sigmoid(), (-OUTPUTS_BC).sigmoid())
    loss_B = hard_loss(OUTPUTS_BC, targets_BC, MULTI_LABEL_CLASSIFICATION)
    np.testing.assert_allclose(loss_B, -likelihoods_BC.log().sum(dim=1), rtol=1e-6)

    loss_B = hard_loss(OUTPUTS_BC[:, :1], torch.tensor([0.5, 1.1]), REGRESSION)
    np.testing.assert_allclose(loss_B, [2.25, 1.0], rtol=1e-6)


def test_what_all_classes_share_says_nothing_but_what_all_labels_share_does():
    alike_BC = torch.full((2, 3), 2.0)
    np.testing.assert_allclose(confidence(alike_BC, TEXT_CLASSIFICATION), 0)
    np.testing.assert_allclose(confidence(alike_BC, MULTI_LABEL_CLASSIFICATION), 6)
    np.testing.assert_allclose(confidence(alike_BC[:, :1], REGRESSION), 2)


def test_all_but_the_choice_of_a_question_can_be_distilled():
    assert set(TASKS.values()) - set(DISTILLABLE_TASKS) == {MULTIPLE_CHOICE}
