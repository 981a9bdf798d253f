import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.execution.topology import (
    Core,
    CoreSet,
    HostTopology,
    apply_core_set,
    describe_core_sets,
    discover_topology,
    plan_core_sets,
)
from fastformers.errors import InputError

REPOSITORY = Path(__file__).parents[3]


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def smt_host(tmp_path):
    """8 logical CPUs: core k has the siblings k and k + 4; cores 0, 1 on node 0 and 2, 3 on 1."""
    write(tmp_path, "sys/devices/system/cpu/online", "0-7\n")
    for cpu in range(8):
        siblings = f"{cpu % 4},{cpu % 4 + 4}\n"
        write(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", siblings)
    write(tmp_path, "sys/devices/system/node/node0/cpulist", "0-1,4-5\n")
    write(tmp_path, "sys/devices/system/node/node1/cpulist", "2-3,6-7\n")
    write(tmp_path, "sys/devices/system/node/node2/cpulist", "\n")  # memory only
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Made-up CPU 9000\n")
    write(tmp_path, "proc/self/cgroup", "0::/jobs/mine\n")
    return tmp_path


def make_host(node_of_core, *, quota_cores=None):
    cores = [Core(logical_cpus=(idx,), numa_node=node) for idx, node in enumerate(node_of_core)]
    return HostTopology(
        hostname="host",
        cores=tuple(cores),
        quota_cores=quota_cores,
        num_logical_cpus_of_host=64,
        cpu_model="Made-up CPU 9000",
    )


def test_siblings_are_one_core_and_nodes_are_known(smt_host):
    topology = discover_topology(smt_host, range(8))
    assert [(core.logical_cpus, core.numa_node) for core in topology.cores] == [
        ((0, 4), 0),
        ((1, 5), 0),
        ((2, 6), 1),
        ((3, 7), 1),
    ]
    assert topology.num_usable_cores == 4
    assert topology.num_logical_cpus_of_host == 8
    assert topology.cpu_model == "Made-up CPU 9000"
    assert topology.quota_cores is None


def test_a_core_counts_if_one_sibling_is_allowed(smt_host):
    topology = discover_topology(smt_host, [5, 2, 6])
    assert [core.logical_cpus for core in topology.cores] == [(5,), (2, 6)]
    assert [core.numa_node for core in topology.cores] == [0, 1]


def test_without_kernel_files_each_cpu_is_a_core_on_node_0(tmp_path):
    topology = discover_topology(tmp_path, [3, 1])
    assert topology.cores == (
        Core(logical_cpus=(1,), numa_node=0),
        Core(logical_cpus=(3,), numa_node=0),
    )
    assert topology.quota_cores is None
    assert topology.num_logical_cpus_of_host == psutil.cpu_count()


def test_this_machine_is_discovered():
    topology = discover_topology()
    cpus = [cpu for core in topology.cores for cpu in core.logical_cpus]
    assert len(set(cpus)) == len(cpus) <= topology.num_logical_cpus_of_host
    assert topology.cpu_model


def test_without_affinity_physical_cores_are_counted(tmp_path, monkeypatch):
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    topology = discover_topology(tmp_path)
    assert topology.num_usable_cores == 4
    assert topology.num_logical_cpus_of_host == 8


def test_no_allowed_cpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match="allowed_cpus is empty"):
        discover_topology(tmp_path, [])


