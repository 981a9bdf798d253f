"""Find out which cores this process may use, and give each scoring actor its own.

    host -> [topology] -> one core set per actor -> actor -> predictions

Libraries size their thread pools by the CPUs of the host. Under an affinity mask, a cpuset or a
cgroup quota they start too many threads and slow down; two actors that share a core do the same.
So cores are counted here once, after every limit, and each actor is pinned to cores of its own.

One thread per physical core: an int8 matrix product fills the vector units of a core, so a second
SMT thread adds no arithmetic. The siblings still belong to the actor's set, for its other threads.

Discovery reads the kernel's files below a root, planning is pure, and only `apply_core_set` changes
the process. This module knows nothing of Ray, models or shards.
"""

import contextlib
import os
import platform
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from fastformers.cluster.devices.cards import Card
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.inference.cpu import kernel_text, read_cpu_model


@dataclass(frozen=True, kw_only=True)
class Core:
    """A physical core.

    Attributes:
        logical_cpus: Its SMT siblings that this process may use, ascending.
        numa_node: Node whose memory is near to it; 0 where the kernel names none.
    """

    logical_cpus: tuple[int, ...]
    numa_node: int


@dataclass(frozen=True, kw_only=True)
class HostTopology:
    """One machine as this process may use it.

    Attributes:
        hostname: Name of the machine, or of the container.
        cores: Physical cores with at least one allowed CPU, by NUMA node, then by CPU.
        quota_cores: CPU seconds per second that the tightest cgroup allows; None without a limit.
        num_logical_cpus_of_host: Logical CPUs online, allowed or not.
        cpu_model: Name that the CPU gives itself, or its architecture where it gives none.
    """

    hostname: str
    cores: tuple[Core, ...]
    quota_cores: float | None
    num_logical_cpus_of_host: int
    cpu_model: str

    @property
    def num_usable_cores(self) -> int:
        """Threads that can compute at once: allowed physical cores, or fewer under a quota."""
        if self.quota_cores is None:
            return len(self.cores)
        return min(len(self.cores), max(1, int(self.quota_cores)))


@dataclass(frozen=True, kw_only=True)
class CoreSet:
    """The CPUs of one actor.

    Attributes:
        cpus: Logical CPUs to pin to, ascending: every allowed sibling of the actor's cores.
        num_threads: Threads to compute with: the number of physical cores asked for.
    """

    cpus: tuple[int, ...]
    num_threads: int


@dataclass(frozen=True, kw_only=True)
class CardCores:
    """A GPU, and the cores that its actors own together.

    Attributes:
        card: The GPU.
        core_set: Cores near to it, with the threads of each actor.
    """

    card: Card
    core_set: CoreSet


def discover_topology(
    root: Path = Path("/"), allowed_cpus: Collection[int] | None = None
) -> HostTopology:
    """Read what this process may use of the machine it runs on.

    Args:
        root: Directory that holds `sys` and `proc`; a fake tree in tests.
        allowed_cpus: Logical CPUs to use instead of the affinity of this process.

    Raises:
        ValueError: `allowed_cpus` is empty.
    """
    if allowed_cpus is None:
        allowed_cpus = _affinity()
    if not allowed_cpus:
        raise ValueError("allowed_cpus is empty; leave it out to use the affinity of this process")
    online = _parse_cpu_list(kernel_text(root / "sys/devices/system/cpu/online"))
    return HostTopology(
        hostname=platform.node(),
        cores=_discover_cores(root, allowed_cpus),
        quota_cores=_cgroup_quota(root),
        num_logical_cpus_of_host=len(online) or psutil.cpu_count() or 1,
        cpu_model=read_cpu_model(root),
    )


