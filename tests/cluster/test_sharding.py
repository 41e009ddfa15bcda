"""Sharding: every item once, shards that end at the same time, few loads, items that share weights in one shard."""

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from bench import sharding as bench
from hypothesis import given
from hypothesis import strategies as st

from sparta.cluster.sharding import ABOUT_EQUAL, shard_items
from sparta.phases.base import WorkItem
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge

COSTS = st.floats(0.5, 1e6)


@st.composite
def works(draw: st.DrawFn, bases: int = 1) -> list[WorkItem]:
    """Items of a few groups, some in bundles of two or three."""
    groups = draw(st.lists(st.lists(COSTS, min_size=1, max_size=15), max_size=6))
    bundle = draw(st.integers(1, 3))
    return [
        WorkItem(
            key=f"{group}/{number:02d}",
            cost=cost,
            group=f"group{group}",
            base=f"base{group % bases}",
            bundle=f"{group}/{number // bundle}" if bundle > 1 else "",
        )
        for group, costs in enumerate(groups)
        for number, cost in enumerate(costs)
    ]


def cost(items: list[WorkItem]) -> float:
    return sum(item.cost for item in items)


def finish(shards: list[list[WorkItem]], start_cost: float) -> float:
    return max(cost(shard) + start_cost * len({item.base for item in shard}) for shard in shards)


def bundles(items: list[WorkItem]) -> Counter[str]:
    """Cost of every bundle."""
    total: Counter[str] = Counter()
    for item in items:
        total[item.bundle or item.key] += item.cost  # type: ignore[assignment]
    return total


@given(works(bases=3), st.integers(1, 12), st.floats(0, 1e6))
def test_every_item_is_assigned_exactly_once_and_no_shard_is_empty(
    items: list[WorkItem], tasks: int, start_cost: float
) -> None:
    shards = shard_items(items, tasks, start_cost)
    assert sorted(item.key for shard in shards for item in shard) == sorted(item.key for item in items)
    assert len(shards) <= tasks
    assert all(shards)


@given(works(bases=3), st.integers(1, 12), st.floats(0, 1e6))
def test_a_bundle_stays_in_one_shard(items: list[WorkItem], tasks: int, start_cost: float) -> None:
    shards = shard_items(items, tasks, start_cost)
    found = [(item.bundle or item.key) for shard in shards for item in shard]
    assert sum(a != b for a, b in pairwise(["", *found])) == len(bundles(items))


@given(works(), st.integers(1, 12))
def test_shards_of_one_base_end_together_within_one_bundle(items: list[WorkItem], tasks: int) -> None:
    shards = shard_items(items, tasks)
    if shards:
        fair, largest = cost(items) / tasks, max(bundles(items).values())
        assert finish(shards, 0) <= (fair + largest) * ABOUT_EQUAL


@given(works(), st.integers(1, 12))
def test_groups_are_cut_no_more_often_than_the_line_is(items: list[WorkItem], tasks: int) -> None:
    shards = shard_items(items, tasks)
    pieces = sum(len({item.group for item in shard}) for shard in shards)
    assert pieces <= len({item.group for item in items}) + max(0, len(shards) - 1)


@given(works(), st.integers(1, 12))
def test_items_of_a_group_follow_each_other_in_a_shard(items: list[WorkItem], tasks: int) -> None:
    for shard in shard_items(items, tasks):
        groups = [item.group for item in shard]
        assert groups == sorted(groups)