def test_tightest_cgroup_of_version_2_wins(smt_host):
    write(smt_host, "sys/fs/cgroup/jobs/mine/cpu.max", "max 100000\n")
    write(smt_host, "sys/fs/cgroup/jobs/cpu.max", "150000 100000\n")
    write(smt_host, "sys/fs/cgroup/cpu.max", "300000 100000\n")
    write(smt_host, "sys/fs/cgroup/elsewhere/cpu.max", "50000 100000\n")
    topology = discover_topology(smt_host, range(8))
    assert topology.quota_cores == 1.5
    assert topology.num_usable_cores == 1


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_quota_of_version_1_is_read(smt_host, mount):
    write(smt_host, "proc/self/cgroup", "4:memory:/m\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    group = f"sys/fs/cgroup/{mount}/docker/abc"
    write(smt_host, f"{group}/cpu.cfs_quota_us", "250000\n")
    write(smt_host, f"{group}/cpu.cfs_period_us", "100000\n")
    topology = discover_topology(smt_host, range(8))
    assert topology.quota_cores == 2.5
    assert topology.num_usable_cores == 2


def test_container_that_sees_only_its_own_group_has_its_quota(smt_host):
    write(smt_host, "proc/self/cgroup", "2:cpu:/docker/path-of-the-host\n")
    write(smt_host, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n")
    write(smt_host, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert discover_topology(smt_host, range(8)).quota_cores == 2


def test_version_1_without_a_limit_is_no_quota(smt_host):
    write(smt_host, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(smt_host, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert discover_topology(smt_host, range(8)).quota_cores is None


def test_less_than_one_core_of_quota_still_runs_one_actor():
    assert plan_core_sets(
        make_host([0, 0], quota_cores=0.5), num_actors=None, cores_per_actor=1
    ) == [CoreSet(cpus=(0,), num_threads=1)]


def test_an_actor_owns_all_siblings_but_runs_a_thread_per_core(smt_host):
    topology = discover_topology(smt_host, range(8))
    assert plan_core_sets(topology, num_actors=None, cores_per_actor=2) == [
        CoreSet(cpus=(0, 1, 4, 5), num_threads=2),
        CoreSet(cpus=(2, 3, 6, 7), num_threads=2),
    ]


def test_an_actor_spans_nodes_only_when_no_node_has_room():
    core_sets = plan_core_sets(make_host([0, 0, 0, 1, 1, 1]), num_actors=None, cores_per_actor=2)
    assert [core_set.cpus for core_set in core_sets] == [(0, 1), (3, 4), (2, 5)]


nodes = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(sorted)


@given(nodes, st.integers(1, 40), st.none() | st.floats(0.1, 50))
def test_no_core_is_given_twice_and_no_room_in_a_node_is_passed_over(node_of_core, size, quota):
    topology = make_host(node_of_core, quota_cores=quota)
    if size > topology.num_usable_cores:
        with pytest.raises(InputError):
            plan_core_sets(topology, num_actors=None, cores_per_actor=size)
        return
    core_sets = plan_core_sets(topology, num_actors=None, cores_per_actor=size)
    cpus = [cpu for core_set in core_sets for cpu in core_set.cpus]
    assert len(core_sets) == topology.num_usable_cores // size
    assert len(set(cpus)) == len(cpus) == size * len(core_sets)
    num_whole_actors = sum(node_of_core.count(node) // size for node in set(node_of_core))
    nodes_of_actors = [{node_of_core[cpu] for cpu in core_set.cpus} for core_set in core_sets]
    num_in_one_node = sum(len(nodes) == 1 for nodes in nodes_of_actors)
    assert num_in_one_node == min(len(core_sets), num_whole_actors)


@given(nodes, st.integers(1, 60), st.integers(1, 5))
def test_oversubscribed_cores_are_shared_evenly_on_one_node(node_of_core, num_actors, size):
    core_sets = plan_core_sets(
        make_host([0] * len(node_of_core)),
        num_actors=num_actors,
        cores_per_actor=size,
        oversubscribe=True,
    )
    num_claims = [sum(cpu in s.cpus for s in core_sets) for cpu in range(len(node_of_core))]
    assert len(core_sets) == num_actors
    assert max(num_claims) - min(num_claims) <= 1


def test_too_many_actors_are_refused_with_the_limits_and_the_remedy():
    with pytest.raises(InputError) as error:
        plan_core_sets(make_host([0, 0]), num_actors=5, cores_per_actor=1)
    assert str(error.value) == (
        "--num-actors 5 x --cores-per-actor 1 needs 5 cores, but this process may use 2 "
        "(host has 64 logical CPUs; affinity allows 2 of them, on 2 cores; cgroup quota none); "
        "lower one of them or pass --oversubscribe"
    )


def test_an_actor_larger_than_the_quota_is_refused():
    with pytest.raises(InputError, match=r"^--cores-per-actor 2 needs 2 .* quota 1\.5 cores\); l"):
        plan_core_sets(make_host([0, 0], quota_cores=1.5), num_actors=None, cores_per_actor=2)


@pytest.mark.parametrize(
    ("num_actors", "cores_per_actor", "flag"),
    [(0, 1, "--num-actors"), (None, 0, "--cores-per-actor"), (2, -1, "--cores-per-actor")],
)
def test_counts_below_one_name_the_flag(num_actors, cores_per_actor, flag):
    with pytest.raises(InputError, match=f"^{flag} must be at least 1"):
        plan_core_sets(
            make_host([0]),
            num_actors=num_actors,
            cores_per_actor=cores_per_actor,
            oversubscribe=True,
        )


@pytest.mark.parametrize(
    ("num_cores", "quota", "num_actors", "size", "line"),
    [
        (2, None, 2, 1, "2 actors x 1 thread on cores 0,1 of 2; no overlap"),
        (64, None, 8, 2, "8 actors x 2 threads on cores 0-15 of 64; no overlap"),
        (1, None, 1, 1, "1 actor x 1 thread on core 0 of 1; no overlap"),
        (
            2,
            None,
            3,
            1,
            "3 actors x 1 thread on cores 0,1 of 2; OVERSUBSCRIBED: core 0 is shared by 2 actors",
        ),
        (
            3,
            None,
            8,
            1,
            "8 actors x 1 thread on cores 0-2 of 3; "
            "OVERSUBSCRIBED: core 2 is shared by 2 actors, cores 0,1 are shared by 3 actors",
        ),
        (
            2,
            None,
            1,
            4,
            "1 actor x 4 threads on cores 0,1 of 2; OVERSUBSCRIBED: 4 threads for 2 usable cores",
        ),
        (
            2,
            1.5,
            2,
            1,
            "2 actors x 1 thread on cores 0,1 of 2; OVERSUBSCRIBED: 2 threads for 1 usable core",
        ),
    ],
)
def test_a_plan_is_described_in_one_line(num_cores, quota, num_actors, size, line):
    topology = make_host([0] * num_cores, quota_cores=quota)
    core_sets = plan_core_sets(
        topology, num_actors=num_actors, cores_per_actor=size, oversubscribe=True
    )
    assert describe_core_sets(core_sets, topology) == line


def test_description_names_cpus_where_they_are_not_the_core_numbers(smt_host):
    topology = discover_topology(smt_host, range(8))
    core_sets = plan_core_sets(topology, num_actors=3, cores_per_actor=1)
    assert describe_core_sets(core_sets, topology) == (
        "3 actors x 1 thread on cores 0-2 of 4 (CPUs 0-2,4-6); no overlap"
    )


APPLY_IN_A_PROCESS = """
import json, os, sys, threading
from fastformers.cluster.execution.topology import CoreSet, apply_core_set

asleep = threading.Event()
threading.Thread(target=asleep.wait, daemon=True).start()
cpus = json.loads(sys.argv[1])
apply_core_set(CoreSet(cpus=tuple(cpus), num_threads=int(sys.argv[2])))
tids = [int(tid) for tid in os.listdir("/proc/self/task")]
names = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")
print(json.dumps([
    [sorted(os.sched_getaffinity(tid)) for tid in tids], [os.environ[name] for name in names]
]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
@pytest.mark.parametrize(
    ("num_threads", "environment"), [(1, ["1", "1", "false"]), (3, ["3", "3", "true"])]
)
def test_every_thread_is_pinned_and_pools_are_sized(num_threads, environment):
    cpu = max(os.sched_getaffinity(0))
    command = [sys.executable, "-c", APPLY_IN_A_PROCESS, json.dumps([cpu]), str(num_threads)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    affinities, pools = json.loads(result.stdout)
    assert len(affinities) >= 2
    assert all(affinity == [cpu] for affinity in affinities)
    assert pools == environment


def test_where_threads_cannot_be_pinned_one_by_one_the_process_is(monkeypatch):
    """As on Windows."""
    pinned = []
    for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(
        psutil.Process, "cpu_affinity", lambda process, cpus: pinned.append(cpus), raising=False
    )
    apply_core_set(CoreSet(cpus=(1, 3), num_threads=2))
    assert pinned == [[1, 3]]
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_cpus_of_another_host_are_refused_before_anything_changes():
    before = os.sched_getaffinity(0), dict(os.environ)
    with pytest.raises(InputError, match=r"cannot pin to CPUs 1022,1023 .*plan core sets on the"):
        apply_core_set(CoreSet(cpus=(1022, 1023), num_threads=2))
    assert before == (os.sched_getaffinity(0), dict(os.environ))
