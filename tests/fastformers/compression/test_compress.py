import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers
from fastformers import Scorer, open_bundle
from fastformers.data.examples import Columns
from fastformers.data.splitting import SelectConfig
from fastformers.data.transfer_sample import TransferConfig
from fastformers.errors import ClaimedError, InputError, QualityError, StageError
from fastformers.inference.description.further_graph import choose_graph, graphs_of
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.compression import compress as compress_module  # noqa: E402
from fastformers.compression.artifact import ModelArtifact  # noqa: E402
from fastformers.compression.compress import compress  # noqa: E402
from fastformers.compression.compress_config import CompressConfig  # noqa: E402
from fastformers.compression.recipe_config import (  # noqa: E402
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.search import run_search  # noqa: E402
from fastformers.compression.token_config import TokenConfig  # noqa: E402
from fastformers.compression.transfer_curve import judge_curve  # noqa: E402
from fastformers.jobs import compress as compress_job  # noqa: E402
from fastformers.models.forward import StoppedError, predict_logits  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402
from fastformers.models.training_config import TrainingConfig  # noqa: E402
from fastformers.models.variants.reduced_layers import change_reduction  # noqa: E402
from fastformers.models.variants.token_reduction import TokenReduction  # noqa: E402

FLOAT32 = RecipeConfig(quantize=QuantizeConfig(precision="float32"))
LABELS = ("negative", "neutral", "positive")
CHOOSING = {"select": SelectConfig(share=0.25)}  # 30 of the 120 training rows


@pytest.fixture(scope="module")
def teacher(save_teacher, tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "tiny-bert", labels=LABELS)


@pytest.fixture(scope="module")
def files(teacher, tokenizer_json, make_texts, tmp_path_factory):
    """A training and an evaluation file, labeled by the teacher; every fifth label is wrong."""
    folder = tmp_path_factory.mktemp("files")
    model = load_model(teacher)
    for seed, name in enumerate(("train.parquet", "eval.parquet")):
        texts = make_texts(120, seed=seed)
        rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
        classes_N = predict_logits(model, rows).argmax(axis=1)
        assert len(set(classes_N.tolist())) == 3
        classes_N[::5] = (classes_N[::5] + 1) % 3
        labels = [LABELS[index] for index in classes_N]
        columns = {"text": texts, "pair": texts[::-1], "label": labels}
        pyarrow.parquet.write_table(pa.table(columns), folder / name)
    unlabeled = pa.table({"text": make_texts(60, seed=9)})
    pyarrow.parquet.write_table(unlabeled, folder / "corpus.parquet")
    return folder


@pytest.fixture
def configure(teacher, files, tmp_path):
    def make(**changes):
        paths = {"train": files / "train.parquet", "eval": files / "eval.parquet"}
        return CompressConfig(
            **{"teacher": teacher, **paths, "output": tmp_path / "out" / "bundle", **changes}
        )

    return make


def accuracy_of(scorer, path, *, limit=None):
    columns = pyarrow.parquet.read_table(path).to_pydict()
    pairs = list(zip(columns["text"], columns["pair"], strict=True))
    predicted = scorer.score(pairs if scorer.bundle.text_pairs else columns["text"]).labels
    right = [a == b for a, b in zip(predicted, columns["label"], strict=True)]
    return sum(right) / len(right)


def test_a_compressed_bundle_proves_what_it_says(configure, files):
    seen = []
    recipe = RecipeConfig(trim=TrimConfig(trim_vocabulary=104))
    config = configure(recipe=recipe, max_accuracy_drop=20)
    written = compress(config, on_stage=seen.append).bundle
    bundle = open_bundle(written.path)
    assert bundle == written
    assert (bundle.labels, bundle.max_length, bundle.precision) == (LABELS, 64, "int8")
    assert (bundle.multiply_adds_per_token or 0) > bundle.width**2 > 0
    assert not bundle.text_pairs
    assert bundle.input_names == ("input_ids",)

    names = ["teacher", "trim_vocabulary", "export", "quantize"]
    assert [quality.stage for quality in bundle.stages] == names
    assert list(bundle.stages) == seen
    assert (bundle.stages[0].quality, bundle.stages[0].num_rows) == (0.8, 120)
    assert bundle.stages[2].agreement == 1.0
    assert bundle.stages[3].model_bytes == measure_graph_bytes(bundle.model_path)

    scorer = Scorer(bundle)
    assert accuracy_of(scorer, files / "eval.parquet") == bundle.stages[3].quality
    assert bundle.stages[3].quality >= 0.6

    profile = bundle.cost_profile
    assert (profile.lengths[0], profile.lengths[-1]) == (2, 64)
    assert min(profile.seconds_per_row) > 0
    provenance = bundle.provenance
    assert (provenance["teacher"], provenance["eval"]) == ("tiny-bert", "eval.parquet")
    assert provenance["torch"] == torch.__version__
    assert provenance["transformers"] == transformers.__version__


def test_the_function_of_python_returns_the_bundle_that_is_there(teacher, files, tmp_path):
    places = {"teacher": str(teacher), "output": tmp_path / "bundle"}
    places |= {name: files / f"{name}.parquet" for name in ("train", "eval")}
    result = fastformers.compress(**places, precision="float32", max_length=32, quiet=True)
    assert open_bundle(tmp_path / "bundle") == result.bundle
    assert (result.bundle.precision, result.bundle.max_length) == ("float32", 32)
    assert [quality.stage for quality in result.chosen.qualities] == ["teacher", "export"]
    assert accuracy_of(Scorer(result.bundle), files / "eval.parquet") >= 0.6
    with pytest.raises(InputError, match="--epochs does nothing here: there is no student"):
        fastformers.compress(**places, epochs=3)


def relabel(path, files, **names):
    """The training file with other labels, for both files of a config."""
    table = pyarrow.parquet.read_table(files / "train.parquet")
    labels = [names[label] for label in table["label"].to_pylist()]
    path.mkdir()
    # Two files and no names: what they are together is what counts.
    for part, rows in enumerate((slice(0, 60), slice(60, None))):
        columns = {"text": table["text"].to_pylist()[rows], "label": labels[rows]}
        pyarrow.parquet.write_table(pa.table(columns), path / f"part-{part}.parquet")
    return {"train": path, "eval": path}


def test_stars_of_a_directory_are_classes_and_said_before_any_work(configure, files, tmp_path):
    said = []
    stars = relabel(tmp_path / "stars", files, negative=1, neutral=2, positive=3)
    config = configure(**stars, recipe=FLOAT32)
    result = compress(config, on_labels=said.append, on_stage=lambda q: said.append(q.stage))
    assert result.bundle.stages[0].quality == 0.8
    line, *stages = said
    assert re.fullmatch(
        r"3 classes by place from 1: 'negative' \d+, 'neutral' \d+, 'positive' \d+", line
    )
    assert sum(map(int, re.findall(r"' (\d+)", line))) == 120
    assert stages == ["teacher", "export"]


def test_a_teacher_of_the_hub_and_names_for_its_labels(configure, files, teacher, hub, tmp_path):
    commit = hub.add("org/tiny-bert", teacher)
    said = []
    german = relabel(tmp_path / "g", files, negative="schlecht", neutral="egal", positive="gut")
    names = ("schlecht", "egal", "gut")
    config = configure(
        **german, teacher=Path("org/tiny-bert@main"), label_names=names, recipe=FLOAT32
    )
    bundle = compress(config, on_labels=said.append).bundle
    assert bundle.labels == open_bundle(bundle.path).labels == names
    assert bundle.stages[0].quality == 0.8
    assert bundle.provenance["teacher"] == "org/tiny-bert"
    assert bundle.provenance["teacher_revision"] == commit
    assert bundle.provenance["teacher_labels"] == list(LABELS)
    assert bundle.num_layers == 2
    card = (bundle.path / "README.md").read_text()
    assert "base_model: org/tiny-bert\n" in card and "`schlecht`" in card
    (line,) = said
    assert re.search(r"by name: 'negative' \d+, .*; called 'schlecht', 'egal', 'gut'$", line)


def test_names_for_other_labels_are_refused_before_any_work(configure):
    with pytest.raises(InputError, match="--label-names: 2 names for 3 labels"):
        compress(configure(label_names=("bad,good",)))


def test_a_teacher_below_chance_is_said_and_a_label_map_mends_it(
    configure, files, tmp_path, caplog
):
    wrong = relabel(tmp_path / "wrong", files, negative="B", neutral="C", positive="A")
    (tmp_path / "map.json").write_text('{"A": "negative", "B": "neutral", "C": "positive"}')
    columns = Columns(label_map=tmp_path / "map.json")
    work = tmp_path / "work"
    settings = {"recipe": FLOAT32, "columns": columns, "work": work}
    assert compress(configure(**wrong, **settings)).bundle.stages[0].quality < 1 / 3
    [line] = [line for line in caplog.messages if "the teacher" in line]
    assert re.search(
        r"wrong: the teacher is right for .* than by chance \(33\.3%\).*--label-map", line
    )

    caplog.clear()
    (tmp_path / "map.json").write_text('{"B": "negative", "C": "neutral", "A": "positive"}')
    again = compress(configure(**wrong, **settings, output=tmp_path / "again")).bundle
    assert again.stages[0].quality == 0.8  # kept work is told by what the labels mean
    assert not [line for line in caplog.messages if "the teacher" in line]


def test_a_float_bundle_of_pairs_has_the_logits_of_the_teacher(
    configure, files, teacher, tokenizer_json
):
    recipe = FLOAT32
    config = configure(recipe=recipe, columns=Columns(text_pair="pair"), max_length=32)
    bundle = compress(config).bundle
    assert (bundle.text_pairs, bundle.precision, bundle.max_length) == (True, "float32", 32)
    assert bundle.input_names == ("input_ids", "token_type_ids")
    assert [quality.stage for quality in bundle.stages] == ["teacher", "export"]
    scorer = Scorer(bundle)
    assert accuracy_of(scorer, files / "eval.parquet") == bundle.stages[1].quality

    pairs = [("the cat", "good film"), ("a dog ran fast", "bad " * 60)]
    rows = Tokenizer(tokenizer_json, max_length=32).encode(*zip(*pairs, strict=True))
    expected_NC = predict_logits(load_model(teacher), rows)
    assert scorer.score(pairs).logits_NC == pytest.approx(expected_NC, abs=1e-4)


@pytest.mark.parametrize(
    ("precision", "stages"),
    [("int8-dynamic", ["export", "quantize"]), ("float16", ["export", "float16"])],
)
def test_other_precisions_are_measured_and_recorded(configure, files, precision, stages):
    recipe = RecipeConfig(quantize=QuantizeConfig(precision=precision))
    bundle = compress(configure(recipe=recipe, max_accuracy_drop=20)).bundle
    assert open_bundle(bundle.path).precision == precision
    assert [quality.stage for quality in bundle.stages] == ["teacher", *stages]
    assert bundle.stages[2].model_bytes < 0.7 * bundle.stages[1].model_bytes
    assert bundle.stages[2].agreement >= (1 if precision == "float16" else 0.9)
    if precision == "float16":
        assert accuracy_of(Scorer(bundle), files / "eval.parquet") == bundle.stages[2].quality


def test_two_graphs_are_measured_each_and_chosen_by_name(configure, files):
    both = RecipeConfig(quantize=QuantizeConfig(precision="int8,float16", min_int8_agreement=0))
    config, seen = configure(recipe=both, max_accuracy_drop=50), []
    bundle = compress(config, on_stage=seen.append).bundle
    assert [quality.stage for quality in seen] == ["teacher", "export", "quantize", "float16"]
    opened = open_bundle(bundle.path)
    assert opened.precision == "int8"
    assert {name: path.name for name, path in graphs_of(opened).items()} == {
        "int8": "model.onnx",
        "float16": "float16.onnx",
    }
    assert opened.stages == tuple(seen[:3])
    half = choose_graph(opened, "float16")
    assert half.stages == (*seen[:2], seen[3])
    assert choose_graph(half, "int8") == opened
    assert half.digest != opened.digest
    for one in (opened, half):
        assert accuracy_of(Scorer(one), files / "eval.parquet") == one.stages[-1].quality
    with pytest.raises(InputError, match=r"float32: .* has int8 and float16 alone; make it again"):
        choose_graph(opened, "float32")


def test_each_graph_must_lose_no_more_than_allowed(configure, monkeypatch):
    """The second one loses all: its stage measures the model with its logits turned around."""
    both = RecipeConfig(quantize=QuantizeConfig(precision="int8,float16"))
    config = configure(recipe=both, max_accuracy_drop=30)
    logits = ModelArtifact.logits

    def turned(artifact, examples, *args):
        sign = -1 if artifact.precision == "float16" and len(examples) != 16 else 1
        return sign * logits(artifact, examples, *args)

    monkeypatch.setattr(ModelArtifact, "logits", turned)
    with pytest.raises(QualityError, match=r"float16: accuracy .* points below the teacher's"):
        compress(config)
    assert not config.output.exists()


def test_what_stays_in_float_is_recorded(configure):
    for target, names in ((0, []), (100, ["layer"])):
        recipe = RecipeConfig(quantize=QuantizeConfig(min_int8_agreement=target))
        bundle = compress(configure(recipe=recipe, max_accuracy_drop=100)).bundle
        kept = open_bundle(bundle.path).provenance["float_projections"]
        assert sorted({name[:5] for name in kept}) == names


def test_a_model_that_lost_too_much_is_not_written(configure):
    config = configure(
        max_accuracy_drop=0, recipe=RecipeConfig(prune=PruneConfig(prune_ffn=0.75, prune_epochs=0))
    )
    with pytest.raises(
        QualityError, match=r"quantize: .* more than --max-accuracy-drop 0"
    ) as raised:
        compress(config)
    assert not config.output.exists()
    work = config.output.with_name(".bundle.work")
    assert f"the stages are kept in {work}: the same command with another" in str(raised.value)
    seen = []
    compress(replace(config, max_accuracy_drop=100), on_progress=lambda what, *_: seen.append(what))
    assert seen == []  # nothing is evaluated or trained again


def test_no_more_evaluation_rows_are_used_than_asked_for(configure):
    seen = []
    config = configure(recipe=FLOAT32, eval_limit=10)
    compress(config, on_stage=seen.append)
    assert [quality.num_rows for quality in seen] == [10, 10]


def test_results_of_stages_are_removed_unless_they_were_asked_for(configure, tmp_path):
    config = configure(recipe=FLOAT32)
    compress(config)
    assert [path.name for path in config.output.parent.iterdir()] == ["bundle"]
    compress(replace(config, work=tmp_path / "work"))
    assert any((tmp_path / "work").glob("export-*/model.onnx"))


TRAINING = TrainingConfig(epochs=2, learning_rate=1e-3, batch_rows=16)


def test_a_student_is_distilled_pruned_and_quantized(configure, files):
    seen = []
    recipe = RecipeConfig(
        student=StudentConfig(student_layers=1),
        prune=PruneConfig(prune_heads=0.5, prune_ffn=0.5, prune_rounds=2, prune_epochs=1),
        distill=DistillConfig(training=TRAINING),
    )
    transfer = TransferConfig(corpus=str(files / "corpus.parquet"), rows=40)
    config = configure(recipe=recipe, max_accuracy_drop=100, transfer=transfer)
    bundle = compress(config, on_progress=lambda what, *steps: seen.append(what)).bundle
    names = ["teacher", "distill", "prune", "export", "quantize"]
    assert [quality.stage for quality in bundle.stages] == names
    teacher, distilled, pruned, _, quantized = (one.model_bytes for one in bundle.stages)
    assert teacher > distilled > pruned > quantized
    assert {"evaluate", "teacher", "distill", "importance"} <= set(seen)
    assert accuracy_of(Scorer(bundle), files / "eval.parquet") == bundle.stages[-1].quality
    provenance = bundle.provenance
    assert provenance["recipe"] == "1 layers, -50% heads, -50% FFN, int8"
    assert (provenance["transfer"], provenance["transfer_texts"]) == ("corpus.parquet", 40)


def test_a_pooled_student_that_drops_tokens_is_what_its_graph_computes(
    configure, save_teacher, files, tmp_path
):
    teacher = save_teacher(tmp_path / "teacher", labels=LABELS, num_hidden_layers=4)
    recipe = RecipeConfig(
        student=StudentConfig(student_layers=3, pool_tokens=2),
        tokens=TokenConfig(keep_tokens=("auto",), token_epochs=1, min_token_agreement=80),
        distill=DistillConfig(training=TRAINING),
    )
    config = configure(
        teacher=teacher, recipe=recipe, max_accuracy_drop=100, work=tmp_path / "work"
    )
    seen = []
    bundle = compress(config, on_progress=lambda what, *steps: seen.append(what)).bundle
    names = ["teacher", "distill", "keep_tokens", "export", "quantize"]
    assert [quality.stage for quality in bundle.stages] == names
    assert bundle.stages[3].agreement == bundle.stages[2].agreement
    assert accuracy_of(Scorer(bundle), files / "eval.parquet") == bundle.stages[-1].quality
    first, second = bundle.provenance["keep_tokens"]
    assert (first, second < 1) == (1.0, True)
    assert bundle.provenance["recipe"] == "3 layers, mean of 2 tokens, tokens auto, int8"
    assert "token shares" in seen
    seen.clear()
    again = replace(config, output=tmp_path / "again")
    compress(again, on_progress=lambda what, *steps: seen.append(what))
    assert not {"distill", "token shares"} & set(seen)


def test_a_bundle_of_a_model_that_drops_tokens_already_needs_no_training(
    configure, save_teacher, tmp_path
):
    teacher = save_teacher(tmp_path / "teacher", labels=LABELS)
    model = load_model(teacher)
    change_reduction(model, TokenReduction(keep_shares=(0.5,)))
    model.save_pretrained(teacher)
    bundle = compress(configure(teacher=teacher, recipe=FLOAT32)).bundle
    assert bundle.stages[1].agreement == 1
    assert bundle.provenance["keep_tokens"] == [0.5]
    pruning = RecipeConfig(prune=PruneConfig(prune_heads=0.5))
    with pytest.raises(InputError, match="teacher: drops tokens already"):
        compress(configure(teacher=teacher, recipe=pruning))


def test_a_student_of_static_vectors_is_a_bundle_as_any_other(configure, files):
    recipe = RecipeConfig(
        student=StudentConfig(student_layers=0, student_width=16),
        quantize=QuantizeConfig(precision="int8,float16"),
    )
    transfer = TransferConfig(corpus=str(files / "corpus.parquet"), rows=40)
    config = configure(recipe=recipe, max_accuracy_drop=100, transfer=transfer)
    bundle = compress(config).bundle
    assert [quality.stage for quality in bundle.stages] == [
        *("teacher", "distill", "export", "quantize")
    ]
    assert bundle.provenance["recipe"] == "static vectors, 16 wide, int8,float16"
    assert (bundle.num_layers, bundle.width, bundle.multiply_adds_per_token) == (0, 16, 16)
    assert bundle.provenance["float_projections"] == []
    assert bundle.further_graphs[0].quality.agreement == bundle.stages[2].agreement
    assert (
        accuracy_of(Scorer(open_bundle(bundle.path)), files / "eval.parquet")
        == bundle.stages[-1].quality
    )


@pytest.fixture
def only_layers(monkeypatch):
    """A search of layers and pruning: static vectors would pass wherever all may be lost."""
    space_of = run_search._search_space
    less = {"can_be_static": False, "can_drop_tokens": False}
    monkeypatch.setattr(
        run_search,
        "_search_space",
        lambda *given, **options: replace(space_of(*given, **options), **less),
    )


def test_a_search_ends_where_static_vectors_pass(configure):
    recipe = RecipeConfig(distill=DistillConfig(training=TRAINING))
    result = compress(configure(recipe=recipe, **CHOOSING, search=True, max_accuracy_drop=100))
    assert [one.name for one in result.candidates] == ["teacher, int8", "static vectors, int8"]
    assert result.selected is result.candidates[1]
    assert open_bundle(result.bundle.path).num_layers == 0


def test_a_search_takes_the_cheapest_that_passes_and_trains_nothing_twice(
    configure, only_layers, files, tmp_path
):
    recipe = RecipeConfig(
        distill=DistillConfig(training=TRAINING), prune=PruneConfig(prune_epochs=1)
    )
    config = configure(
        recipe=recipe, **CHOOSING, search=True, max_accuracy_drop=100, work=tmp_path / "work"
    )
    result = compress(config)
    names = [candidate.name for candidate in result.candidates]
    assert names == [
        "teacher, int8",
        "1 layers, int8",
        "1 layers, -42% heads, -67% FFN, int8",
        "1 layers, -50% heads, -75% FFN, int8",
    ]
    assert result.chosen.seconds_per_million == min(
        candidate.seconds_per_million for candidate in result.candidates
    )
    teacher_bytes = measure_graph_bytes(result.candidates[0].artifact.graph)
    assert result.bundle.stages[-1].model_bytes < teacher_bytes

    # Candidates are of the rows that choose, the bundle is of those that chose nothing.
    assert result.selected in result.candidates
    assert {one.quality.num_rows for one in result.candidates} == {30}
    assert [stage.num_rows for stage in result.bundle.stages] == [120] * 5
    assert result.bundle.stages == result.chosen.qualities
    accuracy = accuracy_of(Scorer(result.bundle), files / "eval.parquet")
    assert result.bundle.quality.quality == accuracy
    assert result.chosen.certainty.interval[0] <= accuracy <= result.chosen.certainty.interval[1]
    provenance = result.bundle.provenance
    assert (provenance["select"], provenance["select_rows"]) == ("train.parquet", 30)
    assert provenance["chosen_on_select"] == ["the recipe", "what is in int8"]
    assert provenance["select_quality"] == result.selected.quality.quality
    texts = [{*examples.texts} for examples in (result.split.train, result.split.select)]
    assert texts[0].isdisjoint(texts[1]) and provenance["train_rows"] == 90

    trained = []
    again = compress(config, on_progress=lambda what, *steps: trained.append(what))
    assert "distill" not in trained
    for one, other in zip(again.candidates, result.candidates, strict=True):
        assert one.qualities == other.qualities
        assert one.cost_profile == other.cost_profile or other.cost_profile.is_rough
        assert one.certainty.drop_interval == other.certainty.drop_interval
        low, high = one.certainty.drop_interval
        assert low <= one.drop <= high


def test_a_search_without_time_keeps_int8_of_the_teacher_and_says_what_it_left_out(configure):
    result = compress(configure(**CHOOSING, search=True, max_accuracy_drop=50, max_hours=1e-6))
    assert [candidate.name for candidate in result.candidates] == ["teacher, int8"]
    names = [(left.name, left.why) for left in result.left_out]
    assert ("1 layers, int8", "no time") in names
    assert min(left.predicted_s for left in result.left_out) > 0
    assert compress_job._summary(result)["select_drop_points"] == result.selected.drop


def test_a_training_that_would_end_too_late_goes_on_in_the_next_search(configure, tmp_path):
    """The first search is stopped in its first step, the second takes its checkpoint up."""

    def stop(what, done, total):
        if what == "distill":
            raise StoppedError(what)

    recipe = RecipeConfig(
        student=StudentConfig(student_layers=1), distill=DistillConfig(training=TRAINING)
    )
    config = configure(recipe=recipe, max_accuracy_drop=100, work=tmp_path / "work")
    with pytest.raises(StoppedError):
        compress(config, on_progress=stop)
    steps = []
    compress(config, on_progress=lambda what, done, total: steps.append((what, done)))
    assert min(done for what, done in steps if what == "distill") == 2


def test_a_search_goes_no_further_than_what_passes(configure, only_layers, monkeypatch):
    from fastformers.compression.quality import QualityGate

    def passes_if_large(self, quality):
        return quality.model_bytes > smallest_allowed

    monkeypatch.setattr(QualityGate, "passes", passes_if_large, raising=False)
    recipe = RecipeConfig(
        distill=DistillConfig(training=TRAINING),
        prune=PruneConfig(prune_epochs=0),
    )
    smallest_allowed = 0
    whole = compress(configure(recipe=recipe, **CHOOSING, search=True, max_accuracy_drop=100))
    sizes = [candidate.qualities[-1].model_bytes for candidate in whole.candidates]
    smallest_allowed = sizes[1]  # a student of one layer is too small already
    result = compress(configure(recipe=recipe, **CHOOSING, search=True, max_accuracy_drop=100))
    names = [candidate.name for candidate in result.candidates]
    assert names[1:3] == ["1 layers, int8", "teacher, -42% heads, -67% FFN, int8"]
    assert result.chosen.passes

    smallest_allowed = 10**9
    with pytest.raises(QualityError, match="of the teacher itself loses more than"):
        compress(configure(recipe=recipe, **CHOOSING, search=True, max_accuracy_drop=100))


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("Bert", {}),
        ("Roberta", {"max_position_embeddings": 66, "pad_token_id": 1}),  # two of them never used
        ("MPNet", {"max_position_embeddings": 66}),
        ("DebertaV2", {"relative_attention": True, "pos_att_type": "p2c|c2p"}),
        ("ModernBert", {"local_attention": 8, "pad_token_id": 0}),
    ],
)
def test_without_a_length_the_model_says_how_long_a_text_may_be(
    configure, save_teacher, tmp_path, architecture, shape
):
    path = save_teacher(tmp_path / "teacher", architecture, labels=LABELS, **shape)
    long_texts = {"text": ["cat " * 200, "dog " * 200], "label": ["neutral", "positive"]}
    pyarrow.parquet.write_table(pa.table(long_texts), tmp_path / "long.parquet")
    long_file = tmp_path / "long.parquet"
    recipe = FLOAT32
    config = configure(teacher=path, train=long_file, eval=long_file, recipe=recipe)
    bundle = compress(config).bundle
    assert bundle.max_length == 64


