import xml.etree.ElementTree as ElementTree

import pytest

from fastformers.ablation.measure import StepResult
from fastformers.ablation.plot import draw_ablation

pytest.importorskip("matplotlib")


def result(name, cumulative, usd, **changes):
    return StepResult(
        name=name,
        seconds=1.0,
        accuracy=changes.get("accuracy"),
        usd_per_100m=usd,
        cumulative=cumulative,
        step=1.0,
        tokenization_s=None,
        total_s=None,
        rows=1,
        timed_rows=1,
        standard_error_s=None,
        runs_s=(1.0,),
        note="",
        is_aside=changes.get("is_aside", False),
    )


def test_every_bar_has_its_name_and_its_numbers(tmp_path):
    results = [
        result("padded", 1.0, 4223.0, accuracy=0.7401),
        result("pruned", 233.87, 18.0),
        result("beside", 250.0, 17.0, is_aside=True),
    ]
    paths = [tmp_path / "a.png", tmp_path / "a.svg"]
    draw_ablation(results, paths, title="An ablation")
    assert paths[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    texts = " ".join(ElementTree.parse(paths[1]).getroot().itertext())
    assert "$" not in texts
    for shown in (
        *("An ablation", "padded (accuracy 74.01)", "pruned", "beside"),
        *("1.00x", "233.87x", "250.00x", "4,223", "18", "17"),
        "10,000",  # a tick of an axis
        *("cumulative speed-up", "USD per 100 million texts"),
    ):
        assert shown in texts
