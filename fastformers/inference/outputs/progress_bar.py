"""Show how far a call is, where its caller asks for it.

    progress=True, or a function -> [progress_bar] -> a bar on stderr, or calls

Commands show more, by `jobs/console/progress.py`. This module knows nothing of what is done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnProgress = Callable[[int, int], None]
"""Takes how many are done, and how many there are."""


@contextmanager
def showing_progress(
    progress: bool | OnProgress, total: int, *, done: int = 0
) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many more are done.

    Args:
        progress: Whether to show a bar on stderr; or what to call instead.
        total: How many there are.
        done: How many of them are done at the beginning.
    """
    if callable(progress):
        tell = progress

        def advance(number: int) -> None:
            nonlocal done
            done += number
            tell(done, total)

        yield advance
    elif progress:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (
            *Progress.get_default_columns()[:-1],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("scoring", total=total, completed=done)
            yield lambda number: bar.advance(task, number)
    else:
        yield lambda number: None
