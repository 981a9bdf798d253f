"""Whether each row of a corpus has the prediction of its text, or its dead letter."""

from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.jobs.odd.corpus import Bad


def read_predictions(output: Path) -> pa.Table:
    """All predictions; pandas reads them, and they are valid."""
    parts = sorted(Path(output, "predictions").iterdir())
    for part in parts:
        pandas.read_parquet(part)
    tables = [pyarrow.parquet.read_table(part).replace_schema_metadata() for part in parts]
    for table in tables:
        table.validate(full=True)
    return pa.concat_tables(tables)


def check_accounts(rows: list[str | Bad], output: Path, scorer) -> pa.Table:
    """Check every row: text that is good, or a part of the reason why it is bad.

    Returns:
        The predictions.
    """
    table = read_predictions(output)
    letters = pyarrow.parquet.read_table(
        Path(output, "__run__", "dead_letters.parquet")
    ).to_pylist()
    assert table.num_rows == len(rows)
    bad = {row: text.reason for row, text in enumerate(rows) if isinstance(text, Bad)}
    assert [letter["corpus_row"] for letter in letters] == list(bad)
    for letter, reason in zip(letters, bad.values(), strict=True):
        assert reason in letter["error"]
    errors = table["error"].to_pylist()
    assert [row for row, error in enumerate(errors) if error is not None] == list(bad)
    good = [row for row in range(len(rows)) if row not in bad]
    labels, probabilities = table["label"].to_pylist(), table["probability"].to_pylist()
    assert {labels[row] for row in bad} <= {None}
    if good:
        expected = scorer.score([rows[row] for row in good])
        assert [labels[row] for row in good] == list(expected.labels)
        found = [probabilities[row] for row in good]
        assert found == pytest.approx(expected.probability, abs=1e-5)
    return table
