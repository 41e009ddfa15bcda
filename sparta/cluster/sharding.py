"""Splits work into shards that end at the same time: balanced by cost, with few loads of bases, adapters of one base in few tasks.

All bundles are sorted into one line, by base and, within a base, by group. A shard is a contiguous slice of the line, or several whole groups
or bases. Nothing here reads a clock or a file.
"""

import heapq
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from sparta.phases.base import WorkItem

ABOUT_EQUAL = 1.01
"""Plans that end within 1 % of the earliest are equally good; of these, the one with the fewest loads is chosen."""


@dataclass(frozen=True)
class Bundle:
    """Items that stay in one shard. bases, groups: of all its items, ascending."""

    items: tuple[WorkItem, ...]
    cost: float
    bases: tuple[str, ...]
    groups: tuple[str, ...]


Shard = list[Bundle]


def shard_items(items: Sequence[WorkItem], tasks: int, start_cost: float = 0.0) -> list[list[WorkItem]]:
    """Split `items` into at most `tasks` shards, none empty, so that the last one ends as early as possible; longest first.

    start_cost: of loading one base, in the unit of the items' costs; a shard pays it for each of its bases. Items of the same bundle stay
    together. Three plans are compared: cutting the line of all bundles anywhere, giving each base its own tasks in proportion to its work,
    and assigning whole bases to tasks. Within one base, the line is cut or whole groups are assigned. The order of `items` does not matter.
    """
    line = bundles_of(items)
    if not line:
        return []
    plans = [_cut(line, tasks, start_cost), _whole(line, tasks, start_cost, by_base=True)]
    if len(_runs(line, by_base=True)) <= tasks:
        plans.append(_apportioned(line, tasks, start_cost))
    earliest = min(finish(plan, start_cost) for plan in plans)
    good = [plan for plan in plans if finish(plan, start_cost) <= earliest * ABOUT_EQUAL]
    best = min(good, key=lambda plan: (_loads(plan), finish(plan, start_cost)))
    best.sort(key=lambda shard: -_cost(shard, start_cost))
    return [[item for bundle in shard for item in bundle.items] for shard in best]


def bundles_of(items: Sequence[WorkItem]) -> list[Bundle]:
    """The line: bundles sorted by base, then group, then name. An item without a bundle is its own bundle."""
    named: dict[tuple[str, str], list[WorkItem]] = defaultdict(list)
    for item in items:
        named[item.bundle, "" if item.bundle else item.key].append(item)
    found = []
    for members in named.values():
        members.sort(key=lambda item: (item.base, item.group, item.key))
        bases = tuple(sorted({item.base for item in members}))
        groups = tuple(sorted({item.group for item in members}))
        found.append(Bundle(tuple(members), math.fsum(item.cost for item in members), bases, groups))
    return sorted(
        found, key=lambda bundle: (bundle.bases, bundle.groups, bundle.items[0].bundle, bundle.items[0].key)
    )


def finish(plan: Sequence[Shard], start_cost: float) -> float:
    """When the last shard ends, including loads, in units of cost."""
    return max(_cost(shard, start_cost) for shard in plan)


def _cost(shard: Shard, start_cost: float) -> float:
    return math.fsum(bundle.cost for bundle in shard) + start_cost * len(_bases(shard))


def _bases(shard: Shard) -> set[str]:
    return {base for bundle in shard for base in bundle.bases}


def _loads(plan: Sequence[Shard]) -> int:
    return sum(len(_bases(shard)) for shard in plan)


def _runs(line: Sequence[Bundle], by_base: bool) -> list[Shard]:
    """The slices of `line` with the same bases, or with the same bases and groups."""
    return [
        list(run)
        for _, run in groupby(line, key=lambda bundle: (bundle.bases, () if by_base else bundle.groups))
    ]


def _apportioned(line: Sequence[Bundle], tasks: int, start_cost: float) -> list[Shard]:
    """Give every base its own tasks, at least one; each further task goes to the base with the most work a task."""
    runs = _runs(line, by_base=True)
    given = [1] * len(runs)
    relief = [(-_cost(run, 0.0), number) for number, run in enumerate(runs)]
    heapq.heapify(relief)
    for _ in range(tasks - len(runs)):
        share, number = heapq.heappop(relief)
        total = -share * given[number]
        given[number] += 1
        heapq.heappush(relief, (-total / given[number], number))
    return [
        shard
        for run, share in zip(runs, given, strict=True)
        for shard in _of_one_base(run, share, start_cost)
    ]


