"""Settings of a whole compression: teacher, files, recipe and how much may be lost.

    flags -> [compress_config] -> files, recipe -> compress

The settings of the stages are in recipe_config.py. This module does not import torch, so that the
command can show its flags without loading it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from fastformers.atomic_file import check_writable
from fastformers.compression.cascade.config import CascadeConfig
from fastformers.compression.cascade.threshold import check_enough_rows
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.token_config import AUTO
from fastformers.data.examples import Columns
from fastformers.data.splitting import SelectConfig
from fastformers.data.training_files import TrainingFiles, load_training_files
from fastformers.data.transfer_sample import Locate, TransferConfig, locate_here
from fastformers.errors import InputError
from fastformers.inference.bundle import check_output
from fastformers.inference.manifest import CASCADE_PRECISIONS
from fastformers.models.model_files import check_model_directory, is_sentence_encoder
from fastformers.options import check_at_least, check_positive, names_given, option


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """Settings of a compression: teacher, files, recipe and allowed loss.

    The teacher is a fine-tuned Hugging Face sequence classifier or multiple-choice model, or a
    sentence-transformers model, which needs no labels.

    Attributes:
        transfer: A corpus without labels that students learn from, too.
        columns: Columns of the files.
        select: Which rows choose and train nothing.
        recipe: Settings of the stages; in a search, those that all candidates share.
        cascade: Whether the student has a second graph behind it.
    """

    teacher: Path = field(
        metadata=option(
            "Hugging Face or sentence-transformers directory, or org/name[@revision] of the hub",
            metavar="DIR",
        )
    )
    train: Path = field(
        metadata=option("labeled files to distill, rank and calibrate on", metavar="FILE")
    )
    eval: Path = field(
        metadata=option(
            "labeled files that say how good the bundle is, and choose nothing", metavar="FILE"
        )
    )
    output: Path = field(metadata=option("directory of the bundle", metavar="DIR"))
    work: Path | None = field(
        default=None,
        metadata=option(
            "keep the results of stages here, for other runs (removed at the end)", metavar="DIR"
        ),
    )
    transfer: TransferConfig = field(default=TransferConfig())
    transfer_curve: bool = field(
        default=False,
        metadata=option(
            "train the recipe without --transfer, on a quarter and on half of it, too, each for "
            "as many steps, and show what more texts bring"
        ),
    )
    columns: Columns = field(default=Columns())
    select: SelectConfig = field(default=SelectConfig())
    label_names: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "names of the bundle's labels in the order of the teacher's outputs, in place of 0 or "
            "LABEL_0; repeat it for names with commas (the teacher's own)",
            metavar="A,B",
        ),
    )
    max_length: int | None = field(
        default=None, metadata=option("tokens to truncate to (the teacher's limit)")
    )
    eval_limit: int | None = field(
        default=None,
        metadata=option("number of rows to evaluate on, evenly spaced (all)", metavar="ROWS"),
    )
    max_accuracy_drop: float | None = field(
        default=None,
        metadata=option(
            "points of 100 x the task's metric that may be lost: of one recipe on --eval, and no "
            "bundle is written if more is; of a search's candidates on the rows that choose (1 for "
            "one recipe; a search has no default)",
            metavar="POINTS",
        ),
    )
    search: bool = field(
        default=False,
        metadata=option(
            "search for the cheapest recipe that loses no more than --max-accuracy-drop: static "
            "vectors, students of fewer and fewer layers, pruned, with fewer or pooled tokens, in "
            "int8; with --cascade, cascades of these, too"
        ),
    )
    max_hours: float | None = field(
        default=None,
        metadata=option(
            "hours that a search may take; what would not end in time is left out, and is said (as "
            "many as it needs)",
            metavar="HOURS",
        ),
    )
    recipe: RecipeConfig = field(default=RecipeConfig())
    cascade: CascadeConfig = field(default=CascadeConfig())

    def __post_init__(self) -> None:
        check_positive(self, "max_hours")
        check_at_least(self, 4, "max_length")
        check_at_least(self, 1, "eval_limit")
        check_at_least(self, 0, "max_accuracy_drop")
        object.__setattr__(self, "label_names", names_given(self.label_names))
        if self.search:
            if self.max_accuracy_drop is None:
                raise InputError("--search: give --max-accuracy-drop, the points that may be lost")
            self.recipe.refuse_what_a_search_decides()
            if self.transfer_curve:
                raise InputError(
                    "--transfer-curve: is of one recipe; give the one that the search finds in "
                    "place of --search, with the same --work"
                )
        if self.cascade.cascade:
            self._check_cascade()

    def _check_cascade(self) -> None:
        """Refuse settings that make no cascade."""
        recipe, second = self.recipe, self.cascade.cascade_with
        if self.search and second is not None:
            raise InputError(
                f"--cascade-with {second}: --search chooses both graphs; leave one of the two out"
            )
        if recipe.quantize.precision not in CASCADE_PRECISIONS:
            raise InputError(
                f"--precision {recipe.quantize.precision}: the graphs of a cascade are "
                f"{' or '.join(CASCADE_PRECISIONS)}, for CPUs; give one of these"
            )
        if second is None and not (recipe.has_student or self.search):
            raise InputError(
                "--cascade: both graphs would be the teacher's; add --student-layers, or a better "
                "bundle by --cascade-with"
            )
        if second is not None and recipe.trim.trim_vocabulary is not None:
            raise InputError(
                "--trim-vocabulary: both graphs of a cascade read the same tokens, and those of "
                "--cascade-with are what they are; leave one of the two out"
            )

    def load_files(self, locate: Locate = locate_here) -> TrainingFiles:
        """Read the labeled files, after a look at output and teacher: all that needs no torch.

        Args:
            locate: Finds the corpus of texts without labels.

        Raises:
            InputError: The output holds something else, the teacher is no model's directory, or a
                file cannot be used.
        """
        check_output(self.output)
        self._check_work()
        check_writable(self.output)
        check_writable(self.work_directory)
        check_model_directory(self.teacher)
        if self.recipe.student.student is not None:
            check_model_directory(self.recipe.student.student)
        files = load_training_files(
            self.train,
            self.eval,
            self.columns,
            self.select if self.choices else SelectConfig(share=0),
            has_labels=not is_sentence_encoder(self.teacher),
            eval_limit=self.eval_limit,
            transfer=self.transfer,
            locate=locate,
        )
        self._check_rows(files)
        return files

    def _check_work(self) -> None:
        """Refuse to work where the work would be removed, or would change what it is named by."""
        if self.work is None:
            return
        places = {"--output": self.output, "--teacher": self.teacher}
        if self.recipe.student.student is not None:
            places["--student"] = self.recipe.student.student
        work = self.work.resolve()
        for flag, place in places.items():
            if place.resolve() in (work, *work.parents):
                raise InputError(
                    f"--work {self.work}: lies in {flag} {place}; give a directory of its own"
                )

    def _check_rows(self, files: TrainingFiles) -> None:
        """Refuse a search and a cascade that have no rows to choose on."""
        assert files.evaluation is not None
        if self.cascade.cascade and files.evaluation.overlaps is not None:
            raise InputError(
                f"{self.eval}: an answer is chosen among rows by their logits, and those of a "
                "cascade are of two graphs; leave --cascade out"
            )
        if files.split.select is None and (self.search or self.cascade.cascade):
            flag = "--search" if self.search else "--cascade"
            raise InputError(
                f"{flag}: needs rows to choose by, and of {self.train} {files.split.meaning}; give "
                "some by --select, or a larger --select-share"
            )
        if self.cascade.cascade and not self.search:
            assert files.split.select is not None
            check_enough_rows(len(files.split.select), self.cascade.cascade_drop)

    @property
    def allowed_drop(self) -> float:
        """Points of 100 x the task's metric that may be lost."""
        return 1.0 if self.max_accuracy_drop is None else self.max_accuracy_drop

    @property
    def choices(self) -> tuple[str, ...]:
        """What is chosen by rows; where nothing is, none are set apart."""
        recipe = self.recipe
        found = {
            "the recipe": self.search,
            "the threshold": self.cascade.cascade,
            "the shares of tokens": AUTO in recipe.tokens.keep_tokens,
            "what is in int8": "int8" in recipe.quantize.precision and not recipe.student.is_static,
        }
        return tuple(name for name, is_chosen in found.items() if is_chosen)

    @property
    def work_directory(self) -> Path:
        """Directory for the results of stages; if unset, one beside the output while it is made."""
        return self.work or self.output.with_name(f".{self.output.name}.work")
