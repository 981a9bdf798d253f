import pytest

torch = pytest.importorskip("torch")

from safetensors import SafetensorError  # noqa: E402

from fastformers.errors import StorageError  # noqa: E402
from fastformers.models.trainer import _full_disk_in_one_line, fastest_attention  # noqa: E402


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


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 9 vs 8"),
        RuntimeError("basic_ios::clear: iostream error"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_that_names_the_directory(tmp_path, error):
    with (
        pytest.raises(StorageError, match=f"{tmp_path}: no room"),
        _full_disk_in_one_line(tmp_path),
    ):
        raise error


def test_other_errors_of_training_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), _full_disk_in_one_line(tmp_path):
        raise RuntimeError("shapes cannot be multiplied")
