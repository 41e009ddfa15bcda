"""Dealing: every item once, shards of nearly equal cost, what shares weights together."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sparta.cluster.dealing import deal
from sparta.phases.base import WorkItem

COSTS = st.floats(0.5, 1e6)


@st.composite
def works(draw: st.DrawFn) -> list[WorkItem]:
    """Items of a few groups, one group after the other."""
    groups = draw(st.lists(st.lists(COSTS, min_size=1, max_size=15), max_size=6))
    return [
        WorkItem(f"{group}/{number}", cost, f"group{group}")
        for group, costs in enumerate(groups)
        for number, cost in enumerate(costs)
    ]


def cost(items: list[WorkItem]) -> float:
    return sum(item.cost for item in items)


def pieces(shards: list[list[WorkItem]]) -> list[list[WorkItem]]:
    """What each shard has of each group."""
    return [
        [item for item in shard if item.group == group]
        for shard in shards
        for group in sorted({item.group for item in shard})
    ]


@given(works(), st.integers(1, 12))
def test_every_item_is_dealt_exactly_once_and_no_shard_is_empty(items: list[WorkItem], tasks: int) -> None:
    shards = deal(items, tasks)
    assert Counter(item.key for shard in shards for item in shard) == Counter(item.key for item in items)
    assert len(shards) <= tasks
    assert all(shards)
    assert len(shards) == tasks or len(shards) == len(pieces(shards))


@given(works(), st.integers(1, 12))
def test_shards_differ_by_no_more_than_the_largest_piece(items: list[WorkItem], tasks: int) -> None:
    shards = deal(items, tasks)
    if len(shards) > 1:
        loads = [cost(shard) for shard in shards]
        largest = max(map(cost, pieces(shards)))
        assert max(loads) - min(loads) <= largest * (1 + 1e-9)


@given(works(), st.integers(1, 12))
def test_a_group_that_is_no_more_than_a_fair_share_stays_together(items: list[WorkItem], tasks: int) -> None:
    shards = deal(items, tasks)
    fair = cost(items) / tasks
    for group in {item.group for item in items}:
        members = [item for item in items if item.group == group]
        if cost(members) <= fair:
            assert sum(any(item.group == group for item in shard) for shard in shards) == 1


@given(works(), st.integers(1, 12))
def test_items_of_a_group_follow_each_other_in_a_shard(items: list[WorkItem], tasks: int) -> None:
    for shard in deal(items, tasks):
        groups = [item.group for item in shard]
        assert groups == sorted(groups)


@given(works(), st.integers(1, 12))
def test_the_same_items_are_dealt_the_same_way(items: list[WorkItem], tasks: int) -> None:
    assert deal(items, tasks) == deal(list(items), tasks)


def test_one_model_alone_is_spread_over_all_tasks() -> None:
    items = [WorkItem(str(n), 1.0, "one") for n in range(100)]
    assert [len(shard) for shard in deal(items, 4)] == [25, 25, 25, 25]


def test_ten_models_on_four_tasks_are_balanced() -> None:
    stream = random.Random(0)
    items = [WorkItem(f"{m}/{n}", stream.uniform(50, 600), f"m{m}") for m in range(10) for n in range(200)]
    loads = [cost(shard) for shard in deal(items, 4)]
    assert max(loads) / min(loads) < 1.6
    assert deal(items, 1) == [sorted(items, key=lambda item: item.group)]


def test_nothing_is_dealt_to_nobody() -> None:
    assert deal([], 4) == []


@given(st.lists(st.lists(COSTS, min_size=1, max_size=12), min_size=2, max_size=4), st.integers(0, 8))
def test_with_tasks_enough_no_shard_loads_two_bases(bases: list[list[float]], spare: int) -> None:
    items = [
        WorkItem(f"{base}/{number}", cost, f"{base}/{number % 3}", base=f"base{base}")
        for base, costs in enumerate(bases)
        for number, cost in enumerate(costs)
    ]
    shards = deal(items, len(bases) + spare)
    assert len(shards) <= len(bases) + spare
    assert sorted(item.key for shard in shards for item in shard) == sorted(item.key for item in items)
    assert all(len({item.base for item in shard}) == 1 for shard in shards)


def test_tasks_go_to_bases_in_proportion_to_their_cost() -> None:
    items = [
        WorkItem(f"{base}{number}", cost, f"{base}{number}", base)
        for base, cost in (("large", 30.0), ("small", 10.0))
        for number in range(12)
    ]
    shards = deal(items, 4)
    assert Counter(shard[0].base for shard in shards) == {"large": 3, "small": 1}
    assert {cost(shard) for shard in shards} == {120.0}
