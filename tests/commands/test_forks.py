"""A branch follows its own recipe (standings, work, estimate) and shares only past iterations with its parent."""

import shutil
from pathlib import Path

import pytest
from support.openings import begin_or_continue, fork
from support.scripted_run import advance, begin, manifests, typed

from sparta.cluster.account import measure
from sparta.cluster.inline import Inline
from sparta.cluster.throughput import measured
from sparta.commands.launch_request import LaunchRequest, resolve
from sparta.commands.launch_tables import show_plan
from sparta.engines.stopwatch import SET_UP
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.recipes.load import adjust, load
from sparta.screen import Screen, plain_console
from sparta.status.forecast import Forecast, forecasts, seconds_per_iteration
from sparta.store import files, standings
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.stats import IterationStats

RULES = (
    "reputation.initial=1500",
    "reputation.deviation.initial=80",
    "match.alpha=1",
    "combats=16",
    "seed=3",
)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two iterations, measured."""
    run = begin(tmp_path_factory.mktemp("played"))
    for t in (1, 2):
        advance(run, t)
        measure(run, phases_of(run.recipe, t), t)
    return run


def test_a_branch_from_the_initial_pool_begins_with_the_standings_of_its_own_recipe(
    played: Run, tmp_path: Path
) -> None:
    recipe = adjust(played.recipe, ["reputation.initial=1500"])
    branch = fork(played.state, 0, StateDir(tmp_path / "branch"), recipe)
    assert {standing.reputation for standing in standings.at_end(branch, 0).values()} == {1500.0}
    assert standings.at_end(branch, 0) == standings.initial(branch)
    assert {standing.reputation for standing in standings.at_end(played, 0).values()} == {1000.0}


def test_a_branch_from_the_initial_pool_is_the_run_that_its_recipe_would_begin(
    played: Run, tmp_path: Path
) -> None:
    """Byte for byte, though its pool is copied."""
    recipe = adjust(played.recipe, RULES)
    branch = fork(played.state, 0, StateDir(tmp_path / "branch"), recipe)
    anew = begin_or_continue(StateDir(tmp_path / "anew"), recipe)
    for run in (branch, anew):
        for t in (1, 2):
            advance(run, t)
    assert manifests(branch.state.root) == manifests(anew.state.root)
    assert len(manifests(anew.state.root)) == 3
    begin_or_continue(branch.state, recipe)


def test_a_branch_by_the_same_recipe_has_the_manifests_of_its_parent(played: Run, tmp_path: Path) -> None:
    branch = fork(played.state, 0, StateDir(tmp_path / "branch"), None)
    for t in (1, 2):
        advance(branch, t)
    assert manifests(branch.state.root) == manifests(played.state.root)


def test_a_branch_of_a_branch_begins_with_its_own_standings_too(played: Run, tmp_path: Path) -> None:
    first = fork(
        played.state, 0, StateDir(tmp_path / "first"), adjust(played.recipe, ["reputation.initial=1500"])
    )
    advance(first, 1)
    second = fork(
        first.state, 0, StateDir(tmp_path / "second"), adjust(first.recipe, ["reputation.initial=700"])
    )
    assert {standing.reputation for standing in standings.at_end(second, 0).values()} == {700.0}
    later = fork(first.state, 1, StateDir(tmp_path / "later"), None)
    begin_or_continue(later.state, None)
    assert standings.at_end(later, 1) == standings.at_end(first, 1)


def test_a_branch_from_the_pool_that_was_killed_is_finished_and_not_by_another_recipe(
    played: Run, tmp_path: Path
) -> None:
    target, recipe = StateDir(tmp_path / "branch"), adjust(played.recipe, ["reputation.initial=1500"])
    before = fork(played.state, 0, target, recipe).iteration(0).manifest.read_bytes()
    target.run_json.unlink()
    with pytest.raises(SpartaError, match="is not the copy of .* that this fork needs"):
        fork(played.state, 0, target, None)
    again = fork(played.state, 0, target, recipe)
    assert again.iteration(0).manifest.read_bytes() == before
    begin_or_continue(target, recipe)


def test_a_branch_made_by_an_earlier_version_goes_on_as_it_began(played: Run, tmp_path: Path) -> None:
    """Its iteration 0 is its parent's, including manifest and standings."""
    target = StateDir(tmp_path / "branch")
    recipe = adjust(played.recipe, ["reputation.initial=1500"])
    branch = fork(played.state, 0, target, recipe)
    shutil.rmtree(branch.iteration(0).root)
    shutil.copytree(played.iteration(0).root, branch.iteration(0).root)
    text = target.run_json.read_text()
    target.run_json.write_text(
        text.replace(branch.info.genesis, played.info.genesis).replace(
            f'"recipe_hash": "{played.info.genesis}"', f'"recipe_hash": "{branch.info.recipe_hash}"'
        )
    )
    again = begin_or_continue(target, recipe)
    advance(again, 1)
    begin_or_continue(target, recipe)
    assert fork(played.state, 0, target, recipe).state.committed() == [0, 1]


