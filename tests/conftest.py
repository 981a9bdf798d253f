"""Fixtures of all tests: a tiny bundle of random weights, files of rows and a run's report.

The bundle is made in a second, without network, training or torch.
"""

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import settings
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors

from fastformers.cache import CACHE_VARIABLE
from fastformers.cluster.records.audit import AuditQuality, AuditReport, Estimate
from fastformers.cluster.records.quality import LabelQuality, Quality
from fastformers.cluster.records.quotes import EarlyQuote, Quote
from fastformers.cluster.records.sessions import Session, Spent
from fastformers.cluster.report.bill import HEADINGS, Bill, BillItem, Prediction
from fastformers.cluster.report.over_time import (
    KindReport,
    NodeReport,
    TimelineEntry,
    TokensOverTime,
)
from fastformers.cluster.report.run_report import (
    ActorReport,
    BundleUsed,
    Energy,
    PhaseSeconds,
    RunReport,
    TypeCost,
)
from fastformers.export.encoder import (
    EncoderWeights,
    Head,
    Layer,
    Linear,
    Norm,
    count_multiply_adds,
)
from fastformers.export.graph import write_graph
from fastformers.inference.bundle import Bundle, write_bundle
from fastformers.inference.cascade.record import Cascade, ShareByLength, expected_profile
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.cpu import read_cpu_model
from fastformers.inference.description.further_graph import FurtherGraph
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.tasks import TASKS
from tests.cluster.s3 import s3_process, s3_server  # noqa: F401
from tests.hub_server import HubServer, serve_hub

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# A time limit per example would fail on a busy machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