@given(works(bases=3), st.integers(1, 12), st.floats(0, 1e6), st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_change_the_shards(
    items: list[WorkItem], tasks: int, start_cost: float, stream: random.Random
) -> None:
    shuffled = stream.sample(items, len(items))
    assert shard_items(items, tasks, start_cost) == shard_items(shuffled, tasks, start_cost)


@given(st.lists(COSTS, min_size=1, max_size=9), st.integers(1, 4))
def test_no_way_of_cutting_the_line_ends_earlier(costs: list[float], tasks: int) -> None:
    items = [WorkItem(str(number), cost, "one") for number, cost in enumerate(costs)]
    cuts = combinations(range(1, len(costs)), min(tasks, len(costs)) - 1)
    best = min(max(sum(costs[begin:end]) for begin, end in pairwise([0, *cut, len(costs)])) for cut in cuts)
    assert finish(shard_items(items, tasks), 0) <= best * ABOUT_EQUAL * (1 + 1e-9)


@given(st.lists(st.lists(COSTS, min_size=1, max_size=12), min_size=2, max_size=4), st.integers(0, 8))
def test_where_loads_are_expensive_and_tasks_enough_no_shard_loads_two_bases(
    bases: list[list[float]], spare: int
) -> None:
    items = [
        WorkItem(f"{base}/{number}", cost, f"{base}/{number % 3}", base=f"base{base}")
        for base, costs in enumerate(bases)
        for number, cost in enumerate(costs)
    ]
    shards = shard_items(items, len(bases) + spare, start_cost=2 * cost(items))
    assert all(len({item.base for item in shard}) == 1 for shard in shards)


@given(works(bases=2), st.integers(2, 8), st.floats(0, 1e6))
def test_nothing_ends_later_than_if_bases_had_tasks_of_their_own(
    items: list[WorkItem], tasks: int, start_cost: float
) -> None:
    bases = sorted({item.base for item in items})
    if len(bases) == 2:
        for first in range(1, tasks):
            apart = [
                shard
                for base, share in zip(bases, (first, tasks - first), strict=True)
                for shard in shard_items([item for item in items if item.base == base], share, start_cost)
            ]
            here = finish(shard_items(items, tasks, start_cost), start_cost)
            # Parts of a plan may each be 1 % late.
            assert here <= finish(apart, start_cost) * ABOUT_EQUAL * (1 + 1e-9)


def test_one_model_alone_is_spread_over_all_tasks() -> None:
    items = [WorkItem(f"{n:02d}", 1.0, "one") for n in range(100)]
    assert [len(shard) for shard in shard_items(items, 4)] == [25, 25, 25, 25]


def ten_models(bases: int, items: int = 200) -> list[WorkItem]:
    stream = random.Random(0)
    return [
        WorkItem(f"{m}/{n:03d}", stream.uniform(50, 600), f"m{m}", base=f"base{m % bases}")
        for m in range(10)
        for n in range(items)
    ]


@pytest.mark.parametrize("tasks", [4, 7, 16])
def test_ten_adapters_of_one_base_are_spread_evenly_over_any_number_of_tasks(tasks: int) -> None:
    shards = shard_items(ten_models(bases=1), tasks, start_cost=1e5)
    loads = [cost(shard) for shard in shards]
    assert len(shards) == tasks and max(loads) - min(loads) <= 2 * 600
    assert sum(len({item.group for item in shard}) for shard in shards) <= 10 + tasks - 1


def test_one_task_gets_all_in_the_order_of_groups() -> None:
    items = ten_models(bases=1)
    assert shard_items(items[::-1], 1) == [items]


def test_full_models_share_tasks_where_loads_are_cheap_and_stay_whole_where_they_are_expensive() -> None:
    items = ten_models(bases=10)
    cheap = [cost(shard) for shard in shard_items(items, 4, start_cost=100)]
    assert max(cheap) <= min(cheap) * 1.05
    dear = shard_items(items, 4, start_cost=1e7)
    assert sorted(len({item.base for item in shard}) for shard in dear) == [2, 2, 3, 3]
    assert sum(len({item.base for item in shard}) for shard in dear) == 10


def test_unsplittable_models_go_to_the_task_with_the_least_work() -> None:
    items = [WorkItem(f"m{n}", cost, f"m{n}") for n, cost in enumerate((5.0, 1.0, 4.0, 2.0, 3.0, 3.0))]
    shards = shard_items(items, 3)
    assert [cost(shard) for shard in shards] == [6.0, 6.0, 6.0]


def test_no_items_make_no_shards() -> None:
    assert shard_items([], 4) == []


def test_items_without_cost_are_assigned_too() -> None:
    items = [WorkItem(str(n), 0.0, "one") for n in range(5)]
    assert sum(map(len, shard_items(items, 3))) == 5


def test_tasks_go_to_bases_in_proportion_to_their_cost() -> None:
    items = [
        WorkItem(f"{base}{number}", cost, f"{base}{number}", base)
        for base, cost in (("large", 30.0), ("small", 10.0))
        for number in range(12)
    ]
    shards = shard_items(items, 4)
    assert Counter(shard[0].base for shard in shards) == {"large": 3, "small": 1}
    assert {cost(shard) for shard in shards} == {120.0}


def test_a_bundle_of_several_groups_counts_all_of_its_bases_as_loads() -> None:
    """As of a phase that generates and judges: every combat needs the whole pool."""
    items = [
        WorkItem(f"{combat}/{base}", 1.0, "", base=base, bundle=str(combat))
        for combat in range(8)
        for base in ("a", "b")
    ]
    shards = shard_items(items, 4, start_cost=5.0)
    assert [len(shard) for shard in shards] == [4, 4, 4, 4]
    assert all(len({item.bundle for item in shard}) == 2 for shard in shards)


@pytest.mark.skipif(not bench.DATA.is_dir(), reason=f"there is no {bench.DATA} to draw prompts from")
@pytest.mark.parametrize("tasks", [16, 4])
@pytest.mark.parametrize("bases", [1, 2])
def test_a_paper_sized_iteration_ends_within_5_percent_of_the_lower_bound(
    bases: int, tasks: int, tmp_path: Path
) -> None:
    """Ten models, 1,000 combats of real prompts, responses as long as real answers; see tests/bench/sharding.py."""
    lengths, stream = bench.real_lengths(), random.Random(1)
    run = bench.second_iteration(tmp_path, bench.recipe(1000, bases, "text", tasks), lengths)
    generate = bench.deal_phase(run, Generate(), tasks)
    bench.write_responses(run, 2, lengths, stream)
    judge = bench.deal_phase(run, Judge(), tasks)
    for phase, dealing in ((Generate(), generate), (Judge(), judge)):
        assert len(dealing.shards) == tasks
        assert dealing.over(dealing.known) <= 0.05
        if bases == 1:
            assert replace(dealing, start_cost=0.0).over(dealing.known) <= 0.05, "starts apart"
        drawn = bench.drawn_costs(run, phase, dealing.known, lengths, stream)
        assert dealing.over(drawn) <= 0.05, "with lengths as they come out"
