"""Dealing work to tasks: by cost, longest first, items that share weights together."""

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sparta.phases.base import WorkItem


def deal(items: Sequence[WorkItem], tasks: int) -> list[list[WorkItem]]:
    """`items` in at most `tasks` shards of nearly equal cost, none empty.

    Where there are tasks enough, every base has shards of its own, in proportion to its cost: loading a base is what costs. A group is
    split only where it alone is more than a fair share, into runs of consecutive items; the pieces go, largest first, to the shard with
    the least so far. The same items give the same shards.
    """
    bases: dict[str, list[WorkItem]] = defaultdict(list)
    for item in items:
        bases[item.base].append(item)
    if len(bases) < 2 or tasks < len(bases):
        return _longest_first(items, tasks)
    shards = []
    for base, share in _apportion({base: _cost(group) for base, group in bases.items()}, tasks).items():
        shards += _longest_first(bases[base], share)
    return shards


def _apportion(costs: Mapping[str, float], tasks: int) -> dict[str, int]:
    """`tasks` given out in proportion to the costs, at least one to each: the next goes to whom it relieves most."""
    given = dict.fromkeys(costs, 1)
    for _ in range(tasks - len(given)):
        given[max(costs, key=lambda name: costs[name] / given[name])] += 1
    return given


def _longest_first(items: Sequence[WorkItem], tasks: int) -> list[list[WorkItem]]:
    groups: dict[str, list[WorkItem]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item)
    fair = sum(item.cost for item in items) / max(tasks, 1)
    pieces = [piece for group in groups.values() for piece in _split(group, fair)]
    pieces.sort(key=lambda piece: (-_cost(piece), piece[0].key))
    shards: list[list[WorkItem]] = [[] for _ in range(min(tasks, len(pieces)))]
    heap = [(0.0, number) for number in range(len(shards))]
    for piece in pieces:
        load, number = heapq.heappop(heap)
        shards[number] += piece
        heapq.heappush(heap, (load + _cost(piece), number))
    return [sorted(shard, key=lambda item: (item.base, item.group)) for shard in shards if shard]


def _cost(piece: Sequence[WorkItem]) -> float:
    return math.fsum(item.cost for item in piece)


def _split(group: Sequence[WorkItem], fair: float) -> list[list[WorkItem]]:
    """`group` in the fewest runs that cost about `fair` or less each, all about equal."""
    total = _cost(group)
    parts = min(len(group), max(1, math.ceil(total / fair - 1e-9))) if fair > 0 else 1
    pieces: list[list[WorkItem]] = [[] for _ in range(parts)]
    so_far = 0.0
    for item in group:
        pieces[min(parts - 1, int(so_far / total * parts)) if total else 0].append(item)
        so_far += item.cost
    return [piece for piece in pieces if piece]
