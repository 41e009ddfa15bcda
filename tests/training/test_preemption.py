"""A training that must go saves the update it is at, whatever it trains by, and goes on from there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny_adapters import same, train_one

from sparta.training import preemption
from sparta.training.checkpoints import is_sealed
from sparta.training.factory import train_expert

TRAINED_BY = {"make_job": train_one, "make_expert": train_expert}


class Gone(Exception):
    pass


def go() -> None:
    raise Gone


@pytest.fixture(params=TRAINED_BY)
def trained(request: pytest.FixtureRequest) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """How a job is made, and done."""
    return request.getfixturevalue(request.param), TRAINED_BY[request.param]


@pytest.mark.parametrize("saved_every", [2, 1000])
def test_asked_in_an_update_it_saves_that_one_and_goes(
    trained: tuple[Callable[..., Any], Callable[..., Any]], saved_every: int
) -> None:
    make, do = trained
    undisturbed, job = make("undisturbed"), make("asked", {"save_updates": saved_every})
    do(undisturbed, "hf")
    updates: list[int] = []

    def asked(update: int, total: int, loss: float | None) -> None:
        updates.append(update)
        if update == 3:
            assert preemption.postpone(go)

    with pytest.raises(Gone):
        do(job, "hf", asked)
    assert updates == [1, 2, 3] and not job.out.exists()
    assert is_sealed(job.work / "checkpoint-3")
    # Nobody is at work any more: who is asked now goes at once.
    assert not preemption.postpone(go) and not preemption.requested()
    do(job, "hf", lambda update, total, loss: updates.append(update))
    assert updates == list(range(1, 9))
    assert same(job.out, undisturbed.out) and not Path(job.work).exists()


def test_asked_in_the_last_update_nothing_is_left_but_to_end(
    trained: tuple[Callable[..., Any], Callable[..., Any]],
) -> None:
    make, do = trained
    undisturbed, job = make("undisturbed"), make("asked")
    do(undisturbed, "hf")
    with pytest.raises(Gone):
        do(job, "hf", lambda update, total, loss: update == total and preemption.postpone(go))
    updates: list[int] = []
    do(job, "hf", lambda update, total, loss: updates.append(update))
    assert updates == [] and same(job.out, undisturbed.out)


def test_a_training_that_fails_is_not_taken_for_one_that_is_to_go(
    trained: tuple[Callable[..., Any], Callable[..., Any]],
) -> None:
    make, do = trained
    job = make("fails")

    def fails(update: int, total: int, loss: float | None) -> None:
        preemption.postpone(go)
        raise ValueError

    with pytest.raises(ValueError):
        do(job, "hf", fails)
    assert not preemption.requested()
