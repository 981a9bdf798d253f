from fastformers.formatting import format_count


def test_counts_have_their_plural():
    assert [format_count(number, "row") for number in (0, 1, 1234)] == [
        "0 rows",
        "1 row",
        "1,234 rows",
    ]
