"""Long work tells how far it is to who drives it, and to nobody else."""

import contextlib
import threading

import pytest
import torch

from studio.backend import progress
from studio.backend.progress import Progress, counted, driven, tell
from studio.data.at_once import at_once


def told(work, **options):
    """Everything that work tells, and what it gives."""
    steps, found = driven(work, contextlib.nullcontext()), []
    while True:
        try:
            found.append(next(steps))
        except StopIteration as finished:
            return found, finished.value


def test_work_tells_its_driver_and_gives_its_result(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0)
    assert told(lambda: [x * x for x in counted(range(3), "squares", 3)]) == (
        [Progress("squares", done, 3) for done in range(4)], [0, 1, 4],
    )  # fmt: skip


def test_of_quick_work_the_first_and_the_last_are_told():
    found, _ = told(lambda: list(counted(range(100), "steps", 100)))
    assert [each.done for each in found] == [0, 100]


def test_work_that_nobody_drives_tells_nobody():
    assert list(counted(range(3), "squares", 3)) == [0, 1, 2]
    tell("anything", 1, 2)


def test_what_breaks_in_the_work_is_raised_for_the_driver():
    def work():
        tell("a start")
        raise ValueError("broken")

    steps = driven(work, contextlib.nullcontext())
    assert next(steps) == Progress("a start")
    with pytest.raises(ValueError, match="broken"):
        next(steps)


def test_closing_ends_the_work_where_it_tells_next_and_it_cleans_up():
    seen = []

    def work():
        try:
            seen.extend(counted(range(10**9), "for ever", 0))
        except Exception:  # no such clause may hold it up
            seen.append("held up")
        finally:
            seen.append("cleaned")

    before = threading.active_count()
    steps = driven(work, contextlib.nullcontext())
    next(steps)
    steps.close()
    assert seen[-1] == "cleaned"
    assert "held up" not in seen
    assert threading.active_count() == before


def test_the_work_stands_still_while_the_driver_looks(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0)
    done = []
    for each in driven(
        lambda: [done.append(x) for x in counted(range(5), "steps", 5)], contextlib.nullcontext()
    ):
        assert len(done) == each.done


def test_torchs_modes_of_the_driver_do_not_reach_the_work_nor_come_back():
    def work():
        torch.set_grad_enabled(True)
        tell("once")
        return torch.is_grad_enabled()

    with torch.no_grad():
        assert told(work)[1]
        assert not torch.is_grad_enabled()


def test_random_numbers_are_those_of_the_same_work_without_a_driver():
    torch.manual_seed(3)
    straight = torch.randn(4)
    torch.manual_seed(3)
    assert torch.equal(told(lambda: torch.randn(4))[1], straight)


def test_files_in_threads_keep_their_order_and_stop_early():
    assert at_once(lambda x: x + 1, range(50), "numbers") == list(range(1, 51))
    started = []

    def work(x):
        started.append(x)
        if x == 0:
            raise ValueError("broken")
        return threading.Event().wait(0.01)

    with pytest.raises(ValueError, match="broken"):
        at_once(work, range(10_000), "numbers")
    assert len(started) < 1000


def test_the_driver_and_the_work_keep_their_random_numbers_to_themselves(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0)

    def drawn(look):
        torch.manual_seed(5)
        steps, found = (
            driven(lambda: [torch.rand(2) for _ in counted(range(3), "draws", 3)], contextlib.nullcontext()),
            [],
        )
        while True:
            try:
                next(steps)
                if look:
                    found.append(float(torch.rand(())))
            except StopIteration as finished:
                return torch.stack(finished.value), found

    (quiet, _), (watched, mine) = drawn(look=False), drawn(look=True)
    assert torch.equal(quiet, watched)
    torch.manual_seed(5)
    assert mine == [float(torch.rand(())) for _ in mine]


def test_an_interrupt_does_not_wait_for_work_that_tells_nothing():
    started, end = threading.Event(), threading.Event()

    def work():
        tell("a start")
        started.set()
        end.wait(30)

    steps = driven(work, contextlib.nullcontext())
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    assert not started.is_set()
    end.set()
