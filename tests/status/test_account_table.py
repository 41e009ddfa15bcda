"""The table of where the time went: the columns of plan and account are the same."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from support.scripted_run import advance, begin, typed

from sparta.cluster.account import measure
from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.cluster.slurm.launcher import Slurm
from sparta.commands.launch_tables import show_iteration, show_plan
from sparta.methods.registry import phases_of
from sparta.recipes.load import adjust
from sparta.status.account_table import AccountRow, account_tables, with_total
from sparta.status.collect import status_of
from sparta.status.forecast import expected_account, forecasts
from sparta.status.tables import show_status
from sparta.store import files
from sparta.store.run import Run
from sparta.store.stats import IterationStats, TimeAccount


def printed(*rows: AccountRow) -> list[str]:
    """The lines of the tables of `rows`, without the empty ones."""
    out = StringIO()
    console = Console(file=out, width=200)
    for table in account_tables("where the time went", rows):
        console.print(table)
    return [line.strip() for line in out.getvalue().splitlines() if line.strip(" ─")]


ONE = TimeAccount(
    "GPU", 4, 100.0, {"start": 4.0, "start weights": 6.0, "generate": 90.0, "train": 100.0}, 200.0
)


def test_stages_of_starts_stand_below_and_what_a_row_lacks_is_a_dash() -> None:
    other = TimeAccount("GPU", 4, 50.0, {"judge": 50.0}, 150.0)
    assert printed(
        AccountRow("iteration 1", ONE), AccountRow("iteration 2", other), AccountRow("iteration 3", None)
    ) == [
        "where the time went: GPU-seconds",
        "start   generate   train   judge   idle   idle share   GPUs",
        "iteration 1    10.0       90.0     100       -    200         50 %      4",
        "iteration 2       -          -       -    50.0    150         75 %      4",
        "iteration 3       -          -       -       -      -            -      -",
    ]
    assert printed(AccountRow("iteration 1", ONE))[-1] == "start of iteration 1: weights 6.0, other 4.0"


def test_long_runs_are_counted_in_hours_and_tasks_without_a_gpu_say_so() -> None:
    hours = TimeAccount("GPU", 16, 3600.0, {"train": 36_000.0}, 21_600.0)
    assert printed(AccountRow("each iteration", hours))[0] == "where the time went: GPU-hours"
    assert (
        printed(AccountRow("each iteration", hours))[-1]
        == "each iteration   10.00   6.00         38 %     16"
    )
    tasks = TimeAccount("task", 1, 10.0, {"judge": 9.0, "steps": 1.0}, 0.0)
    both = printed(AccountRow("iteration 1", hours), AccountRow("iteration 2", tasks))
    assert "where the time went: task-seconds (no task had a GPU)" in both
    assert both[-2:] == [
        "judge   steps   idle   idle share   tasks",
        "iteration 2     9.0     1.0    0.0          0 %       1",
    ]


def test_nothing_is_shown_where_nothing_was_measured() -> None:
    assert printed(AccountRow("iteration 1", None)) == []


def test_the_total_is_of_all_rows_and_only_the_latest_are_shown() -> None:
    rows = with_total([AccountRow(f"iteration {t}", ONE) for t in range(1, 13)])
    assert [row.what for row in rows] == [*(f"iteration {t}" for t in range(5, 13)), "all 12"]
    total = rows[-1].account
    assert total is not None and (total.places, total.seconds, total.idle) == (4, 1200, 2400)
    assert total.parts == {part: 12 * seconds for part, seconds in ONE.parts.items()}
    assert with_total([AccountRow("iteration 1", ONE)]) == [AccountRow("iteration 1", ONE)]


def test_a_total_of_iterations_on_different_numbers_of_gpus_adds_up() -> None:
    few = TimeAccount("GPU", 4, 100.0, {"train": 300.0}, 100.0)
    many = TimeAccount("GPU", 16, 100.0, {"train": 1500.0}, 100.0)
    both = few + many
    assert both.used + both.idle == both.whole == 2000 and both.places == 10
    assert both.idle_share == 0.1
    longer = TimeAccount("GPU", 16, 300.0, {"train": 4800.0}, 0.0)
    total = with_total([AccountRow("iteration 1", few), AccountRow("iteration 2", longer)])
    assert printed(*total)[-1].split()[-1] == "13"
    assert printed(AccountRow("all", few + TimeAccount("GPU", 5, 100.0, {}, 500.0)))[-1].split()[-1] == "4.5"


def headings(text: str, title: str) -> list[str]:
    """The column headings of the table with that title."""
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith(title))
    heading = next(line for line in lines[place + 1 :] if line.strip())
    return [part for part in heading.split("  ") if part.strip()]


def shown(run: Run) -> tuple[str, str]:
    """What the plan and the table after iteration 1 print."""
    plan, account = StringIO(), StringIO()
    show_plan(Console(file=plan, width=200), run, 1, 3, Inline(run))
    show_iteration(Console(file=account, width=200), run, 1)
    return plan.getvalue(), account.getvalue()


@pytest.mark.parametrize("fused", [False, True])
def test_plan_account_and_status_have_the_same_columns(
    fused: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path, cluster={"fused": fused})
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    plan, account = shown(run)
    show_status(status_of(run), run.state.root)
    status = capsys.readouterr().out
    measured = [part.strip() for part in headings(account, "where the time went")]
    assert measured[:3] == ["generate", "judge", "train set-up"] and measured[-4] == "steps"
    assert measured == [part.strip() for part in headings(plan, "estimate by part")]
    assert measured == [part.strip() for part in headings(status, "where the time went")]
    assert "each iteration" in plan and "all 3" in plan and "all 1" not in status


def test_a_state_of_an_earlier_version_shows_dashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path)
    for t in (1, 2):
        advance(run, t)
        measure(run, phases_of(run.recipe, t), t)
    path = run.iteration(1).stats
    tree = files.read_json(path, dict)
    del tree["account"]
    files.write_json(path, tree)
    status = status_of(run)
    assert [entry.account is None for entry in status.iterations] == [True, False]
    show_status(status, run.state.root)
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.split()[:2] == ["iteration", "1"])
    assert set(row.split()[2:]) == {"-"}


def test_the_status_has_the_account_as_json_also_of_an_unfinished_iteration(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    account = status_of(run).iterations[0].account
    assert account is not None and list(account.parts) == ["generate", "steps"]
    found = typed("status", run.state.root, "--json")
    assert '"unit": "task"' in found.stdout and '"idle": ' in found.stdout


# --- the estimate


def with_weights(run: Run, tmp_path: Path, *settings: str) -> Run:
    """The run with an engine that has weights to load, on 16 GPUs; it is never executed."""
    profile = tmp_path / "mine.yaml"
    profile.write_text("name: mine\nnodes: 4\ngpus_per_node: 4\n")
    run.recipe = adjust(run.recipe, ["engine.kind=vllm", f"cluster.profile={profile}", *settings])
    return run


def test_the_estimate_counts_all_gpus_of_the_profile(tmp_path: Path) -> None:
    run = with_weights(begin(tmp_path), tmp_path, "cluster.fused=false")
    found = forecasts(run, Slurm(run), 1)
    account = expected_account(run, Slurm(run), found)
    assert (account.unit, account.places) == ("GPU", 16)
    assert list(account.parts) == ["start", "generate", "judge", "train set-up", "train"]
    assert account.parts["start"] == pytest.approx(2 * 60), "one task for each of both"
    assert account.parts["train set-up"] == pytest.approx(4 * 20)
    assert account.parts["train"] == pytest.approx(4 * 12)
    assert account.seconds == pytest.approx(sum(forecast.seconds for forecast in found))
    assert account.used + account.idle == pytest.approx(account.whole)


def test_one_engine_for_both_is_estimated_to_start_once(tmp_path: Path) -> None:
    apart = with_weights(begin(tmp_path / "apart"), tmp_path, "cluster.fused=false")
    fused = with_weights(begin(tmp_path / "fused"), tmp_path, "cluster.fused=true")
    one, other = (expected_account(run, Slurm(run), forecasts(run, Slurm(run), 1)) for run in (apart, fused))
    assert other.parts["start"] == one.parts["start"] / 2
    assert {part: other.parts[part] for part in ("generate", "judge")} == pytest.approx(
        {part: one.parts[part] for part in ("generate", "judge")}
    )


def test_what_was_measured_is_estimated_again_part_by_part(tmp_path: Path) -> None:
    run = begin(tmp_path, cluster={"fused": True})
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    path = run.iteration(1).stats
    tree = files.read_json(path, dict)
    tree["phases"]["combat"] |= {
        "cost": 900.0, "work_seconds": 90.0, "loads": 1, "load_seconds": 30.0,
        "parts": {"start": 10.0, "start weights": 20.0, "generate": 30.0, "judge": 60.0},
    }  # fmt: skip
    tree["phases"]["train"] |= {
        "items": 4,
        "tasks": 2,
        "busy": 100.0,
        "parts": {"train set-up": 20.0, "train": 80.0},
    }
    files.write_json(path, tree)
    run.recipe = adjust(
        run.recipe, ["engine.kind=hf", "cluster.kind=local", "cluster.at_once=2", "cluster.tasks=2"]
    )
    account = expected_account(run, Local(run), forecasts(run, Local(run), 2))
    assert account.parts["start"] == pytest.approx(2 * 30)
    assert (account.parts["generate"], account.parts["judge"]) == pytest.approx((30, 60))
    assert (account.parts["train set-up"], account.parts["train"]) == pytest.approx((2 * 10, 80))
    assert (account.unit, account.places) == ("task", 2)
    assert files.read_json(path, IterationStats).account is not None
