"""Plan: a function of only the recipe, the instructions and the standings."""

from pathlib import Path

from support.scripted_run import advance, begin

from sparta.phases.plan import Plan
from sparta.recipes.load import adjust
from sparta.store import files, standings


def planned(folder: Path, settings: tuple[str, ...] = (), **options: object) -> bytes:
    folder.mkdir()
    run = begin(folder, **options)
    run.recipe = adjust(run.recipe, settings)
    Plan().execute(run, 1)
    return run.iteration(1).plan.read_bytes()


def test_the_same_recipe_gives_the_same_plan_in_another_place(tmp_path: Path) -> None:
    assert planned(tmp_path / "a") == planned(tmp_path / "b")


def test_how_a_run_is_carried_out_does_not_change_its_plan(tmp_path: Path) -> None:
    settings = ("iterations=9", "cluster.tasks=5", "cluster.kind=local", "engine.threads=1")
    assert planned(tmp_path / "a") == planned(tmp_path / "b", settings)


def test_another_seed_gives_another_plan(tmp_path: Path) -> None:
    assert planned(tmp_path / "a") != planned(tmp_path / "b", ("seed=1",))


def test_every_combat_has_two_different_models_and_a_prompt_of_its_own(tmp_path: Path) -> None:
    run = begin(tmp_path, combats=20, prompts=20)
    Plan().execute(run, 1)
    plan = run.plan(1)
    assert [combat.combat_id for combat in plan] == [f"01-{n:02d}" for n in range(20)]
    assert all(combat.models[0] != combat.models[1] for combat in plan)
    assert sorted(combat.prompt_id for combat in plan) == sorted(row.prompt_id for row in run.instructions)
    assert {combat.prompt_id: combat.messages for combat in plan} == {
        row.prompt_id: row.messages for row in run.instructions
    }


def test_more_combats_than_instructions_use_whole_passes_first(tmp_path: Path) -> None:
    run = begin(tmp_path, combats=25, prompts=10)
    Plan().execute(run, 1)
    drawn = [combat.prompt_id for combat in run.plan(1)]
    assert len(set(drawn[:10])) == len(set(drawn[10:20])) == 10
    assert len(set(drawn[20:])) == 5


def test_iterations_draw_prompts_of_their_own(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    Plan().execute(run, 2)
    assert [row.prompt_id for row in run.plan(1)] != [row.prompt_id for row in run.plan(2)]


def test_the_order_in_which_the_state_names_standings_does_not_matter(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    Plan().execute(run, 2)
    before = run.iteration(2).plan.read_bytes()
    turned = dict(reversed(standings.at_end(run, 1).items()))
    run.iteration(1).standing.write_bytes(files.encode_row(turned))
    assert list(standings.at_end(run, 1)) == list(run.models)
    Plan().execute(run, 2)
    assert run.iteration(2).plan.read_bytes() == before


def test_the_second_iteration_is_planned_with_one_model_weighted_down(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    start, end = standings.at_start(run, 2), standings.at_end(run, 1)
    lowest = min(end, key=lambda name: end[name].reputation)
    assert {name: standing.weight for name, standing in start.items()} == {
        name: 0.0 if name == lowest else 1.0 for name in run.models
    }
