import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fastformers.errors import InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402

from fastformers.models.loading import load_model, load_tokenizer  # noqa: E402
from fastformers.models.model_files import digest_checkpoint  # noqa: E402

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture
def teacher(save_teacher, tmp_path):
    return save_teacher(tmp_path / "teacher", labels=("a", "b", "c"))


def change_config(path, **fields):
    config = json.loads((path / "config.json").read_text())
    config.pop("label2id", None)
    (path / "config.json").write_text(json.dumps({**config, **fields}))


def save_as_bin(path):
    torch.save(load_model(path).state_dict(), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def cut_short(file, size):
    file.write_bytes(file.read_bytes()[:size])


BROKEN = {
    "pointer to weights": (
        lambda path: (path / "model.safetensors").write_bytes(POINTER),
        r"model\.safetensors: a Git LFS pointer .* `git lfs pull`",
    ),
    "pointer to a configuration": (
        lambda path: (path / "config.json").write_bytes(POINTER),
        r"config\.json: a Git LFS pointer",
    ),
    "weights cut short": (
        lambda path: cut_short(path / "model.safetensors", 50_000),
        r"model\.safetensors: has 50,000 of [\d,]+ bytes, as if a download was cut short",
    ),
    "weights cut short in the header": (
        lambda path: cut_short(path / "model.safetensors", 100),
        r"model\.safetensors: not a safetensors file, or cut short",
    ),
    "no byte of weights": (
        lambda path: (path / "model.safetensors").write_bytes(b""),
        r"model\.safetensors: not a safetensors file",
    ),
    "old weights cut short": (
        lambda path: (save_as_bin(path), cut_short(path / "pytorch_model.bin", 9000)),
        r"pytorch_model\.bin: not a PyTorch file, or cut short",
    ),
    "a shard is missing": (
        lambda path: (path / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}})
        ),
        r"index\.json: lists model-00002-of-00002\.safetensors, which is not there",
    ),
    "configuration cut short": (
        lambda path: cut_short(path / "config.json", 40),
        r"config\.json: not JSON, or cut short",
    ),
    "configuration of another size": (
        lambda path: change_config(path, hidden_size=64),
        r"config\.json: describes another model than the weights: bert\.\S+ is \(.*32.*\) there",
    ),
    "classes from 1": (
        lambda path: change_config(path, id2label={"1": "a", "2": "b", "3": "c"}),
        r"config\.json: id2label has the keys 1, 2, 3; give an object",
    ),
    "classes with a gap": (
        lambda path: change_config(path, id2label={"0": "a", "1": "b", "3": "c"}),
        r"config\.json: id2label has the keys 0, 1, 3",
    ),
    "classes in a list": (
        lambda path: change_config(path, id2label=["a", "b", "c"]),
        r"config\.json: id2label is a list; give an object",
    ),
    "fewer classes": (
        lambda path: change_config(path, id2label={"0": "a", "1": "b"}),
        r"config\.json: describes another .*: classifier\.bias is \(3,\) there and \(2,\) by .*"
        r"id2label has a name for each of 2 outputs",
    ),
    "8 bits": (
        lambda path: change_config(path, quantization_config={"quant_method": "bitsandbytes"}),
        r"config\.json: quantization_config says .* \(bitsandbytes\)",
    ),
    "a decoder": (lambda path: change_config(path, is_decoder=True), "teacher: is_decoder"),
    "another activation": (
        lambda path: change_config(path, hidden_act="silu"),
        "teacher: hidden activation 'silu' is not one of gelu, relu, tanh",
    ),
    "relative positions": (
        lambda path: change_config(path, position_embedding_type="relative_key"),
        "teacher: position_embedding_type 'relative_key'",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_directory_is_one_line_that_names_the_file(teacher, kind):
    damage, message = BROKEN[kind]
    damage(teacher)
    with pytest.raises(InputError, match=message) as raised:
        load_model(teacher)
    assert str(teacher) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "a Git LFS pointer"),
        (b"{", "cannot be read: Exception"),
        (b'{"version": "2.0", "model": {"type": "Trie"}}', "cannot be read: Exception"),
    ],
    ids=["pointer", "cut short", "another version"],
)
def test_a_broken_tokenizer_is_one_line_that_names_its_file(teacher, content, message):
    (teacher / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"^{teacher}/tokenizer\.json: {message}"):
        load_tokenizer(teacher)


def test_whole_directories_of_any_kind_are_read(teacher):
    expected = load_model(teacher).state_dict()
    load_model(teacher).save_pretrained(teacher, max_shard_size="50KB")
    assert len([*teacher.glob("model-*.safetensors")]) > 1
    (teacher / "model.safetensors").unlink(missing_ok=True)
    for name, weight in load_model(teacher).state_dict().items():
        assert torch.equal(weight, expected[name])


def test_the_digest_of_a_directory_holds_every_file_and_its_name(teacher):
    seen = {tuple(digest_checkpoint(teacher))}
    for change in (
        lambda: (teacher / "vocab.txt").write_text("a"),
        lambda: (teacher / "vocab.txt").rename(teacher / "merges.txt"),
        lambda: (teacher / "1_Pooling").mkdir(),
        lambda: (teacher / "1_Pooling" / "config.json").write_text("{}"),
        lambda: (teacher / "adapter_model.safetensors").write_bytes(b"1"),
    ):
        change()
        seen.add(tuple(digest_checkpoint(teacher)))
    assert len(seen) == 5  # an empty folder changes nothing
    (teacher / ".cache").mkdir()
    (teacher / ".cache" / "lock").write_text("")
    assert tuple(digest_checkpoint(teacher)) in seen


@pytest.fixture
def adapter(teacher, tmp_path):
    """An adapter with a head of its own on the teacher's encoder, as peft saves it."""
    path = tmp_path / "adapter"
    path.mkdir()
    fields = {"base_model_name_or_path": "../teacher", "peft_type": "LORA"}
    (path / "adapter_config.json").write_text(json.dumps(fields))
    weights = {
        "base_model.model.classifier.weight": torch.zeros(4, 32),
        "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight": torch.zeros(
            2, 32
        ),
    }
    save_file(weights, path / "adapter_model.safetensors")
    return path


def test_an_adapter_is_merged_by_peft(adapter, teacher, monkeypatch):
    class PeftModel:
        @staticmethod
        def from_pretrained(model, path):
            assert path == adapter
            model.classifier.bias.data.fill_(7.0)
            return SimpleNamespace(merge_and_unload=lambda: model)

    module = SimpleNamespace(PeftModel=PeftModel, __spec__=SimpleNamespace(name="peft"))
    monkeypatch.setitem(sys.modules, "peft", module)
    model = load_model(adapter)
    assert model.config.num_labels == 4
    np.testing.assert_array_equal(model.classifier.bias.detach(), [7.0] * 4)
    assert load_tokenizer(adapter) == load_tokenizer(teacher)


@pytest.mark.skipif("peft" in sys.modules, reason="peft is installed")
def test_an_adapter_that_cannot_be_read_says_why(adapter):
    with pytest.raises(InputError, match=r"adapter_config\.json: an adapter of .*pip install peft"):
        load_model(adapter)
    fields = {"base_model_name_or_path": "some/model"}
    (adapter / "adapter_config.json").write_text(json.dumps(fields))
    message = "adapter_config.json: an adapter of 'some/model', which is no directory here"
    with pytest.raises(InputError, match=re.escape(message)):
        load_model(adapter)