@pytest.fixture
def trained(monkeypatch):
    """Names of what trained, in the order of that."""
    from fastformers.compression.stages import model_stages, reducing_stages

    names = []

    def distill_from(artifact, student, **options):
        names.append(options["directory"].name.partition("-")[0])
        return student

    for module in (model_stages, reducing_stages):
        monkeypatch.setattr(module, "distill_from", distill_from)
    return names


def test_a_student_larger_than_its_teacher_is_refused_before_it_is_trained(
    configure, save_teacher, trained, tmp_path
):
    larger = save_teacher(tmp_path / "larger", num_hidden_layers=3)
    recipe = RecipeConfig(student=StudentConfig(student=larger))
    with pytest.raises(StageError, match="the student is larger than its teacher"):
        compress(configure(recipe=recipe))
    assert trained == []


def test_the_new_head_of_a_checkpoint_is_that_of_the_seed(
    configure, save_teacher, trained, tmp_path
):
    own = save_teacher(tmp_path / "own", encoder_only=True, num_hidden_layers=1)
    heads = []
    for number, seed in enumerate((0, 0, 1)):
        torch.rand(7)  # as a stage before it may have drawn
        training = replace(DistillConfig.training, seed=seed)
        recipe = replace(
            FLOAT32, student=StudentConfig(student=own), distill=DistillConfig(training=training)
        )
        config = configure(recipe=recipe, output=tmp_path / str(number), max_accuracy_drop=100)
        heads.append(compress(config).chosen.artifact.model.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_recipe_that_loses_too_much_has_no_curve(configure, files, trained):
    recipe = RecipeConfig(student=StudentConfig(student_layers=1))
    transfer = TransferConfig(corpus=str(files / "corpus.parquet"))
    config = configure(recipe=recipe, transfer=transfer, transfer_curve=True, max_accuracy_drop=0)
    with pytest.raises(QualityError, match="below the teacher's"):
        compress(config, on_point=lambda point: pytest.fail("a point"))
    assert trained == ["distill"]
    curve = compress(replace(config, max_accuracy_drop=100)).curve
    assert trained == ["distill"] * 4
    assert [point.num_texts for point in curve] == [0, 14, 29, 58]
    assert "within noise" in judge_curve(curve)  # none of these students has learned anything


def test_a_length_beyond_the_models_positions_is_refused(configure, tmp_path):
    pyarrow.parquet.write_table(
        pa.table({"text": ["cat " * 200], "label": ["neutral"]}), tmp_path / "long.parquet"
    )
    with pytest.raises(InputError, match="--max-length 65: the teacher has 64 positions"):
        compress(configure(eval=tmp_path / "long.parquet", max_length=65))


def kept_stages(configure, work, **changes):
    """Names of the results that a run adds to what is kept."""
    before = {path.name for path in work.glob("export-*")}
    compress(configure(recipe=FLOAT32, work=work, output=work.parent / "other", **changes))
    shutil.rmtree(work.parent / "other")
    return {path.name for path in work.glob("export-*")} - before


def test_kept_work_is_that_of_the_same_weights_and_labels(
    configure, save_teacher, make_teacher, files, tmp_path
):
    teacher = save_teacher(tmp_path / "retrained", labels=LABELS)
    (teacher / "model.safetensors").unlink()
    weights = make_teacher(labels=LABELS).state_dict()
    torch.save(weights, teacher / "pytorch_model.bin")
    work = tmp_path / "work"
    assert len(kept_stages(configure, work, teacher=teacher)) == 1
    assert kept_stages(configure, work, teacher=teacher) == set()

    weights["classifier.bias"] += 1
    torch.save(weights, teacher / "pytorch_model.bin")
    assert len(kept_stages(configure, work, teacher=teacher)) == 1

    table = pyarrow.parquet.read_table(files / "train.parquet").to_pydict()
    table["label"] = table["label"][::-1]
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "train.parquet")
    assert len(kept_stages(configure, work, teacher=teacher, train=tmp_path / "train.parquet")) == 1


