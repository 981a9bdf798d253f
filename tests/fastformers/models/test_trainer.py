import pytest

torch = pytest.importorskip("torch")

from fastformers.models.trainer import fastest_attention  # noqa: E402


@pytest.mark.parametrize(("mean_length", "expected"), [(16.0, "eager"), (300.0, "sdpa")])
def test_short_rows_train_without_the_fused_attention(
    make_teacher, monkeypatch, mean_length, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = make_teacher()
    with fastest_attention(model, mean_length):
        assert model.config._attn_implementation == expected
    assert model.config._attn_implementation == "sdpa"


def test_a_gpu_keeps_the_fused_attention(make_teacher, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = make_teacher()
    with fastest_attention(model, 16.0):
        assert model.config._attn_implementation == "sdpa"


def test_attention_itself_needs_the_plain_kind(make_teacher):
    model = make_teacher()
    with fastest_attention(model, 300.0, with_maps=True):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "sdpa"
