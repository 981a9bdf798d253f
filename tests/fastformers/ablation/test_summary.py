import json

import pytest

from fastformers.ablation.summary import FORMAT_VERSION, summarize


def test_tokenization_is_in_the_totals(make_result, ablation, conditions):
    summary = summarize(
        [make_result(8.0), make_result(4.0), make_result(0.5)], ablation, conditions
    )
    assert summary.speedup_with_tokenization == pytest.approx(8.5)
    assert summary.speedup_unpadded_with_tokenization == pytest.approx(4.5)
    assert str(summary.texts).startswith("4 texts, 100 tokens")


def test_the_keys_of_the_file_are_what_its_readers_expect(make_result, ablation, conditions):
    """Whoever parses ablate.json relies on them: a change of one needs another format version."""
    results = [make_result(8.0), make_result(4.0), make_result(0.5)]
    content = json.loads(json.dumps(summarize(results, ablation, conditions).to_json()))
    assert content["format_version"] == FORMAT_VERSION == 2
    assert set(content) == {
        *("format_version", "steps", "description", "speedup", "speedup_unpadded"),
        *("speedup_with_tokenization", "speedup_unpadded_with_tokenization"),
        *("rows", "tokens", "length_mean", "length_p50", "length_p95", "length_max"),
        *("cpu_model", "num_cores", "usd_per_hour", "price", "price_is_estimate"),
        *("versions", "measured_at", "repeats", "load_before"),
    }
    assert (content["speedup"], content["speedup_unpadded"]) == (16, 8)
    assert (content["rows"], content["tokens"], content["length_mean"]) == (4, 100, 25)
    assert content["versions"] == {"torch": "2.0", "onnxruntime": "1.30"}
    assert set(content["steps"][0]) == {
        *("name", "seconds", "accuracy", "usd_per_100m", "cumulative", "step", "tokenization_s"),
        *("total_s", "rows", "timed_rows", "standard_error_s", "runs_s", "note", "is_aside"),
    }
    assert [step["seconds"] for step in content["steps"]] == [8, 4, 0.5]
