"""Elements of an array, wherever a file is cut into blocks and wherever a reader goes on."""

import io

import pytest

from fastformers.formats.records import json_array
from fastformers.formats.records.json_array import split_array

NESTED = b' [{"a": "]},[\\"{\\\\"}, [1, {"b": [2, 3]}],"c, d" ,\n4 ]\n '
ELEMENTS = [b'{"a": "]},[\\"{\\\\"}', b' [1, {"b": [2, 3]}]', b'"c, d" ', b"\n4 "]


@pytest.fixture(params=[1, 2, 3, 7, 100])
def split(monkeypatch, request):
    """Elements with their places, read in blocks of a few bytes."""
    monkeypatch.setattr(json_array, "_BLOCK_BYTES", request.param)

    def split(content, position=0, *, max_bytes=100):
        file = io.BufferedReader(io.BytesIO(content))
        file.seek(position)
        return list(split_array(file, position, is_inside=position > 0, max_bytes=max_bytes))

    return split


def test_elements_come_with_their_places_and_a_reader_goes_on_behind_any(split):
    found = split(NESTED)
    assert [element for _, _, element in found] == ELEMENTS
    assert found[0][0] == NESTED.index(b"{")
    for number, (begin, size, element) in enumerate(found):
        assert NESTED[begin : begin + size] == b"," * (number > 0) + element
        assert split(NESTED, begin + size) == found[number + 1 :]


@pytest.mark.parametrize("content", [b"[]", b" [ ]\n", b"[\n\n]"])
def test_an_empty_array_has_no_elements(split, content):
    assert split(content) == []


@pytest.mark.parametrize("first", [b'"a', b'{"k": "a', b'"a\\', b'[["a\\\\'])
def test_a_string_ends_with_its_line(split, first):
    """Also where a backslash is before the line break; the next element begins behind it."""
    found = split(b"[1," + first + b'\n, "b"]')
    assert [element for _, _, element in found] == [b"1", first, b' "b"']


@pytest.mark.parametrize(
    ("max_bytes", "kept"), [(9, b'"abcdefg"'), (8, b'"abcdefg"'), (5, b'"abcde')]
)
def test_an_element_that_is_too_long_is_cut_one_byte_behind_the_bound(split, max_bytes, kept):
    content = b'["abcdefg",1]'
    assert split(content, max_bytes=max_bytes) == [(1, 9, kept), (10, 2, b"1")]


@pytest.mark.parametrize("content", [b"[1, 2", b"[", b'["a]', b"[[1]", b""])
def test_an_array_without_an_end_is_cut_off(split, content):
    with pytest.raises(OSError, match="has no end"):
        split(content)


@pytest.mark.parametrize("content", [b"[1] 2", b"[1]\n[2]\n", b"[]]"])
def test_nothing_follows_the_end(split, content):
    with pytest.raises(OSError, match="something follows"):
        split(content)
