"""How many tasks a phase is dealt to: as many as can run, but none that would take longer to start than to work."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sparta.cluster.sharding import shard_items
from sparta.cluster.throughput import Rates, rates_of
from sparta.phases.base import Phase, WorkItem
from sparta.recipes.schema import Cluster
from sparta.store.run import Run


class TaskCount(NamedTuple):
    """How many tasks. why: in a few words, why not as many as there may be; nothing where they are."""

    tasks: int
    why: str = ""


def sharded(run: Run, phase: Phase, t: int, items: Sequence[WorkItem], most: int) -> list[list[WorkItem]]:
    """`items` of iteration t as shards, at most `most`: priced with what is known by now, as many as they are worth."""
    priced = phase.priced(run, t, items)
    start_cost = rates_of(run, phase).start_cost if phase.runs_an_engine else 0.0
    return shard_items(priced, task_count(run, phase, priced, most), start_cost)


def task_count(run: Run, phase: Phase, items: Sequence[WorkItem], most: int) -> int:
    """How many tasks, at most `most`, the priced `items` are dealt to; 1 where there are none."""
    rates = rates_of(run, phase) if phase.runs_an_engine else None
    cost = math.fsum(item.cost for item in items)
    bundles = len({(item.bundle, "" if item.bundle else item.key) for item in items})
    return task_count_for(run.recipe.cluster, rates, cost, bundles, most).tasks


def task_count_for(cluster: Cluster, rates: Rates | None, cost: float, bundles: int, most: int) -> TaskCount:
    """How many tasks work of that cost is dealt to. rates: None where tasks run no engine, whose width is as many as there are bundles.

    Twice the tasks take half the time to work, and twice the GPU time to start. The product of the time to wait and the GPU time is least
    where a task works for as long as it starts: sixteen engines that run for ten seconds each are worse than four. Where the recipe says
    how many tasks, that is how many.
    """
    possible = max(1, min(most, bundles))
    few = "" if possible == most else f"{bundles} to give out"
    if rates is None or cluster.tasks is not None or rates.start_seconds <= 0:
        return TaskCount(possible, few)
    starts = rates.seconds(cost) / rates.start_seconds
    below = max(1, int(starts))
    # The product, in starts and without what is the same for every number of tasks, is tasks + starts² / tasks.
    worth = min((below, below + 1), key=lambda tasks: tasks + starts * starts / tasks)
    if worth >= possible:
        return TaskCount(possible, few)
    return TaskCount(worth, "more would load longer than they work")
