"""Hold the model that passes from one stage of a recipe to the next.

    teacher -> [artifact] -> distill -> [artifact] -> prune -> [artifact] -> ... -> bundle

This module knows nothing of what stages do.

Shape suffixes: N rows, C outputs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.data.examples import Examples
from fastformers.data.targets import encode_targets
from fastformers.errors import InputError
from fastformers.inference.engine import run_graph
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer
from fastformers.models.forward import OnProgress, predict_logits
from fastformers.models.loading import label_names, max_positions, task_of


@dataclass(frozen=True, kw_only=True)
class ModelArtifact:
    """The model between two stages.

    Attributes:
        key: Digest of everything that led to this artifact.
        model: The PyTorch model, from which the graph was exported if there is one.
        tokenizer_json: The model's serialized tokenizer.
        max_length: Tokens that a row is truncated to.
        text_pairs: Whether a row is two texts.
        train: Training examples; an embedding model needs no labels.
        train_path: The file that they come from, for messages.
        work: Directory for the results of stages.
        select: Examples that choices are made on, and nothing is trained on; None where the
            training examples have to do.
        teacher: What its students were made of, and learn from; None for this artifact itself.
        graph: The exported graph; None until the export.
        precision: Precision that the graph computes in.
        float_projections: Names of the projections that an int8 graph computes in float.
        pruning: What was pruned, in words; None where nothing was.
    """

    key: str
    model: PreTrainedModel
    tokenizer_json: str
    max_length: int
    text_pairs: bool
    train: Examples
    train_path: Path
    work: Path
    select: Examples | None = None
    teacher: "ModelArtifact | None" = None
    graph: Path | None = None
    precision: str = "float32"
    float_projections: tuple[str, ...] = ()
    pruning: str | None = None

    def __post_init__(self) -> None:
        positions = max_positions(self.model.config)
        if self.max_length > positions:
            raise InputError(
                f"--max-length {self.max_length}: the teacher has {positions} positions"
            )

    @property
    def choosing(self) -> Examples:
        """Examples to choose precisions and shares of tokens on."""
        return self.select or self.train

    def tokenize(self, examples: Examples) -> TokenizedRows:
        """Token ids of examples as this artifact reads them."""
        tokenizer = Tokenizer(self.tokenizer_json, max_length=self.max_length)
        return tokenizer.encode(examples.texts, examples.text_pairs)

    def targets(self, examples: Examples) -> NDArray[np.generic] | None:
        """Targets of training examples; None where the task has none.

        Raises:
            InputError: A label does not suit the model.
        """
        task = task_of(self.model)
        if not task.has_targets:
            return None
        return encode_targets(examples, task, label_names(self.model), self.train_path)

    def logits(
        self,
        examples: Examples,
        on_progress: OnProgress = lambda what, done, total: None,
    ) -> NDArray[np.float32]:
        """Logits (N, C) of the graph, or of the PyTorch model while there is no graph."""
        rows = self.tokenize(examples)
        if self.graph is not None:
            return run_graph(self.graph, rows)
        return predict_logits(self.model, rows, on_progress)

    def answers(self, examples: Examples) -> Path:
        """Directory of its outputs on examples, from which students learn."""
        return self.directory("teacher") / f"answers-{examples.digest[:16]}"

    def directory(self, what: str) -> Path:
        """Make and return the directory for something that belongs to this artifact alone."""
        directory = self.work / f"{what}-{self.key[:16]}"
        directory.mkdir(parents=True, exist_ok=True)
        return directory
