from dataclasses import replace

from fastformers.cluster.report.frontier.points import (
    FrontierPoint,
    find_best,
    frontier_heads,
    frontier_rows,
)

TEACHER = FrontierPoint(
    name="teacher, int8",
    kind="teacher",
    quality=0.91,
    interval=(0.893, 0.927),
    drop=0.25,
    drop_interval=(-0.1, 0.6),
    seconds=8000.0,
    usd=0.8,
    remarks=("within noise of the teacher",),
)
CHOSEN = replace(
    TEACHER, name="4 layers", quality=0.905, seconds=2000.0, usd=0.2, verdict="chosen", remarks=()
)
BEATEN = replace(TEACHER, name="5 layers", quality=0.90, seconds=4000.0, usd=0.4, remarks=())
BAD = replace(
    CHOSEN, name="2 layers", quality=0.8, seconds=1000.0, usd=0.012, verdict="loses too much"
)
POINTS = [TEACHER, CHOSEN, BEATEN, BAD]


def test_the_table_goes_from_cheap_to_dear_with_intervals_and_what_each_is():
    rows = frontier_rows(POINTS)
    assert {len(row) for row in rows} == {len(frontier_heads("accuracy"))}
    assert [row[1] for row in rows] == ["2 layers", "4 layers", "5 layers", "teacher, int8"]
    assert rows[-1] == [
        *(
            "4",
            "teacher, int8",
            "91.00 (89.3 to 92.7)",
            "0.25 (-0.1 to 0.6)",
            "8,000",
            "0.80",
            "1.00",
        ),
        "frontier, within noise of the teacher",
    ]
    assert [row[5:] for row in rows[:3]] == [
        ["0.012", "8.00", "loses too much, frontier"],
        ["0.20", "4.00", "chosen, frontier"],
        ["0.40", "2.00", "beaten"],
    ]
    assert find_best(POINTS) == [3, 1, 0]


def test_json_has_every_number_of_the_table():
    assert CHOSEN.to_json() == {
        "recipe": "4 layers",
        "kind": "teacher",
        "quality": 0.905,
        "quality_interval": [0.893, 0.927],
        "drop_points": 0.25,
        "drop_points_interval": [-0.1, 0.6],
        "seconds_per_million": 2000.0,
        "usd_per_million": 0.2,
        "holds": True,
        "is_chosen": True,
        "remarks": [],
    }
    assert not BAD.to_json()["holds"]
