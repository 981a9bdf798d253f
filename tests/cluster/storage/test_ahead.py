"""Results come in order from threads that run ahead, and stop when nobody wants them."""

import threading
import time

import pytest

from fastformers.cluster.storage.ahead import map_ahead, side_by_side
from fastformers.cluster.storage.retries import Waiting


def test_results_come_in_the_order_of_the_items_whichever_ends_first():
    second_has_ended = threading.Event()

    def double(number):
        if number == 0:
            assert second_has_ended.wait(30)
        if number == 1:
            second_has_ended.set()
        return 2 * number

    assert list(map_ahead(double, range(50), num_threads=4)) == list(range(0, 100, 2))


def test_no_more_results_are_made_than_may_be_held():
    begun = []
    results = map_ahead(begun.append, range(100), num_threads=2, num_ahead=5)
    next(results)
    assert max(begun) <= 5
    results.close()


def test_what_is_raised_comes_in_its_turn():
    results = map_ahead(lambda number: 1 // number, [1, 0, 1], num_threads=3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_caller_that_stops_does_not_wait_for_storage_that_is_away():
    has_begun = threading.Barrier(2)

    def read(number):
        if number:
            has_begun.wait(30)
            Waiting().sleep(600.0)
        return number

    results = map_ahead(read, [0, 1], num_threads=2)
    assert next(results) == 0
    has_begun.wait(30)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 60


def test_functions_are_called_side_by_side_and_the_first_error_is_raised():
    both = threading.Barrier(2)

    def wait():
        both.wait(30)
        return "together"

    assert list(side_by_side(wait, wait)) == ["together", "together"]
    assert list(side_by_side()) == []
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda: 1 // 0, lambda: int("x")))