def test_kept_work_is_that_of_the_same_libraries(configure, monkeypatch, tmp_path):
    assert len(kept_stages(configure, tmp_path / "work")) == 1
    newer = compress_module.library_versions() | {"torch": "99.0"}
    monkeypatch.setattr(compress_module, "library_versions", lambda: newer)
    assert len(kept_stages(configure, tmp_path / "work")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"student": StudentConfig(student_layers=1)},
        {"prune": PruneConfig(prune_ffn=0.5)},
    ],
    ids=["student", "pruning"],
)
def test_what_an_architecture_cannot_lose_is_refused_at_once(
    configure, save_teacher, tmp_path, changes
):
    path = save_teacher(tmp_path / "teacher", "MPNet", labels=LABELS, max_position_embeddings=66)
    config = configure(teacher=path, recipe=RecipeConfig(**changes))
    with pytest.raises(InputError, match="architecture 'mpnet' can be neither pruned nor cut"):
        compress(config, on_stage=lambda quality: pytest.fail("worked"))


@pytest.mark.parametrize("inside", ["output", "teacher", "output/work", "teacher/work"])
def test_work_in_what_is_replaced_or_names_it_is_refused_before_any_work(
    configure, teacher, tmp_path, inside
):
    place, *rest = inside.split("/")
    output = tmp_path / "bundle"
    work = Path({"output": output, "teacher": teacher}[place], *rest)
    with pytest.raises(InputError, match=rf"--work {work}: lies in --{place} "):
        compress(
            configure(output=output, work=work), on_stage=lambda quality: pytest.fail("worked")
        )
    assert not work.exists() or work == teacher