def plan_core_sets(
    topology: HostTopology,
    *,
    num_actors: int | None,
    cores_per_actor: int,
    oversubscribe: bool = False,
) -> list[CoreSet]:
    """Give each actor physical cores of its own.

    Each actor takes the least used cores, those of one NUMA node before those of several and the
    first node before the next. With enough cores none is used twice, and an actor spans nodes only
    when no single node has room for it.

    Args:
        topology: The machine, after all limits.
        num_actors: Actors to place; None for as many as fit.
        cores_per_actor: Physical cores, and threads, of each.
        oversubscribe: Whether to share cores instead of refusing a plan that does not fit.

    Raises:
        InputError: A count is below 1, or the plan needs more cores than may be used.
    """
    _check_counts(topology, num_actors, cores_per_actor, oversubscribe=oversubscribe)
    if num_actors is None:
        num_actors = max(1, topology.num_usable_cores // cores_per_actor)
    nodes = sorted({core.numa_node for core in topology.cores})
    pools = [[core for core in topology.cores if core.numa_node == node] for node in nodes]
    # An actor larger than a node can only have cores of all nodes.
    pools = [pool for pool in pools if len(pool) >= cores_per_actor] + [list(topology.cores)]
    num_claims: Counter[Core] = Counter()
    core_sets = []
    for _ in range(num_actors):
        choices = [sorted(pool, key=num_claims.__getitem__)[:cores_per_actor] for pool in pools]
        chosen = min(choices, key=lambda cores: max(num_claims[core] for core in cores))
        num_claims.update(chosen)
        core_sets.append(_core_set_of(chosen, num_threads=cores_per_actor))
    return core_sets


def plan_card_cores(
    topology: HostTopology, cards: Sequence[Card], *, cores_per_card: int, num_threads: int
) -> tuple[CardCores, ...]:
    """Give each GPU cores of its own, near to it as far as that is known.

    It takes cores of its NUMA node that no other has, else any that no other has; where there are
    too few for all, those that the fewest have. So the plan of a machine does not depend on which
    of its GPUs are free.

    Args:
        topology: The machine, after all limits.
        cards: Its GPUs.
        cores_per_card: Cores of each.
        num_threads: Threads of each of its actors.
    """
    num_claims: Counter[Core] = Counter()
    plans = []
    for card in cards:
        by_distance = sorted(
            topology.cores, key=lambda core: (num_claims[core], core.numa_node != card.numa_node)
        )
        chosen = by_distance[:cores_per_card]
        num_claims.update(chosen)
        core_set = _core_set_of(chosen, num_threads=min(num_threads, len(chosen)))
        plans.append(CardCores(card=card, core_set=core_set))
    return tuple(plans)


def without_card_cores(topology: HostTopology, plans: Sequence[CardCores]) -> HostTopology:
    """What a machine has beside the cores of its GPUs."""
    taken = {cpu for plan in plans for cpu in plan.core_set.cpus}
    cores = tuple(core for core in topology.cores if taken.isdisjoint(core.logical_cpus))
    quota = topology.quota_cores
    if quota is not None:
        quota = max(0.0, quota - (len(topology.cores) - len(cores)))
    return replace(topology, cores=cores, quota_cores=quota)


def describe_card_cores(
    plans: Sequence[CardCores], topology: HostTopology, *, num_actors: int
) -> str:
    """Say in one line which cores the actors on GPUs own, and whether these are near."""
    cpus = {cpu for plan in plans for cpu in plan.core_set.cpus}
    node_of = {cpu: core.numa_node for core in topology.cores for cpu in core.logical_cpus}
    is_known = all(plan.card.numa_node is not None for plan in plans)
    is_near = all(
        node_of[cpu] == plan.card.numa_node for plan in plans for cpu in plan.core_set.cpus
    )
    place = "near them" if is_near else "some of them far from their GPU"
    return (
        f"{format_count(num_actors, 'actor')} on {format_count(len(plans), 'GPU')}, with CPUs "
        f"{_as_ranges(cpus)}, {place if is_known else 'whose distance is not known'}"
    )


def describe_core_sets(core_sets: Sequence[CoreSet], topology: HostTopology) -> str:
    """Say in one line where the actors run and whether they share cores.

    Cores are numbered by their place in `topology.cores`; logical CPUs follow where they differ.
    """
    num_actors_of_core = Counter(
        core_idx
        for core_set in core_sets
        for core_idx, core in enumerate(topology.cores)
        if not set(core.logical_cpus).isdisjoint(core_set.cpus)
    )
    cpus = {cpu for core_set in core_sets for cpu in core_set.cpus}
    threads = " or ".join(str(n) for n in sorted({core_set.num_threads for core_set in core_sets}))
    conflicts = _describe_conflicts(core_sets, topology, num_actors_of_core)
    return (
        f"{format_count(len(core_sets), 'actor')} x {threads} thread{'s' * (threads != '1')} on "
        f"core{'s' * (len(num_actors_of_core) != 1)} {_as_ranges(num_actors_of_core)} "
        f"of {len(topology.cores)}"
        + ("" if cpus == set(num_actors_of_core) else f" (CPUs {_as_ranges(cpus)})")
        + (f"; OVERSUBSCRIBED: {', '.join(conflicts)}" if conflicts else "; no overlap")
    )


def apply_core_set(core_set: CoreSet) -> None:
    """Pin this process, all its threads included, and size the thread pools it will start.

    A pool that already runs keeps its size, so call this before the first tokenizer or session.
    Where the platform has no affinity (macOS) only the environment is set.

    Raises:
        InputError: This host does not have those CPUs, or does not allow them.
    """
    try:
        _pin_all_threads(core_set.cpus)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot pin to CPUs {_as_ranges(core_set.cpus)} on {platform.node()}: {error}; "
            "plan core sets on the host that applies them, under the same cpuset"
        ) from error
    os.environ["RAYON_NUM_THREADS"] = str(core_set.num_threads)
    os.environ["OMP_NUM_THREADS"] = str(core_set.num_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if core_set.num_threads == 1 else "true"


def _check_counts(
    topology: HostTopology, num_actors: int | None, cores_per_actor: int, *, oversubscribe: bool
) -> None:
    for flag, count in (("--num-actors", num_actors), ("--cores-per-actor", cores_per_actor)):
        if count is not None and count < 1:
            raise InputError(f"{flag} must be at least 1, not {count}")
    needed = (1 if num_actors is None else num_actors) * cores_per_actor
    if oversubscribe or needed <= topology.num_usable_cores:
        return
    asked, remedy = f"--cores-per-actor {cores_per_actor}", "lower it"
    if num_actors is not None:
        asked, remedy = f"--num-actors {num_actors} x {asked}", "lower one of them"
    num_allowed = sum(len(core.logical_cpus) for core in topology.cores)
    quota = topology.quota_cores
    raise InputError(
        f"{asked} needs {needed} cores, but this process may use {topology.num_usable_cores} "
        f"(host has {topology.num_logical_cpus_of_host} logical CPUs; affinity allows "
        f"{num_allowed} of them, on {format_count(len(topology.cores), 'core')}; cgroup quota "
        f"{'none' if quota is None else f'{quota:g} cores'}); {remedy} or pass --oversubscribe"
    )


def _core_set_of(cores: Sequence[Core], *, num_threads: int) -> CoreSet:
    cpus = sorted(cpu for core in cores for cpu in core.logical_cpus)
    return CoreSet(cpus=tuple(cpus), num_threads=num_threads)


def _describe_conflicts(
    core_sets: Sequence[CoreSet], topology: HostTopology, num_actors_of_core: Counter[int]
) -> list[str]:
    conflicts = []
    for num_actors in sorted(set(num_actors_of_core.values()) - {1}):
        shared = [core for core, count in num_actors_of_core.items() if count == num_actors]
        verb = f"core {shared[0]} is" if len(shared) == 1 else f"cores {_as_ranges(shared)} are"
        conflicts.append(f"{verb} shared by {num_actors} actors")
    num_threads = sum(core_set.num_threads for core_set in core_sets)
    if not conflicts and num_threads > topology.num_usable_cores:
        usable = format_count(topology.num_usable_cores, "usable core")
        conflicts.append(f"{format_count(num_threads, 'thread')} for {usable}")
    return conflicts


def _affinity() -> list[int]:
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return process.cpu_affinity()
    return list(range(psutil.cpu_count(logical=False) or 1))


def _pin_all_threads(cpus: Collection[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        for task in list(Path("/proc/self/task").iterdir()):
            # A thread may end between the listing and the call.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cpus)
    elif hasattr(psutil.Process, "cpu_affinity"):
        psutil.Process().cpu_affinity(list(cpus))


def _discover_cores(root: Path, allowed_cpus: Collection[int]) -> tuple[Core, ...]:
    node_of_cpu = {}
    for node in (root / "sys/devices/system/node").glob("node[0-9]*"):
        for cpu in _parse_cpu_list(kernel_text(node / "cpulist")):
            node_of_cpu[cpu] = int(node.name.removeprefix("node"))
    siblings_of_cores = set()
    for cpu in set(allowed_cpus):
        listed = kernel_text(
            root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        )
        siblings = {cpu}.union(_parse_cpu_list(listed)).intersection(allowed_cpus)
        siblings_of_cores.add(tuple(sorted(siblings)))
    cores = [
        Core(logical_cpus=siblings, numa_node=node_of_cpu.get(siblings[0], 0))
        for siblings in siblings_of_cores
    ]
    return tuple(sorted(cores, key=lambda core: (core.numa_node, core.logical_cpus)))


def _cgroup_quota(root: Path) -> float | None:
    pairs = []
    for group in _cgroups(root):
        version_1 = "".join(kernel_text(group / f"cpu.cfs_{of}_us") for of in ("quota", "period"))
        pairs += [kernel_text(group / "cpu.max").split(), version_1.split()]
    # An unlimited quota is "max" in version 2 and -1 in version 1.
    limits = [pair for pair in pairs if len(pair) == 2 and pair[0].isdigit()]
    return min((int(quota) / int(period) for quota, period in limits), default=None)


def _cgroups(root: Path) -> list[Path]:
    """Directories whose CPU limits bind this process, version 1 and 2, from its own group upwards.

    In a container `proc/self/cgroup` may name a path of the host, which is not mounted here; its
    upper end, the mount point, then is the container's own group.
    """
    top = root / "sys/fs/cgroup"
    path_of_mount = {top: "/", top / "unified": "/", top / "cpu": "/"}
    for line in kernel_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            path_of_mount |= {top: path, top / "unified": path}
        elif "cpu" in controllers.split(","):
            path_of_mount |= {top / controllers: path, top / "cpu": path}
    groups = []
    for mount, path in path_of_mount.items():
        parts = [part for part in path.split("/") if part not in ("", "..")]
        groups += [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return groups


def _parse_cpu_list(text: str) -> list[int]:
    """CPUs of the kernel's list format: "0-2,8" is [0, 1, 2, 8]."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            cpus += range(int(first), int(last or first) + 1)
    return cpus


def _as_ranges(numbers: Iterable[int]) -> str:
    """The kernel's list format, with two neighbors as "0,1" and three or more as "0-2"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs
    )
