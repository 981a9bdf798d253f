import pytest

from fastformers.cluster.devices.crew import Wants
from fastformers.cluster.scheduling.backlog import Backlog
from fastformers.cluster.scheduling.work import Comparison
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.errors import BundleError, InputError, ScoringError, StorageError
from tests.cluster.scheduling.jobs import make_shard, make_slice


def backlog_of(*slices, num_shards=0, scores=True):
    backlog = Backlog(slices, scores=scores)
    for number in range(num_shards):
        backlog.add_shard(make_shard(number, predicted_s=100.0 - number))
    return backlog


def take(backlog, node="a", *, num_slots=1, nodes="abc"):
    wants = Wants(num_slots=num_slots, preparers=nodes, scorers=nodes)
    return backlog.next(node, wants)


def take_all(backlog, **asked):
    jobs = []
    while (job := take(backlog, **asked)) is not None:
        jobs.append(job.shard.name[-1] if isinstance(job, Lease) else job)
    return jobs


def test_slices_come_first_while_fewer_shards_wait_than_there_are_slots():
    first, second = make_slice(0), make_slice(1)
    assert take_all(backlog_of(first, second, num_shards=1), num_slots=2) == [first, second, "0"]
    assert take_all(backlog_of(first, num_shards=2), num_slots=2) == ["0", first, "1"]


def test_what_only_prepares_has_no_shards_that_wait():
    backlog = backlog_of(make_slice(0), num_shards=3, scores=False)
    assert len(backlog) == 1
    assert take_all(backlog) == [make_slice(0)]


def test_it_counts_all_that_waits():
    backlog = backlog_of(make_slice(0), make_slice(1), num_shards=3)
    assert (len(backlog), backlog.num_slices_left, backlog.num_retries) == (5, 2, 0)
    backlog.fail_with(take(backlog), OSError("no such device"), "a")
    assert (len(backlog), backlog.num_slices_left) == (5, 2)
    job = take(backlog, "b")
    assert len(backlog) == 4
    backlog.fail(job, "its actor died")
    assert (len(backlog), backlog.num_retries) == (5, 1)


def test_the_rest_of_a_slice_and_what_comes_back_are_read_before_the_slices_after_it():
    backlog = backlog_of(make_slice(0), make_slice(1))
    take(backlog)
    backlog.add_rest(make_slice(0, first_shard=4))
    assert take_all(backlog) == [make_slice(0, first_shard=4), make_slice(1)]
    for put_back in (backlog.give_back, lambda job: backlog.fail(job, "its actor died")):
        backlog.add_rest(make_slice(3))
        put_back(make_slice(2))
        assert take_all(backlog) == [make_slice(2), make_slice(3)]


def test_a_shard_that_was_given_back_was_not_tried():
    backlog = backlog_of(num_shards=1)
    backlog.give_back(take(backlog))
    assert take(backlog).attempt == 1
    assert backlog.num_retries == 0


def test_a_slice_over_which_a_worker_died_three_times_in_a_row_is_named():
    backlog = backlog_of(make_slice(0))
    for number in (1, 2):
        job = take(backlog)
        assert backlog.attempts_of(job) == number
        backlog.fail(job, "its actor died")
    assert backlog.attempts_of(take(backlog)) == 3
    with pytest.raises(ScoringError, match=r"slice 0 \(a.csv\): its actor died, three times in a"):
        backlog.fail(make_slice(0), "its actor died")


def test_deaths_over_other_slices_and_before_it_was_cut_do_not_count():
    backlog = backlog_of()
    for _ in range(3):
        for job in (make_slice(0), make_slice(1), make_slice(0, first_shard=4)):
            backlog.fail(job, "its actor died")
            backlog.fail(job, "its actor died")
            assert backlog.complete(job)


def test_attempts_of_a_shard_are_those_of_its_lease():
    backlog = backlog_of(num_shards=1)
    backlog.fail(take(backlog), "its actor died")
    assert backlog.attempts_of(take(backlog)) == 2


def test_a_shard_is_done_unless_a_part_of_it_was_only_searched():
    backlog = backlog_of(num_shards=1)
    assert backlog.complete(take(backlog))
    backlog.add_shard(make_shard(7))
    for _ in range(3):
        backlog.fail(take(backlog), "its actor died")
    assert not backlog.complete(take(backlog))
    assert len(backlog) == 1


def test_a_job_that_raised_an_error_goes_to_a_node_where_it_did_not():
    backlog = backlog_of(num_shards=2)
    for node in ("a", "b"):
        backlog.fail_with(take(backlog, "c"), OSError("no such device"), node)
    assert take(backlog, "a").shard.name == make_shard(1).name
    assert take(backlog, "a") is None
    assert take(backlog, "a", nodes="a").shard.name == make_shard(0).name


def test_a_job_that_raised_an_error_on_all_nodes_goes_to_any_of_them():
    backlog = backlog_of()
    for node in ("a", "b"):
        backlog.fail_with(make_slice(0), OSError("no such device"), node)
    assert take(backlog, "a") is None
    assert take(backlog, "a", nodes="ab") == make_slice(0)