MEMORY_POOL = pa.default_memory_pool()
WORDS = [
    *("the", "a", "of", "to", "and", "in", "is", "it", "on", "cat", "dog"),
    *("sat", "mat", "ran", "fast", "slow", "good", "bad", "film", "text"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def make_tokenizer_json() -> str:
    """A WordPiece tokenizer of 20 words, the letters and the digits."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    pieces = [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = HfTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer.to_str()


def make_encoder(
    *,
    vocabulary: int = 128,
    width: int = 32,
    num_layers: int = 2,
    num_heads: int = 2,
    classes: int = 2,
    max_length: int = 64,
) -> EncoderWeights:
    """A classifier of random weights, the same ones each time."""
    rng, rng_of_tokens = np.random.default_rng(0), np.random.default_rng(1)

    def floats(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def linear(inputs: int, outputs: int) -> Linear:
        return Linear(weight=floats(inputs, outputs), bias=floats(outputs))

    def norm() -> Norm:
        return Norm(weight=1 + floats(width), bias=floats(width), epsilon=1e-12)

    return EncoderWeights(
        max_length=max_length,
        token_embeddings_VE=floats(vocabulary, width),
        position_embeddings_PE=floats(max_length, width),
        token_types_KE=floats(2, width),
        embedding_norm=norm(),
        projection=None,
        activation="gelu",
        layers=tuple(
            Layer(
                num_heads=num_heads,
                query=linear(width, width),
                key=linear(width, width),
                value=linear(width, width),
                output=linear(width, width),
                attention_norm=norm(),
                up=linear(width, 2 * width),
                down=linear(2 * width, width),
                ffn_norm=norm(),
                significance_D=rng_of_tokens.standard_normal(width).astype(np.float32),
            )
            for _ in range(num_layers)
        ),
        head=Head(hidden=linear(width, width), activation="tanh", output=linear(width, classes)),
    )


def make_bundle(
    path: Path,
    *,
    task: str = "text-classification",
    text_pairs: bool = False,
    labels: tuple[str, ...] = ("no", "yes"),
    num_outputs: int | None = None,
    **shape: int,
) -> Bundle:
    """Write a bundle of random weights; `vocabulary` below 128 leaves words without embedding."""
    model = path.parent / f"{path.name}.graph" / "model.onnx"
    model.parent.mkdir()
    num_outputs = num_outputs or len(labels)
    encoder = make_encoder(classes=num_outputs, **shape)
    write_graph(encoder, model, text_pairs=text_pairs)
    bundle = Bundle(
        path=path,
        task=TASKS[task],
        labels=labels,
        num_outputs=num_outputs,
        max_length=encoder.max_length,
        text_pairs=text_pairs,
        input_names=("input_ids", "token_type_ids") if text_pairs else ("input_ids",),
        precision="float32",
        multiply_adds_per_token=count_multiply_adds(encoder),
        width=encoder.width,
        stages=(
            StageQuality(
                stage="teacher", quality=0.5, agreement=1.0, num_rows=2, model_bytes=1, seconds=0.0
            ),
        ),
        provenance={"teacher": "random"},
        cost_profile=CostProfile(
            engine=f"onnxruntime {onnxruntime.__version__}",  # of this machine: no run measures
            cpu_model=read_cpu_model(),
            max_batch_tokens=256,
            lengths=(2, 64),
            seconds_per_row=(1e-4, 1e-3),
        ),
        files={},
    )
    return write_bundle(bundle, model=model, tokenizer_json=make_tokenizer_json())


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache of this session alone: no test reads or writes the user's own."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(path))
        yield path


@pytest.fixture(autouse=True)
def own_memory_pool() -> Iterator[None]:
    """Put Arrow's memory pool back: a worker in this process sets another one for it."""
    yield
    pa.set_memory_pool(MEMORY_POOL)


@pytest.fixture(scope="session")
def bundle_factory() -> Callable[..., Bundle]:
    """The function `make_bundle`, for bundles of another shape."""
    return make_bundle


@pytest.fixture(scope="session")
def encoder_factory() -> Callable[..., EncoderWeights]:
    """The function `make_encoder`."""
    return make_encoder


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """The tokenizer of the tiny bundles."""
    return make_tokenizer_json()


@pytest.fixture(scope="session", autouse=True)
def own_ray():
    """Commands under test start Ray themselves, also where a cluster runs on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that scores single texts."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "single")


@pytest.fixture(scope="session")
def two_graphs(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Bundle:
    """A bundle with a graph in float32 and, for GPUs, one in float16."""
    graphs = tmp_path_factory.mktemp("graphs")
    encoder = make_encoder()
    write_graph(encoder, graphs / "model.onnx", text_pairs=False)
    write_graph(encoder, graphs / "float16.onnx", text_pairs=False, float16=True)
    half = FurtherGraph(precision="float16", file="float16.onnx", quality=None)
    return write_bundle(
        replace(bundle, path=graphs / "bundle", further_graphs=(half,)),
        model=graphs / "model.onnx",
        further_models=[graphs / "float16.onnx"],
        tokenizer_json=make_tokenizer_json(),
    )


def make_cascade(
    path: Path, *, threshold: float = 0.8, vocabulary: int = 128, **described: Any
) -> Bundle:
    """A cascade of one layer and two; a smaller `vocabulary` is that of the second graph alone."""
    first = make_bundle(path.parent / f"{path.name}.first", num_layers=1, **described)
    graph = path.parent / f"{path.name}.first.graph" / "second.onnx"
    encoder = make_encoder(vocabulary=vocabulary, classes=first.num_outputs)
    write_graph(encoder, graph, text_pairs=first.text_pairs)
    own = replace(first.cost_profile, seconds_alone=(2e-4, 1e-3))
    other = replace(own, seconds_per_row=(1e-3, 1e-2), seconds_alone=(2e-3, 1e-2))
    shares = ShareByLength(lengths=(4.0, 12.0), shares=(0.75, 0.25))
    cascade = Cascade(
        precision="float32",
        threshold=threshold,
        share=0.5,
        share_by_length=shares,
        num_held_out=1000,
        max_drop=0.2,
        first_profile=own,
        second_profile=other,
        second_quality=replace(first.stages[0], stage="second", quality=0.9),
        quality=replace(first.stages[0], stage="cascade", quality=0.89),
        multiply_adds_per_token=count_multiply_adds(encoder),
        num_layers=2,
        width=encoder.width,
    )
    profile = expected_profile(own, other, shares)
    return write_bundle(
        replace(first, path=path, cascade=cascade, cost_profile=profile),
        model=first.model_path,
        further_models=[graph],
        tokenizer_json=make_tokenizer_json(),
    )


@pytest.fixture(scope="session")
def cascade_factory() -> Callable[..., Bundle]:
    """The function `make_cascade`."""
    return make_cascade


@pytest.fixture(scope="session")
def cascade_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A cascade that scores single texts; about half of the texts of `make_texts` go on."""
    return make_cascade(tmp_path_factory.mktemp("cascade") / "cascade")


@pytest.fixture(scope="session")
def pair_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that scores pairs of texts."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "pair", text_pairs=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback, which huggingface_hub asks in this process, with an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serve_hub() as server:
        for name, value in (
            ("ENDPOINT", server.address),
            (
                "HUGGINGFACE_CO_URL_TEMPLATE",
                f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            ),
            ("HF_HUB_CACHE", str(tmp_path / "hub")),
            ("HF_TOKEN_PATH", str(tmp_path / "token")),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(constants, name, value)
        yield server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets beside the checkout; tests that need them are skipped without."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data sets at {SHARED_DATA}")
    return SHARED_DATA


def write_rows(path, rows, *, row_group_size=3):
    """Write dictionaries to a file in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        table = pa.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)
        return path
    if name.endswith((".csv", ".tsv")):
        text = io.StringIO()
        writer = csv.DictWriter(
            text,
            list(rows[0]),
            delimiter="\t" if name.endswith(".tsv") else ",",
            quoting=csv.QUOTE_ALL,
            lineterminator="\n",
        )
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
    else:
        content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(scope="session", name="write_rows")
def write_rows_fixture():
    """The function `write_rows`."""
    return write_rows


def make_timeline(num_actors: int, num_shards: int) -> tuple[TimelineEntry, ...]:
    """Each actor reads a slice, then scores shards of 4 s; the second one dies over a shard."""
    timeline: list[TimelineEntry] = []

    def add(actor: int, start_s: float, seconds: float, **changes: Any) -> float:
        entry = TimelineEntry(
            job="score",
            name=f"00000-{len(timeline):05d}",
            actor=f"node-{actor // 16}.example:{actor % 16}",
            attempt=1,
            lost=False,
            start_s=start_s,
            end_s=start_s + seconds,
            busy_s=seconds - 0.1,
            infer_s=seconds - 0.1,
            rows=130_000 // 60,
            tokens=130_000,
            predicted_s=3.5,
            rss_bytes=2**28,
        )
        timeline.append(replace(entry, **changes))
        return start_s + seconds

    nothing: dict[str, Any] = {"rows": 0, "tokens": 0}
    clocks = [
        add(actor, 2.0, 5.0, job="prepare", name=f"slice {actor}", busy_s=2.0, **nothing)
        for actor in range(num_actors)
    ]
    for shard in range(num_shards):
        actor = shard % num_actors
        if shard == num_actors + 1:
            clocks[actor] = add(actor, clocks[actor], 2.0, lost=True, busy_s=0.0, **nothing)
        clocks[actor] = add(actor, clocks[actor], 4.0 * (1 + 0.2 * (shard % 3)))
    return tuple(timeline)


def make_bill() -> Bill:
    """One line under each heading."""
    # No cascade: nothing went to a second graph.
    amounts = [0.012345, 0.0, *(round(0.0001 * n, 6) for n in range(1, len(HEADINGS) - 1))]
    return Bill(
        items=tuple(
            BillItem(heading=heading, what=what, core_s=10_000 * usd, usd=usd)
            for (heading, what), usd in zip(HEADINGS.items(), amounts, strict=True)
        ),
        total_usd=round(sum(amounts), 6),
        duplicates_saved_usd=0.000321,
        prediction=Prediction(
            predicted_core_s=100.0,
            measured_core_s=123.4,
            error=100 / 123.4 - 1,
            shard_error=0.034,
        ),
    )


def make_other_type(name: str, usd: float, basis: str) -> TypeCost:
    """Cost of a run on another instance type."""
    return TypeCost(
        instance_type=name,
        usd=usd,
        usd_low=usd / 1.3,
        usd_high=usd * 1.3,
        wall_s=321.0,
        basis=basis,
        scaled_from="turin at 4.1 GHz",
        region="us-east-1",
        as_of="2026-07-20",
    )


def make_kind_report(device: str = "cpu", **changes: Any) -> KindReport:
    """Actors that scored all of the corpus."""
    kind = KindReport(
        device=device,
        precision="int8",
        engine="onnxruntime",
        max_batch_tokens=2048,
        actors=4,
        machines=2,
        shards=36,
        rows=80_000,
        tokens=2_000_000,
        share_of_tokens=1.0,
        usd=0.0033,
        usd_per_million=0.04,
        computing=0.95,
        waiting=0.05,
        gpu_busy=None,
        bound_by=None,
    )
    return replace(kind, **changes)


def make_node_report(name: str, **changes: Any) -> NodeReport:
    """A node that was there from the start."""
    node = NodeReport(
        name=name,
        device="cpu",
        instance_type="c7i.4xlarge",
        joined_s=0.0,
        left_s=70.0,
        actors=2,
        shards=18,
        rows=40_000,
        rows_per_second=570.0,
        usd_per_hour=0.169,
        price="c7i.4xlarge on demand, us-east-1, 2026-07-20",
        usd=0.0033,
        left_because=None,
    )
    return replace(node, **changes)


def make_quality() -> Quality:
    """Three labels, one of which is never predicted."""
    return Quality(
        label_column="stars",
        read_as="by name",
        metric="accuracy",
        value=0.85,
        low=0.83,
        high=0.87,
        macro_f1=0.61,
        rows=1000,
        unlabeled=40,
        labels=(
            LabelQuality(label="bad", rows=300, predicted=320, right=270),
            LabelQuality(label="good", rows=650, predicted=680, right=580),
            LabelQuality(label="neither", rows=50, predicted=0, right=0),
        ),
        confusion=((270, 30, 0), (70, 580, 0), (20, 30, 0)),
    )


def make_audit(**changes: Any) -> AuditReport:
    """A thousand rows, most of which have labels."""
    report = AuditReport(
        share=0.001,
        bundle="teacher/",
        precision="float32",
        digest="c" * 64,
        rows=1190,
        failed_rows=2,
        measure="equal labels",
        agreement=Estimate(value=0.973, low=0.962, high=0.981),
        difference=None,
        min_agreement=0.95,
        core_s=3.4,
        usd=0.0003,
        quality=AuditQuality(
            label_column="stars",
            metric="accuracy",
            rows=900,
            own=0.85,
            auditors=0.862,
            difference=Estimate(value=-0.012, low=-0.021, high=-0.003),
        ),
        quality_unknown=None,
    )
    return replace(report, **changes)


def make_session(**changes: Any) -> Session:
    """One that was killed after two minutes."""
    session = Session(
        run="a1",
        state="killed",
        started_at="2026-11-24T01:02:03+00:00",
        wall_s=120.5,
        shards=3,
        rows=9000,
        tokens=540_000,
        retries=1,
        num_machines=2,
        num_actors=4,
        machine_s=240.0,
        usd=0.0113,
        price="c7i.4xlarge on demand, us-east-1, 2026-07-20",
        price_is_estimate=True,
        price_mismatches=(),
        spent={"compute": Spent(core_s=400.0, usd=0.0113)},
        phase_s={"read": 1.0, "tokenize": 5.0, "infer": 120.0, "write": 2.0, "idle": 9.0},
        predicted_core_s=100.0,
        measured_core_s=123.4,
    )
    return replace(session, **changes)


def make_quote(**changes: Any) -> Quote:
    """What a run says of its bill, early on."""
    quote = Quote(
        run="a1",
        at="2026-11-24T01:02:33+00:00",
        share=0.01,
        actors=4,
        usd=0.02,
        usd_low=0.015,
        usd_high=0.025,
        hours=0.05,
        hours_low=0.04,
        hours_high=0.06,
        ends_at="2026-11-24T01:05:03+00:00",
        ends_at_low="2026-11-24T01:04:27+00:00",
        ends_at_high="2026-11-24T01:05:39+00:00",
    )
    return replace(quote, **changes)


def make_early_quote(**changes: Any) -> EarlyQuote:
    """What `cost` said of that run."""
    quote = EarlyQuote(
        source="cost.json",
        instance_type="c7i.4xlarge",
        machines=1,
        usd=0.018,
        usd_low=0.013,
        usd_high=0.026,
        hours=0.04,
    )
    return replace(quote, **changes)


@pytest.fixture(scope="session", name="make_report")
def make_report_fixture() -> Callable[..., RunReport]:
    """Makes the report of a run that had everything: bad rows, retries, energy, earlier runs."""

    def make(*, num_actors: int = 4, num_shards: int = 37, **changes: Any) -> RunReport:
        timeline = make_timeline(num_actors, num_shards)
        actor = ActorReport(
            shards=9,
            rows=20_000,
            rows_per_second=520.3,
            tokens_per_second=31_200.4,
            busy_s=38.0,
            peak_rss_bytes=2**28,
        )
        report = RunReport(
            rows=1_234_567,
            unique_rows=1_199_000,
            tokens=74_000_000,
            unique_tokens=73_000_000,
            rows_per_second=2081.2,
            tokens_per_second=124_800.0,
            padding_efficiency=0.93,
            wall_s=max(entry.end_s for entry in timeline) + 0.3,
            setup_s=1.5,
            usd_per_hour=0.169,
            price="c7i.4xlarge on demand, us-east-1, 2026-07-20",
            price_is_estimate=True,
            price_mismatches=(),
            usd_total=make_bill().total_usd,
            usd_per_million=0.0312,
            dead_letters=12,
            dead_letter_reasons={"column 'text': null text": 9, "the model failed on it": 3},
            quality=make_quality(),
            quality_unknown=None,
            audit=make_audit(),
            resumed_shards=3,
            resumed_rows=9000,
            sessions=(
                make_session(),
                make_session(
                    run="b2",
                    state="finished",
                    started_at="2026-11-24T02:00:00+00:00",
                    rows=1_225_567,
                    usd=0.0088,
                ),
            ),
            unrecorded_rows=0,
            shards=40,
            retries=1,
            skipped_files={},
            left_out=(),
            unfit_values={},
            num_actors=num_actors,
            num_machines=2,
            kinds=(make_kind_report(),),
            agreement=None,
            cascade=None,
            nodes=(
                make_node_report("vm-1", left_s=70.0),
                make_node_report("vm-2", left_s=40.0, left_because="its cloud took it back"),
            ),
            cores=("4 actors x 1 thread on cores 0-3 of 4; no overlap",),
            driver_cpu="Some CPU",
            phase_s=PhaseSeconds(
                read=1.0, tokenize=5.0, infer=120.0, audit=3.0, write=2.0, idle=9.0
            ),
            predicted_s=100.0,
            peak_rss_bytes=2**28,
            actors=dict.fromkeys(sorted({entry.actor for entry in timeline}), actor),
            started_at="2026-11-24T01:02:03+00:00",
            bill=make_bill(),
            history=(
                make_quote(share=0.012, usd=0.019, usd_low=0.015, usd_high=0.024),
                make_quote(run="b2", share=0.51, usd=0.0203, usd_low=0.0198, usd_high=0.0209),
            ),
            early_quote=make_early_quote(),
            other_types=(
                make_other_type("c7g.xlarge", 0.0151, "scaled"),
                make_other_type("n2d-standard-4", 0.0188, "scaled"),
                make_other_type("g6.xlarge", 0.0203, "scaled (published)"),
            ),
            other_types_unknown=None,
            energy=Energy(
                kwh=0.00123,
                cpu_kwh=0.001,
                gpu_kwh=0.0,
                memory_kwh=0.00023,
                co2_kg=0.00047,
                country="DEU",
                cpu_basis="modelled",
                gpu_basis="none",
                covered_s=44.0,
                source="codecarbon 3.3.2",
            ),
            lengths={
                "8": (9000, 60_000, 62_000),
                "16": (61_000, 800_000, 850_000),
                "32": (250_000, 6_500_000, 6_900_000),
                "64": (420_000, 20_000_000, 21_000_000),
                "128": (300_000, 27_000_000, 28_500_000),
                "256": (90_000, 16_000_000, 17_500_000),
                "512": (9000, 3_600_000, 4_400_000),
            },
            attempts=len(timeline),
            timeline=timeline,
            tokens_over_time=TokensOverTime(
                bin_s=1.0,
                groups={
                    f"CPU {n}": (0.0, 1000.0 * (n + 1), 500.0) for n in range(min(6, num_actors))
                },
            ),
            bundle=BundleUsed(
                path="/mnt/bundles/a-rather-long-directory-name/that-does-not-break/bundle",
                precision="int8",
                labels=("bad", "good", "neither"),
                digest="8c8c1fa455bc8b5a4f000063fc6181c5",
                max_batch_tokens=512,
                profile_cpu="INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz",
                engine="onnxruntime",
            ),
            corpus="s3://a-bucket/wiki/",
            output="s3://a-bucket-with-a-long-name/and/a/long/path/to/the/corpus/2026-11-24",
        )
        return replace(report, **changes)

    return make
