"""Fine-tune a pretrained encoder into a classifier, the teacher of a recipe.

fastformers finetune --model DIR --train train.parquet --output TEACHER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.cli import console, run
from jobs.progress import show_progress


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers finetune`."""
    parser = argparse.ArgumentParser(prog="fastformers finetune", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="pretrained encoder directory")
    parser.add_argument("--train", type=Path, required=True, help="labelled file")
    parser.add_argument("--output", type=Path, required=True, help="directory of the teacher")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--text-pair-column", help="second text, where rows are pairs")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--batch-rows", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=256, help="tokens to truncate to")
    parser.add_argument("--num-layers", type=int, help="keep only the first encoder layers")
    parser.add_argument("--limit", type=int, help="train on so many rows, evenly spaced")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers finetune`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        from fastformers.examples import load_examples
        from fastformers.finetune import FinetuneConfig, finetune

        train = load_examples(
            options.train,
            text_column=options.text_column,
            text_pair_column=options.text_pair_column,
            label_column=options.label_column,
        )
        if options.limit is not None:
            train = train.sample(options.limit)
        config = FinetuneConfig(
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            batch_rows=options.batch_rows,
            max_length=options.max_length,
            num_layers=options.num_layers,
            seed=options.seed,
        )
        with show_progress() as on_progress:
            labels = finetune(
                options.model, train, options.train, options.output, config, on_progress
            )
        console.print(f"teacher with {len(labels)} labels, trained on {len(train):,} rows")
        return {"teacher": str(options.output), "labels": labels, "rows": len(train)}

    return run(job, resume="Run the same command again to go on from the last checkpoint.")


if __name__ == "__main__":
    sys.exit(main())