def _of_one_base(line: Shard, tasks: int, start_cost: float) -> list[Shard]:
    """Assign whole groups where that ends about as early as cutting the line, as with groups of equal size."""
    whole, cut = _whole(line, tasks, start_cost, by_base=False), _cut(line, tasks, start_cost)
    return whole if finish(whole, 0.0) <= finish(cut, 0.0) * ABOUT_EQUAL else cut


def _whole(line: Sequence[Bundle], tasks: int, start_cost: float, by_base: bool) -> list[Shard]:
    """Assign whole bases (or groups), the largest first, each to the task with the least work so far."""
    runs = _runs(line, by_base)
    order = sorted(range(len(runs)), key=lambda number: (-_cost(runs[number], start_cost), number))
    shards: list[list[int]] = [[] for _ in range(min(tasks, len(runs)))]
    least = [(0.0, number) for number in range(len(shards))]
    for number in order:
        cost, shard = heapq.heappop(least)
        shards[shard].append(number)
        heapq.heappush(least, (cost + _cost(runs[number], start_cost), shard))
    return [[bundle for number in sorted(shard) for bundle in runs[number]] for shard in shards]


def _cut(line: Sequence[Bundle], tasks: int, start_cost: float) -> list[Shard]:
    """Cut `line` into `tasks` slices (or one a bundle, if fewer), minimizing the cost of the most expensive one."""
    return _Line(line, start_cost).cut(min(tasks, len(line)))


class _Line:
    """Slices of a line, given by the index of the first bundle and of the one after the last."""

    def __init__(self, line: Sequence[Bundle], start_cost: float) -> None:
        self._line, self._start_cost = line, start_cost
        self._upto = [0.0, *accumulate(bundle.cost for bundle in line)]
        self._run: list[int] = []
        self._bases = [set(run[0].bases) for run in _runs(line, by_base=True)]
        for number, run in enumerate(_runs(line, by_base=True)):
            self._run += [number] * len(run)

    def cut(self, tasks: int) -> list[Shard]:
        limit = self._limit(tasks)
        first = self._first_starts(tasks, limit)
        shards, begin = [], 0
        for left in range(tasks, 0, -1):
            end = self._end(begin, left, limit, first[left - 1])
            shards.append(list(self._line[begin:end]))
            begin = end
        return shards

    def _cost(self, begin: int, end: int) -> float:
        runs = self._bases[self._run[begin] : self._run[end - 1] + 1]
        loads = len(runs[0]) if len(runs) == 1 else len(set().union(*runs))
        return self._upto[end] - self._upto[begin] + self._start_cost * loads

    def _limit(self, tasks: int) -> float:
        """The smallest possible cost of the most expensive of `tasks` slices, to a relative precision of 1e-12."""
        size = len(self._line)
        low, high = 0.0, self._cost(0, size) * (1 + 1e-12)
        while high - low > high * 1e-12:
            middle = (low + high) / 2
            low, high = (low, middle) if self._fits(tasks, middle) else (middle, high)
        return high

    def _fits(self, tasks: int, limit: float) -> bool:
        begin, size = 0, len(self._line)
        for _ in range(tasks):
            begin = self._furthest(begin, limit)
            if begin == size:
                return True
        return False

    def _furthest(self, begin: int, limit: float) -> int:
        """The end of the longest slice from `begin` that costs at most `limit`; `begin` where there is none."""
        low, high = begin, len(self._line)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._cost(begin, middle) <= limit else (low, middle - 1)
        return low

    def _first_starts(self, tasks: int, limit: float) -> list[int]:
        """[n]: the first index from which n slices within `limit` reach the end of the line."""
        first = [len(self._line)]
        for _ in range(tasks):
            low, high = 0, first[-1]
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if self._cost(middle, first[-1]) <= limit else (middle + 1, high)
            first.append(low)
        return first

    def _end(self, begin: int, left: int, limit: float, first: int) -> int:
        """The end of the slice from `begin`, with `left` slices to go: the feasible end nearest to an equal share."""
        size = len(self._line)
        lowest, highest = max(begin + 1, first), min(self._furthest(begin, limit), size - left + 1)
        ideal = self._upto[begin] + (self._upto[size] - self._upto[begin]) / left
        above = bisect_left(self._upto, ideal, lowest, highest)
        return min((max(above - 1, lowest), above), key=lambda end: abs(self._upto[end] - ideal))