def test_a_slice_is_left_until_it_is_cut_whole():
    backlog = backlog_of(make_slice(0), make_slice(1))
    job = take(backlog)
    assert backlog.num_slices_left == 2
    backlog.complete(job)
    assert backlog.num_slices_left == 1
    backlog.add_rest(make_slice(0, first_shard=4))
    assert backlog.num_slices_left == 2
    for put_back in (backlog.give_back, lambda job: backlog.fail(job, "its actor died")):
        put_back(take(backlog))
        assert backlog.num_slices_left == 2


def test_a_job_that_raised_an_error_goes_before_others():
    backlog = backlog_of(make_slice(0), num_shards=1)
    job = make_slice(5)
    backlog.fail_with(job, OSError("no such device"), "a")
    assert take(backlog, "b") == job


@pytest.mark.parametrize("job", [make_slice(0), Lease(shard=make_shard(0), attempt=1)])
def test_the_third_error_of_a_job_ends_the_run(job):
    backlog = backlog_of(num_shards=1)
    error = StorageError("out: disk full; free space")
    for node in ("a", "a"):
        backlog.fail_with(job, error, node)
    with pytest.raises(StorageError, match="disk full"):
        backlog.fail_with(job, error, "b")


def test_errors_before_a_job_was_done_do_not_count():
    backlog = backlog_of()
    for _ in range(3):
        backlog.fail_with(make_slice(0), OSError("no such device"), "a")
        backlog.fail_with(make_slice(0), OSError("no such device"), "b")
        backlog.complete(make_slice(0))


@pytest.mark.parametrize("error_type", [InputError, ScoringError, BundleError])
def test_an_error_of_the_input_ends_the_run_at_once(error_type):
    with pytest.raises(error_type, match=r"a\.csv: no such column"):
        backlog_of().fail_with(make_slice(0), error_type("a.csv: no such column"), "a")


def test_an_error_that_nobody_foresaw_names_its_job():
    backlog = backlog_of()
    for _ in range(2):
        backlog.fail_with(make_slice(3), OSError("no such device"), "a")
    with pytest.raises(ScoringError, match=r"slice 3 \(a\.csv\): OSError\('no such device'\)"):
        backlog.fail_with(make_slice(3), OSError("no such device"), "a")


def on_cores(**changes):
    """What a node on cores may be given where GPUs score, too."""
    wants = {"num_slots": 1, "preparers": "ab", "scorers": "ab", "shortest": True}
    return Wants(**{**wants, **changes})


def test_jobs_are_counted_for_those_that_may_be_given_them():
    backlog = backlog_of(make_slice(0), make_slice(1), num_shards=3)
    backlog.fail_with(make_slice(2), OSError("no such device"), "a")
    for changes, number in (({}, 6), ({"prepares": False}, 4), ({"scores": False}, 3)):
        assert backlog.num_for(on_cores(**changes)) == number


@pytest.mark.parametrize(("gpu_shard_s", "small_s"), [(100.0, 2.0), (4.0, 1.0)])
def test_beside_gpus_some_slices_are_cut_for_them_and_the_others_small(gpu_shard_s, small_s):
    backlog = Backlog(map(make_slice, range(4)), scores=True, gpu_shard_s=gpu_shard_s)
    wants = on_cores(num_gpu_shards=1)
    large, small = backlog.next("a", wants), backlog.next("a", wants)
    assert (large.index, large.shard_seconds) == (0, None)
    assert (small.index, small.shard_seconds) == (1, small_s)
    backlog.give_back(large)
    again = backlog.next("a", wants)
    assert (again.index, again.shard_seconds) == (0, None)
    backlog.complete(again)
    assert backlog.next("a", wants).shard_seconds is None
    assert backlog.next("a", wants).shard_seconds == small_s


def test_the_1st_2nd_4th_shard_of_gpus_is_compared_and_ever_fewer_after_them():
    backlog = backlog_of()
    for number in range(9):
        backlog.compare_some(make_shard(number))
    assert len(backlog) == 4
    jobs = []
    while (job := backlog.next("a", on_cores())) is not None:
        jobs.append(job)
    assert jobs == [Comparison(shard=make_shard(number)) for number in (0, 1, 3, 7)]


def test_a_comparison_comes_back_once_and_is_not_worth_a_second_worker():
    backlog = backlog_of()
    backlog.compare_some(make_shard(0))
    assert take(backlog) is None  # it is for cores
    job = backlog.next("a", on_cores())
    assert (len(backlog), backlog.attempts_of(job)) == (0, 1)
    backlog.give_back(job)
    assert backlog.next("a", on_cores()) == job
    backlog.fail(job, "its actor died")
    backlog.fail_with(job, OSError("no such device"), "a")
    assert len(backlog) == 0
    assert backlog.complete(job)
    backlog.give_back(job)
    backlog.drop_comparisons()
    assert len(backlog) == 0
