"""How many tasks a phase is sharded into: as many as can run, but no more once tasks take longer to start than to work."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sparta.cluster.sharding import shard_items
from sparta.cluster.throughput import Rates, rates_of
from sparta.phases.base import Phase, WorkItem
from sparta.recipes.cluster import Cluster
from sparta.store.run import Run


class TaskCount(NamedTuple):
    """A number of tasks. why: the reason for fewer than the maximum, in a few words; empty otherwise."""

    tasks: int
    why: str = ""


def sharded(run: Run, phase: Phase, t: int, items: Sequence[WorkItem], most: int) -> list[list[WorkItem]]:
    """Split `items` of iteration t into at most `most` shards, with current cost estimates and the number of tasks from `task_count`."""
    priced = phase.priced(run, t, items)
    start_cost = rates_of(run, phase).start_cost if phase.runs_an_engine else 0.0
    return shard_items(priced, task_count(run, phase, priced, most), start_cost)


def task_count(run: Run, phase: Phase, items: Sequence[WorkItem], most: int) -> int:
    """The number of tasks, at most `most`, for `items` with estimated costs; 1 where there are none."""
    rates = rates_of(run, phase) if phase.runs_an_engine else None
    cost = math.fsum(item.cost for item in items)
    bundles = len({(item.bundle, "" if item.bundle else item.key) for item in items})
    return task_count_for(run.recipe.cluster, rates, cost, bundles, most).tasks


def task_count_for(cluster: Cluster, rates: Rates | None, cost: float, bundles: int, most: int) -> TaskCount:
    """The number of tasks for work of that cost. rates: None where tasks run no engine; then every bundle may have its own task.

    Twice the tasks halve the time to work and double the GPU time spent on starting. The product of waiting time and GPU time is smallest
    where a task works about as long as it takes to start: sixteen engines that run for ten seconds each are worse than four. The recipe's
    cluster.tasks overrides this.
    """
    possible = max(1, min(most, bundles))
    few = "" if possible == most else f"{bundles} to give out"
    if rates is None or cluster.tasks is not None or rates.start_seconds <= 0:
        return TaskCount(possible, few)
    starts = rates.seconds(cost) / rates.start_seconds
    below = max(1, int(starts))
    # With time in units of one start, and without terms that do not depend on it, the product is tasks + starts² / tasks.
    worth = min((below, below + 1), key=lambda tasks: tasks + starts * starts / tasks)
    if worth >= possible:
        return TaskCount(possible, few)
    return TaskCount(worth, "more would load longer than they work")
