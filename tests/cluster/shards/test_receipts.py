import numpy as np
import pytest

from fastformers.cluster.shards.receipts import Receipt, count_lengths, count_reasons


def test_texts_tokens_and_padding_by_length():
    """Texts of 8, 9 and 9000 tokens; the first two share a batch that is padded to 12."""
    batches = [np.array([0, 1]), np.array([2])]
    assert count_lengths(np.array([8, 9, 9000]), batches, [24, 9000]) == {
        "8": [1, 8, 12],
        "16": [1, 9, 12],
        "8192": [1, 9000, 9000],
    }


def test_bins_are_those_that_files_of_older_runs_hold():
    """Runs add up the counts of all files of an output: other edges would add what differs."""
    edges = [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096]
    counts = count_lengths(np.array([*edges, 4097, 8193]), [], [])
    assert counts == {**{str(edge): [1, edge, 0] for edge in edges}, "8192": [2, 12290, 0]}


def test_a_receipt_of_an_older_run_tells_nothing_of_what_came_later():
    fields = (
        *("shard", "actor", "attempt", "num_rows", "num_unique", "num_errors", "num_tokens"),
        *("num_scored_tokens", "num_computed_tokens", "num_batches", "started_at", "finished_at"),
        *("predicted_s", "rss_bytes", "peak_rss_bytes"),
    )
    receipt = Receipt(**dict.fromkeys(fields, 1))
    assert (receipt.file_bytes, receipt.second_texts, receipt.second_s) == (0, 0, 0.0)
    assert (receipt.device, receipt.precision, receipt.gpu_busy) == ("cpu", None, None)
    assert (receipt.labels, receipt.audit, receipt.failures) == ({}, {}, {})


def test_a_batch_without_its_tokens_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        count_lengths(np.array([3, 3]), [np.array([0, 1])], [])


def test_reasons_are_counted_by_what_they_share():
    reasons = [f"column 'a': '{row}x' is not int64" for row in range(50)]
    reasons += ["column 'b': null text"] * 60 + [f"row has {n} fields, not 3" for n in (4, 5)]
    assert list(count_reasons(reasons).items()) == [
        ("column 'b': null text", 60),
        ("column 'a': … is not int…", 50),
        ("row has … fields, not …", 2),
    ]


def test_what_a_row_holds_makes_no_other_kind_of_reason():
    starts = ["x", "it's", 'say "hi"', "'\"", "\\", "a\\'b\"", "\x1b[2J", "5"]
    reasons = [f"not CSV: ',' expected after '\"', in {start!r}" for start in starts]
    assert list(count_reasons(reasons).values()) == [len(starts)]


def test_there_are_few_kinds_of_reasons_whatever_they_say():
    reasons = [f"reason {chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)]
    counts = count_reasons(reasons)
    assert len(counts) == 17
    assert next(iter(counts.items())) == ("other reasons", 184)
