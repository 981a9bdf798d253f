"""Nodes that will leave: the cloud's notice of this machine, and the nodes that Ray drains.

    cloud metadata -> [spot_notices] -> supervisor finishes or returns its jobs
    Ray's control store -> [spot_notices] -> driver leases no more to those nodes

Ray itself does not ask the clouds, so every supervisor watches its own machine in a thread. Others,
such as an autoscaler or a person with `ray drain-node`, tell Ray, and the driver asks there. This
module decides nothing: it knows neither jobs nor prices.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # not in Ray's stub

from fastformers.cluster.nodes.cloud_metadata import Cloud, MetadataError, Notice, read_notice

# AWS: "check for these interruption notices every 5 seconds".
_POLL_S = 5.0
_STOP_WITHIN_S = 5.0
# A node with more time than AWS gives goes on: Azure announces a reboot 15 minutes before it.
_LEAVE_WITHIN_S = 120.0


class _Seen(NamedTuple):
    """A notice, and when it happens by the watcher's clock; None if the cloud did not say."""

    notice: Notice
    happens_at: float | None


class SpotWatcher:
    """Asks this machine's cloud again and again whether it will take the machine."""

    def __init__(
        self,
        cloud: Cloud | None,
        *,
        poll_s: float = _POLL_S,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[Cloud], Notice | None] = read_notice,
    ) -> None:
        """Describe a watcher; it asks nothing before it is started.

        Args:
            cloud: The machine's cloud; a watcher of None never starts and never sees a notice.
            poll_s: Seconds between two questions.
            clock: Seconds since any moment.
            read: Asks once; may raise MetadataError.
        """
        self._cloud = cloud
        self._poll_s = poll_s
        self._clock = clock
        self._read = read
        self._seen: _Seen | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "SpotWatcher":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Ask now, and then every `poll_s` seconds, in a thread."""
        if self._cloud is not None:
            self._thread = threading.Thread(
                target=self._watch, args=(self._cloud,), name="spot-watcher", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread; a question that is under way is waited for."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_STOP_WITHIN_S)

    @property
    def notice(self) -> Notice | None:
        """What will end this machine, with the seconds that are left now; None if nothing will.

        What only makes its loss likelier is no such notice; it may stay for hours.
        """
        seen = self._seen
        if seen is None or not seen.notice.is_certain:
            return None
        if seen.happens_at is None:
            return seen.notice
        return replace(seen.notice, left_s=max(0.0, seen.happens_at - self._clock()))

    def leaving(self) -> str | None:
        """Why this machine should take no more work, in one line; None if it may go on."""
        notice = self.notice
        if notice is None or (notice.left_s or 0.0) > _LEAVE_WITHIN_S:
            return None
        return str(notice)

    def _watch(self, cloud: Cloud) -> None:
        while not self._ended.is_set():
            try:
                notice = self._read(cloud)
            except MetadataError:
                pass  # what was seen before still counts
            else:
                self._seen = None if notice is None else self._date(notice)
            self._ended.wait(self._poll_s)

    def _date(self, notice: Notice) -> _Seen:
        """Note when a notice happens; one that is only repeated does not happen later for that."""
        if notice.left_s is None:
            return _Seen(notice, None)
        happens_at = self._clock() + notice.left_s
        seen = self._seen
        if seen and seen.happens_at is not None and seen.notice.detail == notice.detail:
            happens_at = min(happens_at, seen.happens_at)
        return _Seen(notice, happens_at)


def draining_nodes(now: Callable[[], float] = time.time) -> dict[str, float | None]:
    """Nodes that the connected Ray cluster drains, as Ray's own libraries ask for them.

    A draining node keeps its actors and takes no new ones, so one that dies there is not replaced.

    Args:
        now: Seconds since the epoch, with which Ray's deadlines are compared.

    Returns:
        Seconds until each node's deadline by Ray's id of the node; None for one without a deadline.
    """
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    deadlines_ms: dict[str, int] = client.get_draining_nodes()
    return {
        node: max(0.0, deadline_ms / 1000 - now()) if deadline_ms else None
        for node, deadline_ms in deadlines_ms.items()
    }