def test_another_run_of_the_same_output_is_refused_and_the_first_one_goes_on(configure):
    refused = []

    def begin(quality):
        with pytest.raises(ClaimedError, match=r"--output .*bundle: another run works on it"):
            compress(config, on_stage=lambda quality: pytest.fail("worked"))
        refused.append(quality.stage)

    config = configure(recipe=FLOAT32)
    bundle = compress(config, on_stage=begin).bundle
    assert refused == ["teacher", "export"]
    assert list(bundle.path.parent.iterdir()) == [bundle.path]


def test_an_output_that_is_no_bundle_is_refused_before_any_work(configure, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        compress(configure(output=tmp_path), on_stage=lambda quality: pytest.fail("worked"))


def test_a_teacher_without_tokenizer_is_refused(configure, make_teacher, tmp_path):
    make_teacher(labels=LABELS).save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match=r"bare: has no tokenizer\.json"):
        compress(configure(teacher=tmp_path / "bare", max_accuracy_drop=100))


def test_another_label_is_named(configure, tmp_path):
    columns = {"text": ["the cat", "a dog"], "label": ["neutral", "indifferent"]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet: label 'indifferent' is not one of"):
        compress(configure(eval=tmp_path / "other.parquet"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_accuracy_drop": -0.5}, "--max-accuracy-drop -0.5: give at least 0"),
        ({"max_length": 3}, "--max-length 3: give at least 4"),
        ({"eval_limit": 0}, "--eval-limit 0: give at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(configure, changes, message):
    with pytest.raises(InputError, match=message):
        configure(**changes)
