"""The number of tasks: none takes longer to start than to work; rates are measured once an iteration has run."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripted_run import advance, begin

from sparta.cluster.account import measure
from sparta.cluster.attempts import AttemptDir
from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.cluster.parallelism import TaskCount, sharded, task_count, task_count_for
from sparta.cluster.throughput import Rates, rates_of
from sparta.commands.launch_tables import tasks_in_words
from sparta.engines.stopwatch import START
from sparta.evaluation.answer import Evaluate
from sparta.evaluation.grade import GradeAnswers
from sparta.methods.registry import phases_of
from sparta.phases.base import WorkItem
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.phases.merge import Merge
from sparta.phases.train import Train
from sparta.recipes.cluster import Cluster
from sparta.recipes.engine import EngineSettings
from sparta.recipes.load import adjust
from sparta.status.forecast import forecasts
from sparta.store import files
from sparta.store.run import Run
from sparta.store.stats import IterationStats, PhaseStats

RATES = Rates(throughput=5000.0, start_seconds=60.0)


def items(count: int, cost: float, bundle: int = 1) -> list[WorkItem]:
    return [
        WorkItem(f"{n:05d}", cost, "g", bundle=str(n // bundle) if bundle > 1 else "") for n in range(count)
    ]


def with_weights(run: Run, **cluster: object) -> Run:
    """The run with an engine that has weights to load; it is never executed."""
    settings = run.recipe.cluster.model_copy(update=cluster)
    run.recipe = run.recipe.model_copy(update={"engine": EngineSettings(kind="hf"), "cluster": settings})
    return run


def test_three_engines_for_53_seconds_replace_sixteen_for_ten_seconds() -> None:
    cost = 16 * 10 * RATES.throughput
    assert task_count_for(Cluster(), RATES, cost, 10_000, 16).tasks == 3


@given(st.floats(0, 1e9), st.integers(1, 1000), st.integers(1, 64))
def test_one_task_more_or_less_would_cost_more_of_waiting_times_gpu_time(
    cost: float, bundles: int, most: int
) -> None:
    tasks, why = task_count_for(Cluster(), RATES, cost, bundles, most)
    assert 1 <= tasks <= min(most, bundles)
    starts = RATES.seconds(cost) / RATES.start_seconds
    if tasks > 1:
        assert starts * starts >= (tasks - 1) * tasks * (1 - 1e-9)
    if tasks < min(most, bundles):
        assert starts * starts <= tasks * (tasks + 1) * (1 + 1e-9)
    assert bool(why) == (tasks < most)


def test_where_the_recipe_says_how_many_tasks_that_is_how_many() -> None:
    assert task_count_for(Cluster(tasks=16), RATES, 1.0, 100, 16) == TaskCount(16)


def test_there_are_no_more_tasks_than_bundles(tmp_path: Path) -> None:
    run = with_weights(begin(tmp_path))
    assert task_count(run, Judge(), items(6, 1e9, bundle=2), 16) == 3


@pytest.mark.parametrize("phase", [Train(), Merge()])
def test_phases_without_an_engine_have_as_many_tasks_as_possible(
    phase: "Train | Merge", tmp_path: Path
) -> None:
    assert task_count(with_weights(begin(tmp_path)), phase, items(4, 1.0), 16) == 4


def test_an_engine_without_weights_starts_at_once(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert task_count(run, Generate(), items(100, 1.0), 16) == 16
    assert task_count(with_weights(run), Generate(), items(100, 1.0), 16) == 1


def test_a_judge_of_evaluations_starts_as_its_own_engine_does(tmp_path: Path) -> None:
    run, grading = begin(tmp_path), GradeAnswers("test", {"essay": ("iter_00",)})
    run.recipe = adjust(run.recipe, ["evaluation.judge={base: umpire, engine: {kind: hf}}"])
    assert (rates_of(run, Generate()).start_seconds, rates_of(run, grading).start_seconds) == (0, 60)
    endpoint = "{base: umpire, engine: {kind: api, api: {url: 'http://127.0.0.1:9/v1'}}}"
    run.recipe = adjust(with_weights(run).recipe, [f"evaluation.judge={endpoint}"])
    assert (rates_of(run, Generate()).start_seconds, rates_of(run, grading).start_seconds) == (60, 0)


def measured_run(folder: Path, **phases: PhaseStats) -> Run:
    """A run with one committed iteration that measured so."""
    run = begin(folder)
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    path = run.iteration(1).stats
    stats = files.read_json(path, IterationStats)
    files.write_json(path, msgspec.structs.replace(stats, phases={**stats.phases, **phases}))
    return run


GENERATE = PhaseStats(
    24, 100.0, 400.0, loads=4, tasks=4, attempts=1, load_seconds=80.0, cost=32_000.0, work_seconds=320.0
)
JUDGE = PhaseStats(
    48, 50.0, 200.0, loads=4, tasks=4, attempts=1, load_seconds=40.0, cost=48_000.0, work_seconds=160.0
)
TRAIN = PhaseStats(4, 90.0, 120.0, loads=0, tasks=4, attempts=1)


def test_rates_are_measured_phase_by_phase_once_an_iteration_has_run(tmp_path: Path) -> None:
    run = with_weights(measured_run(tmp_path, generate=GENERATE, judge=JUDGE))
    assert rates_of(run, Generate()) == Rates(100.0, 20.0)
    assert rates_of(run, Judge()) == Rates(300.0, 10.0)
    other = Evaluate("test", {"toy": ("iter_00",)})
    assert rates_of(run, other) == pytest.approx((80_000 / 480, 15.0)), "of both together"
    assert task_count(run, Generate(), items(1000, 100.0), 256) == 50


def test_rates_are_assumed_before_and_of_a_state_that_did_not_measure_costs(tmp_path: Path) -> None:
    run = with_weights(begin(tmp_path))
    assert rates_of(run, Generate()) == RATES
    old = PhaseStats(24, 100.0, 400.0, loads=4, tasks=4, attempts=1)
    run = with_weights(measured_run(tmp_path / "old", generate=old, judge=old))
    assert rates_of(run, Generate()) == RATES


def test_assigned_cost_and_time_are_measured(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    [attempt] = AttemptDir(run, Judge(), 1).all()
    assert len(attempt.costs) == attempt.shards and all(cost > 0 for cost in attempt.costs)
    measure(run, phases_of(run.recipe, 1), 1)
    judge = files.read_json(run.iteration(1).stats, IterationStats).phases["judge"]
    assert judge.cost == pytest.approx(sum(attempt.costs)) and judge.loads >= 0
    assert 0 < judge.work_seconds <= judge.busy and judge.load_seconds == 0


def test_work_is_sharded_by_current_costs_into_as_many_tasks_as_it_is_worth(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    shards = sharded(run, Generate(), 1, Generate().missing(run, 1), 5)
    assert len(shards) == 5 and all(item.cost > 1 for shard in shards for item in shard)
    assert len(sharded(with_weights(run), Generate(), 1, Generate().missing(run, 1), 5)) == 1
    assert sharded(run, Generate(), 1, [], 5) == []


# --- the estimate


def test_the_estimate_follows_what_was_measured_on_the_tasks_that_there_are_now(tmp_path: Path) -> None:
    run = with_weights(
        measured_run(tmp_path, generate=GENERATE, judge=JUDGE, train=TRAIN), kind="local", at_once=2
    )
    launcher = Local(run)
    found = {forecast.phase.name: forecast for forecast in forecasts(run, launcher, 1)}
    # 320 s of work and a load of 20 s on each of two tasks.
    assert found["generate"].seconds == pytest.approx(320 / 2 + 20)
    assert found["generate"].busy == pytest.approx(320 + 2 * 20)
    assert found["judge"].seconds == pytest.approx(160 / 2 + 10)
    # Four models of 30 s each, two at a time.
    assert (found["train"].seconds, found["train"].busy) == pytest.approx((60, 120))
    assert found["generate"].width == TaskCount(2) and found["merge"].seconds >= 0
    assert tasks_in_words(list(found.values()), launcher) == "generate 2, judge 2, train 2"


def test_an_estimate_before_anything_was_measured_uses_the_assumed_rates(tmp_path: Path) -> None:
    run = with_weights(begin(tmp_path), kind="local", at_once=16)
    found = {forecast.phase.name: forecast for forecast in forecasts(run, Local(run), 1)}
    # 24 responses of 256 tokens and their prompts: seconds of work, and one start.
    assert found["generate"].width.tasks == 1
    assert 60 + 24 * 256 / 5000 < found["generate"].seconds < 60 + 24 * 256 / 5000 + 1
    assert found["train"].width.tasks == 4
    # A load of the base, and twelve pairs.
    assert found["train"].seconds == pytest.approx(20 + 12 / 1.0)
    words = tasks_in_words(list(found.values()), Local(run))
    assert "generate 1 of 16 (more would load longer than they work)" in words
    assert "train 4 of 16 (4 to give out)" in words


def test_one_process_is_expected_to_start_its_engine_once(tmp_path: Path) -> None:
    run = with_weights(begin(tmp_path), fused=False)
    starts = {forecast.phase.name: forecast.parts.get(START) for forecast in forecasts(run, Inline(run), 1)}
    assert (starts["generate"], starts["judge"], starts["train"]) == (60, 0, None)
    apart = with_weights(begin(tmp_path), fused=False, kind="local", at_once=1)
    assert [forecast.parts.get(START) for forecast in forecasts(apart, Local(apart), 1)][1:3] == [60, 60]


def test_one_process_loads_what_it_was_measured_to_load(tmp_path: Path) -> None:
    """It keeps its engine across phases."""
    nothing = msgspec.structs.replace(JUDGE, loads=0, load_seconds=0.0)
    run = with_weights(measured_run(tmp_path, generate=GENERATE, judge=nothing))
    found = {forecast.phase.name: forecast for forecast in forecasts(run, Inline(run), 1)}
    assert found["judge"].seconds == pytest.approx(160) and found["generate"].width == TaskCount(1)
