"""A fastText classifier: the floor, which no transformer should lose to.

Work -> [fasttext_classifier] -> predictions

Trained once on labeled rows, and not timed, by the settings with which fastText's own tutorial on
text classification ends. Those of its classification-example are for half a million rows: five
epochs on 2,400 reviews taught it nothing.

Source: Joulin, Grave, Bojanowski and Mikolov 2016, arXiv:1607.01759.
"""

from pathlib import Path
from typing import Any

from fastformers.jobs.benchmarks.peers.scripts.processes import run_shares
from fastformers.jobs.benchmarks.peers.scripts.work import Work, read_share, refuse, write_share

_LABEL = "__label__"
_SETTINGS = {"dim": 50, "wordNgrams": 2, "bucket": 200_000, "epoch": 25, "lr": 0.5, "verbose": 0}


def run_fasttext(work: Work) -> dict[str, Any]:
    """One process for each core."""
    if work.train is None:
        raise refuse("no labeled rows to learn from: give --peer-train and --label-column")
    if not _model(work).exists():
        _train(work, work.train)
    clock = run_shares(work, ("pyarrow.parquet", "fasttext"), classify_share)
    setting = f"50 dimensions, word pairs, 25 epochs, {work.num_workers} processes"
    return clock.answer(setting, ("fasttext-numpy2-wheel",))


def classify_share(work: Work, share: int) -> None:
    """Classify a share of the texts."""
    import fasttext

    model = fasttext.load_model(str(_model(work)))
    ids, texts = read_share(work, share, work.num_workers)
    found, _ = model.predict([_line(text) for text in texts])
    labels = [work.labels[int(row[0].removeprefix(_LABEL))] for row in found]
    write_share(work, share, ids, label=labels)


def _train(work: Work, path: str) -> None:
    import fasttext
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    lines = Path(work.scratch) / "fasttext.txt"
    with lines.open("w", encoding="utf-8") as file:
        for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True):
            file.write(f"{_LABEL}{label} {_line(text)}\n")
    model = fasttext.train_supervised(str(lines), thread=work.num_workers, **_SETTINGS)
    model.save_model(str(_model(work)))


def _line(text: str) -> str:
    """fastText ends a text at its first line break; case says little."""
    return " ".join(text.lower().split())


def _model(work: Work) -> Path:
    return Path(work.scratch) / "fasttext.bin"
