"""The thread pool: every thread comes, nobody passes a barrier early, forks and callers do no harm."""

import itertools
import os
import threading

import pytest

from edgellm import _core


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8, 16])
def test_pool_runs_on_every_thread_and_barriers_hold(threads):
    pool = _core.testing_pool_new(threads)
    assert _core.testing_pool_rounds(pool, 20, 5) == (threads, 0)


@pytest.mark.parametrize("threads", [0, 257, 10**6])
def test_pool_of_impossible_size_is_refused(threads):
    with pytest.raises(ValueError, match="threads must be 1 to 256"):
        _core.testing_pool_new(threads)


def test_pool_serves_several_callers():
    pool = _core.testing_pool_new(3)
    results = []
    callers = [
        threading.Thread(target=lambda: results.append(_core.testing_pool_rounds(pool, 30, 3)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [(3, 0)] * 4


def test_pool_wakes_after_it_slept():
    pool = _core.testing_pool_new(2)
    for _ in range(3):
        threading.Event().wait(0.02)  # longer than workers spin
        assert _core.testing_pool_rounds(pool, 1, 2) == (2, 0)


def _in_child(work):
    """Run `work` in a forked child; its exit status says whether it returned True in time."""
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(30)
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_pool_restarts_its_workers_after_a_fork():
    pool = _core.testing_pool_new(3)
    assert _core.testing_pool_rounds(pool, 2, 2) == (3, 0)
    assert _in_child(lambda: _core.testing_pool_rounds(pool, 5, 2) == (3, 0)) == 0
    assert _core.testing_pool_rounds(pool, 2, 2) == (3, 0)


def test_pool_restarts_in_a_child_of_a_child():
    pool = _core.testing_pool_new(2)

    def child():
        return _in_child(lambda: _core.testing_pool_rounds(pool, 2, 2) == (2, 0)) == 0

    assert _in_child(child) == 0


def test_pool_survives_a_fork_while_another_thread_runs_it():
    pool = _core.testing_pool_new(2)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            _core.testing_pool_rounds(pool, 1, 1)

    runner = threading.Thread(target=busy)
    runner.start()
    try:
        codes = [_in_child(lambda: _core.testing_pool_rounds(pool, 3, 1) == (2, 0)) for _ in range(5)]
    finally:
        stop.set()
        runner.join()
    assert codes == [0] * 5


def test_pool_is_freed_in_a_child():
    pools = [_core.testing_pool_new(2)]
    assert _in_child(lambda: pools.pop() is not None) == 0


@pytest.mark.parametrize("grain", [1, 16])
@pytest.mark.parametrize("items", [0, 1, 15, 16, 17, 100, 49152])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_partition_covers_everything_once(items, grain, threads):
    parts = [_core.testing_partition(items, grain, i, threads) for i in range(threads)]
    assert parts[0][0] == 0
    assert parts[-1][1] == items
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert all(begin % grain == 0 or begin == items for begin, _ in parts)
    sizes = [-(-(end - begin) // grain) for begin, end in parts]
    assert max(sizes) - min(sizes) <= 1
