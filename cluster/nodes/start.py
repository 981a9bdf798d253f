"""Start Ray on this machine, or join a cluster: what Ray raises there becomes one line.

    address -> [start] -> a connected Ray -> connect

Ray starts some processes and waits for each for some seconds; on a busy machine one of them may be
late, so a start that fails is tried once more. An address is asked first whether a cluster answers
there, because Ray itself would try for long. This module opens no nodes.
"""

import logging
import os
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from fastformers.cluster.execution.topology import discover_topology
from fastformers.cluster.nodes.addresses import check_answers, check_socket_paths
from fastformers.errors import InputError

logger = logging.getLogger(__name__)

# Size of Ray's object store, near the least that Ray allows; only receipts pass through it.
_OBJECT_STORE_BYTES = 100 * 2**20
_MAX_STARTS = 2
_QUIET: dict[str, Any] = {
    "logging_level": logging.ERROR,
    "log_to_driver": False,
    "configure_logging": True,
}


def start_ray(*, num_cpus: int | None = None) -> None:
    """Start a cluster on this machine, for this process alone.

    Args:
        num_cpus: CPUs that it has; None for the cores that this process may use.

    Raises:
        InputError: Its directory is too deep, or it did not start, twice.
    """
    check_socket_paths(os.environ)
    cpus = num_cpus or max(1, len(discover_topology().cores))
    for number in range(1, _MAX_STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **_QUIET,
            )
        except Exception as error:  # Ray raises plain ones where one of its processes is late
            ray.shutdown()
            reason = say_reason(error)
            if number == _MAX_STARTS:
                raise InputError(
                    f"Ray did not start on this machine, {number} times ({reason}); it may be "
                    "short of CPU, memory or disk: run the same command when it is less busy"
                ) from error
            logger.warning("Ray did not start (%s); trying once more", reason)
        else:
            return


def join_ray(address: str) -> None:
    """Join the cluster at an address.

    Raises:
        InputError: No cluster answers there, or it refuses the connection.
    """
    check_answers(address)
    try:
        ray.init(address=address, **_QUIET)
    except (AuthenticationError, ConnectionError) as error:
        raise InputError(
            f"--address {address}: the cluster refuses the connection ({say_reason(error)}); if it "
            "wants a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the token's file"
        ) from error
    except Exception as error:  # Ray raises plain ones where a process does not answer
        raise InputError(
            f"--address {address}: the cluster cannot be joined ({say_reason(error)}); see ray "
            "status there, and whether its versions of Ray and Python are this one's"
        ) from error


def say_reason(error: BaseException) -> str:
    """What an error says, on one line and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:299]}…"
