"""Wait for storage many times at once, and take the results in order.

    items -> [ahead] -> results, in the order of the items -> directory, slices, reading, job

This module knows nothing of files.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from fastformers.cluster.storage.retries import until

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    num_threads: int,
    num_ahead: int | None = None,
) -> Generator[_Result]:
    """Results of a function for each item, in order; it runs ahead of the caller in threads.

    What the function raises, this raises in its place. A caller that stops early, as Ctrl-C does,
    closes the generator: a bucket that is away is then waited for no longer.

    Args:
        function: Function to call in a thread.
        items: Its arguments.
        num_threads: Calls that are under way at a time.
        num_ahead: Results that are held at most before the caller takes them, those under way
            included; None for `num_threads`.
    """
    stop = threading.Event()

    def call(item: _Item) -> _Result:
        with until(stop):
            return function(item)

    ahead: deque[Future[_Result]] = deque()
    threads = ThreadPoolExecutor(num_threads, thread_name_prefix="ahead")
    try:
        for item in items:
            if len(ahead) == (num_ahead or num_threads):
                yield ahead.popleft().result()
            ahead.append(threads.submit(call, item))
        while ahead:
            yield ahead.popleft().result()
    finally:
        stop.set()
        threads.shutdown(cancel_futures=True)


def side_by_side(*functions: Callable[[], Any]) -> Generator[Any]:
    """Results of functions that are called at the same time; what the first raises, this raises."""
    return map_ahead(lambda function: function(), functions, num_threads=max(1, len(functions)))