# --- what it will cost


def by_name(run: Run) -> dict[str, Forecast]:
    return {forecast.phase.name: forecast for forecast in forecasts(run, Inline(run), 1)}


def test_the_estimate_of_a_branch_follows_its_own_combats_and_epochs(played: Run, tmp_path: Path) -> None:
    def seen(*settings: str) -> Run:
        asked = LaunchRequest(
            resume=played.iteration(2).root, fork=tmp_path / "branch", settings=settings, iterations=4
        )
        return resolve(asked, Screen()).run

    same, more = seen(), seen("combats=36")
    epochs = seen("dpo.epochs=5")
    before = by_name(same)
    assert before.keys() == {"plan", "generate", "judge", "merge", "train", "commit"}
    set_up = before["train"].parts[SET_UP]
    assert set_up > 0

    def grown(name: str, times: int) -> float:
        """What a phase should take for so many times the work: a training is set up once."""
        once = set_up if name == "train" else 0.0
        return once + times * (before[name].seconds - once)

    for name, forecast in by_name(more).items():
        assert forecast.seconds == pytest.approx(grown(name, 3)), name
    for name, forecast in by_name(epochs).items():
        assert forecast.seconds == pytest.approx(grown(name, 5 if name == "train" else 1)), name
    assert seconds_per_iteration(more) == pytest.approx(3 * (seconds_per_iteration(same) or 0.0))


def test_the_estimate_of_a_run_of_its_own_is_what_was_measured(played: Run) -> None:
    stats = [files.read_json(played.iteration(t).stats, IterationStats).phases for t in (1, 2)]
    assert measured(played) == stats


def test_a_branch_that_has_played_is_estimated_by_its_own_iterations_as_they_were(
    played: Run, tmp_path: Path
) -> None:
    branch = fork(played.state, 1, StateDir(tmp_path / "branch"), adjust(played.recipe, ["combats=36"]))
    advance(branch, 2)
    measure(branch, phases_of(branch.recipe, 2), 2)
    past, own = measured(branch)
    assert own == files.read_json(branch.iteration(2).stats, IterationStats).phases
    theirs = files.read_json(played.iteration(1).stats, IterationStats).phases
    assert past["generate"].cost == pytest.approx(3 * theirs["generate"].cost)
    assert past["generate"].cost / past["generate"].work_seconds == pytest.approx(
        theirs["generate"].cost / theirs["generate"].work_seconds
    ), "a task is as fast as it was"


def test_the_plan_of_a_branch_that_is_not_there_is_its_own(played: Run, tmp_path: Path) -> None:
    asked = LaunchRequest(
        resume=played.iteration(1).root,
        fork=tmp_path / "branch",
        settings=("combats=36", "dpo.epochs=2"),
        iterations=5,
        dry_run=True,
    )
    opening, console = resolve(asked, Screen()), plain_console()
    with console.capture() as captured:
        show_plan(console, opening.run, opening.first, 5, Inline(opening.run))
    said = " ".join(captured.get().split())
    assert f"in {tmp_path / 'branch'}" in said and "36 combats, 72 responses, up to 144 votes" in said
    assert "2 to 5" in said and played.info.run_id not in said
    # 2 epochs of 36 pairs, 4 members, 4 iterations.
    assert f"{2 * 36 * 4 * 4:,} weight updates" in said
    assert not (tmp_path / "branch").exists()


def test_a_dry_run_of_going_back_counts_the_iterations_that_are_to_be_made_again(played: Run) -> None:
    done = typed("launch", "--resume", played.iteration(0).root, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1 to 3" in done.stdout
    assert played.state.committed() == [0, 1, 2]


def test_a_branch_continues_after_the_adapters_of_the_initial_pool_are_gone(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    recipe = load(tmp_path / "recipe.yaml", ["combats=8"])
    shutil.rmtree(tmp_path / "adapters")
    branch = fork(run.state, 1, StateDir(tmp_path / "branch"), recipe)
    advance(branch, 2)
    assert branch.state.committed() == [0, 1, 2]
