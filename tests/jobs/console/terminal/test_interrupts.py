"""What signals do to a command, in processes of their own; Ray is not there."""

import signal
import subprocess
import sys
import threading

import psutil
import pytest

from fastformers.jobs.console.terminal.interrupts import (
    SIGNALS,
    Interrupts,
    interruptible,
    keep_handlers,
)

# A command that says when it works, cleans up, and says so; it is stuck where nothing but C runs.
COMMAND = """
import hashlib, signal, sys, time
from fastformers.jobs.console.output import run

how, ignored = sys.argv[1:]
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # those who run tests may ignore some
    signal.signal(number, signal.SIG_IGN if str(number.value) == ignored else signal.SIG_DFL)

def job():
    signal.signal(signal.SIGUSR1, lambda number, frame: print("works on", flush=True))
    try:
        print("works", flush=True)
        if how == "stuck":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        time.sleep(600)
    finally:
        print("cleans up", flush=True)
        if how == "slow":
            time.sleep(600)

sys.exit(run(job, resume="run it again"))
"""


def start(how, *, ignored=0):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, how, str(int(ignored))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "works\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_as_ctrl_c_does(number):
    process = start("")
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (out, error) == ("cleans up\n", "interrupted. run it again\n")
    assert process.returncode == 128 + number


def test_a_second_signal_ends_a_command_that_is_slow_to_clean_up():
    process = start("slow")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleans up\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "interrupted twice: ended at once.\n")
    assert process.returncode == 143


def test_a_second_signal_ends_a_command_that_is_stuck_and_cannot_clean_up():
    process = start("stuck")
    cpu_s = sum(psutil.Process(process.pid).cpu_times()[:2])
    while sum(psutil.Process(process.pid).cpu_times()[:2]) < cpu_s + 0.2:
        pass  # it is not in C yet
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):  # a handler of Python's waits for its turn
        process.communicate(timeout=1)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "interrupted twice: ended at once.\n")
    assert process.returncode == 143


def test_a_signal_that_is_ignored_stays_so():
    process = start("", ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)  # as nohup has it
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("cleans up\n", "interrupted. run it again\n")
    assert process.returncode == 143


def test_other_signals_are_not_counted():
    process = start("other")
    for _ in range(2):
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "works on\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("cleans up\n", "interrupted. run it again\n")


def test_cleaning_up_is_not_interrupted_again():
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt):
        interrupts.handle(signal.SIGTERM, None)
    interrupts.handle(signal.SIGINT, None)  # the process is about to end
    assert interrupts.number == signal.SIGTERM


def test_handlers_are_there_while_the_block_runs_only():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with interruptible() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert interrupts.number == signal.SIGTERM
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_handlers_that_other_code_replaced_are_put_back():
    with interruptible():
        before = signal.getsignal(signal.SIGTERM)
        with keep_handlers() as put_back:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            put_back()
            assert signal.getsignal(signal.SIGTERM) == before
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_nothing_changes():
    seen = []

    def run():
        with interruptible() as interrupts, keep_handlers() as put_back:
            put_back()
            seen.append((interrupts.number, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
