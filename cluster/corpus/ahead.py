"""Wait for storage many times at once, and take the results in order.

    items -> [ahead] -> results, in the order of the items -> slices, reading, sampling

This module knows nothing of files.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, num_threads: int
) -> Generator[_Result]:
    """Results of a function for each item, in order; it runs ahead of the caller in threads.

    At most `num_threads` results are held before the caller takes them. What the function raises,
    this raises in its place. A caller that stops early closes the generator.
    """
    ahead: deque[Future[_Result]] = deque()
    threads = ThreadPoolExecutor(num_threads, thread_name_prefix="ahead")
    try:
        for item in items:
            if len(ahead) == num_threads:
                yield ahead.popleft().result()
            ahead.append(threads.submit(function, item))
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
