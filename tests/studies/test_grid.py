"""A study file becomes cells with stable names, and is refused in one sentence where it cannot."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.scripted_run import ROOT
from support.study_runs import BASELINE, grid_of, write_study

from sparta.errors import SpartaError
from sparta.names import STUDIES
from sparta.recipes.schema import Evaluation
from sparta.studies.comparison import ConfigurationScore, Difference
from sparta.studies.courses import Course, Gain, MeanOverSeeds
from sparta.studies.grid import expanded, label_of
from sparta.studies.initial_pool import pool_of
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import CellEntry, CellResult
from sparta.studies.study_file import Study, find_study, load_study

SHIPPED = {
    "table1": 60,
    "table3": 60,
    "fig3": 48,
    "fig4": 36,
    "table7": 15,
    "toy": 65,
    "toy_search": 15,
    "toy_pools": 21,
    "toy_ablations": 15,
}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_study_has_its_cells(name: str, tmp_path: Path) -> None:
    path = find_study(name)
    grid = expanded(load_study(path), path, StudyDir(tmp_path))
    assert load_study(path).name == path.stem
    assert len(grid.cells) == SHIPPED[name]


def test_the_example_of_the_page_is_a_study(tmp_path: Path) -> None:
    page = (ROOT / "jobs" / "STUDIES.md").read_text()
    lines = page.partition("## Write one\n")[2].partition("\nA cell is named")[0].splitlines()
    path = tmp_path / "page.yaml"
    path.write_text("\n".join(line.removeprefix("    ") for line in lines))
    grid = expanded(load_study(path), path, StudyDir(tmp_path))
    assert "alpha0.6-sparta-seed0" in {cell.name for cell in grid.cells}
    assert (len(grid.cells), grid.left_out, grid.reference) == (12, 6, ("method", "sparta"))


@pytest.mark.parametrize(
    "of", [CellEntry, CellResult, ConfigurationScore, Difference, Course, Gain, MeanOverSeeds]
)
def test_the_page_says_what_every_field_is(of: type) -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / "jobs" / "STUDIES.md").read_text()))
    assert set(of.__struct_fields__) <= named  # type: ignore[attr-defined]


def test_the_page_has_every_key_of_a_study_file() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "jobs" / "STUDIES.md").read_text(), flags=re.MULTILINE))
    assert Study.model_fields.keys() <= named


def test_every_shipped_study_is_tested() -> None:
    assert {path.stem for path in STUDIES.glob("*.yaml")} == SHIPPED.keys()


def test_the_ablations_are_those_of_the_paper(tmp_path: Path) -> None:
    path = find_study("table3")
    grid = expanded(load_study(path), path, StudyDir(tmp_path))
    found = {cell.levels["ablation"]: cell.recipe for cell in grid.cells if cell.levels["task"] == "gsm8k"}
    assert found["no_reputation_updates"].reputation.frozen
    assert not found["no_downweighting"].reweighting.enabled
    assert (found["no_randomness"].match.alpha, found["no_top_k"].match.alpha) == (0, 1)
    assert {cell.recipe.data.task for cell in grid.cells} == {"alpaca", "com2", "medqa", "gsm8k"}


def test_one_initial_pool_serves_all_that_are_scored_on_the_same_tasks(tmp_path: Path) -> None:
    found = {}
    for name in ("table1", "table7"):
        path = find_study(name)
        found[name] = expanded(load_study(path), path, StudyDir(tmp_path))
    assert (len(found["table1"].pools), len(found["table7"].pools)) == (12, 1)
    ranked_on = {
        cell.levels["trained_on"]: cell.recipe.pool.derived.task
        for cell in found["table7"].cells
        if cell.recipe.pool.derived is not None
    }
    assert ranked_on == {"easy": "math_easy", "medium": "math_medium", "hard": "math_hard"}


def test_cells_are_named_by_their_levels_in_the_order_of_the_axes(tmp_path: Path) -> None:
    axes = {"match.alpha": [0.0, 0.6], "reputation.frozen": [True], "seed": [0, 12]}
    grid = grid_of(write_study(tmp_path, axes))
    assert [cell.name for cell in grid.cells] == [
        "alpha0.0-frozen_true-seed0",
        "alpha0.0-frozen_true-seed12",
        "alpha0.6-frozen_true-seed0",
        "alpha0.6-frozen_true-seed12",
    ]
    recipe = grid.cells[3].recipe
    assert (recipe.match.alpha, recipe.reputation.frozen, recipe.seed) == (0.6, True, 12)
    assert recipe.name == grid.cells[3].name


def test_a_label_says_key_and_value() -> None:
    assert label_of("method", "spin") == "spin"
    assert label_of("dpo.beta", 0.1) == "beta0.1"
    assert label_of("reputation.frozen", False) == "frozen_false"
    assert label_of("data.size", None) == "size_null"


def test_named_levels_set_several_keys_and_later_axes_win(tmp_path: Path) -> None:
    axes = {
        "size": {"small": {"combats": 4, "iterations": 2}, "large": {"combats": 8}},
        "combats": {"as_is": {}, "many": {"combats": 20}},
    }
    grid = grid_of(write_study(tmp_path, axes, set={"iterations": 3}))
    found = {cell.name: (cell.recipe.combats, cell.recipe.iterations) for cell in grid.cells}
    assert found == {
        "small-as_is": (4, 2),
        "small-many": (20, 2),
        "large-as_is": (8, 3),
        "large-many": (20, 3),
    }


def test_a_level_may_replace_the_base_recipe(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"base": {"own": {}, "toy": {"recipe": "toy"}}})
    found = {cell.name: len(cell.recipe.pool.models) for cell in grid_of(path).cells}
    assert found == {"own": 3, "toy": 10}


def test_paths_of_a_study_start_at_its_folder(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"data": {"x": {"data.train": "prompts.jsonl"}}})
    [cell] = grid_of(path).cells
    assert cell.recipe.data.train == str(tmp_path / "prompts.jsonl")


def test_cells_may_be_left_out_by_label_or_value(tmp_path: Path) -> None:
    axes = {"method": {"sparta": {}, "self": BASELINE}, "seed": [0, 1, 2]}
    path = write_study(tmp_path, axes, without=[{"method": "self", "seed": [0, "seed2"]}])
    grid = grid_of(path)
    assert [cell.name for cell in grid.cells] == [
        "sparta-seed0",
        "sparta-seed1",
        "sparta-seed2",
        "self-seed1",
    ]
    assert grid.left_out == 2


def test_cells_that_agree_on_their_initial_pool_share_its_run(tmp_path: Path) -> None:
    axes = {
        "method": {"sparta": {}, "frozen": {"reputation.frozen": True}, "self": BASELINE},
        "limit": {"short": {}, "long": {"evaluation.max_new_tokens": 7}},
        "seed": [0, 1],
    }
    grid = grid_of(write_study(tmp_path, axes))
    assert len(grid.pools) == 2
    assert len({cell.pool for cell in grid.cells if cell.levels["limit"] == "short"}) == 1
    [derived] = {cell.recipe.pool.derived for cell in grid.cells if cell.name == "self-short-seed0"}
    assert derived is not None and derived.scores is not None
    assert Path(derived.scores).name == grid.cells[0].pool


def test_a_key_that_a_later_version_adds_does_not_rename_the_initial_pool(tmp_path: Path) -> None:
    [cell] = grid_of(write_study(tmp_path, {"seed": [0]})).cells

    class LaterEvaluation(Evaluation):
        more: int = 1

    values = {name: getattr(cell.recipe.evaluation, name) for name in Evaluation.model_fields}
    for more, is_same in ((1, True), (2, False)):
        later = cell.recipe.model_copy(update={"evaluation": LaterEvaluation(**values, more=more)})
        assert (pool_of(later).name == cell.pool) is is_same


def test_an_initial_pool_that_an_earlier_version_named_otherwise_is_found(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"method": {"sparta": {}, "self": BASELINE}})
    place, grid = StudyDir(tmp_path / "study"), grid_of(path)
    [pool] = grid.pools
    earlier = pool.recipe.model_copy(update={"name": "m0-earlier"})
    place.recipe("m0-earlier").parent.mkdir(parents=True)
    place.recipe("m0-earlier").write_text(earlier.to_yaml())
    again = grid_of(path)
    assert [found.name for found in again.pools] == ["m0-earlier"] == [*{cell.pool for cell in again.cells}]
    derived = again.cells[1].recipe.pool.derived
    assert derived is not None and derived.scores == str(place.cell("m0-earlier").root)
    # Of another pool the name is no sign.
    other = earlier.model_copy(
        update={"evaluation": earlier.evaluation.model_copy(update={"max_new_tokens": 9})}
    )
    place.recipe("m0-earlier").write_text(other.to_yaml())
    assert grid_of(path).pools == grid.pools


def test_experts_are_trained_in_the_run_of_the_initial_pool(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    models = [{"name": f"m{n}", "sft": {"data": "chats.jsonl"}} for n in range(3)]
    recipe = {"pool": {"base": "none", "models": models}}
    grid = grid_of(write_study(tmp_path, {"match.alpha": [0.0, 1.0]}, recipe=recipe))
    [pool] = grid.pools
    assert [model.sft is not None for model in pool.recipe.pool.models] == [True] * 3
    adapters = tmp_path / "study" / "pools" / pool.name / "iter_00" / "adapters"
    for cell in grid.cells:
        assert [model.adapter for model in cell.recipe.pool.models] == [
            str(adapters / f"m{n}") for n in range(3)
        ]
        assert cell.pool == pool.name and not cell.recipe.pool.experts


def test_new_adapters_depend_on_the_seed_so_their_pools_do(tmp_path: Path) -> None:
    pool = {"base": "none", "models": [{"name": f"m{n}"} for n in range(3)]}
    grid = grid_of(write_study(tmp_path, {"seed": [0, 1]}, recipe={"pool": pool}))
    assert len(grid.pools) == 2


def test_a_cell_refers_to_another_one_by_the_levels_that_differ(tmp_path: Path) -> None:
    equal = {**BASELINE, "baseline.budget.like": "cell:method=sparta"}
    grid = grid_of(write_study(tmp_path, {"method": {"sparta": {}, "equal": equal}, "seed": [0, 1]}))
    found = {cell.name: cell for cell in grid.cells}
    assert found["equal-seed1"].needs == ("sparta-seed1",)
    budget = found["equal-seed1"].recipe.baseline.budget
    assert budget is not None and budget.like == str(tmp_path / "study" / "cells" / "sparta-seed1")


@pytest.mark.parametrize(
    ("axes", "keys", "words"),
    [
        ({"match.aplha": [1.0]}, {}, r"cell aplha1.0: unknown key match.aplha; did you mean alpha\?"),
        ({"match.alpha": [7.0]}, {}, "match.alpha: input should be less than or equal to 1"),
        ({"seed": [0, 1, 0]}, {}, "the axis seed has the level seed0 twice"),
        ({"a": {"x": {"seed": 1}, "y": {"seed": 1}}}, {}, "the cells x and y have the same settings"),
        ({"a": {"x": {"seed": 1}, "X": {"seed": 2}}}, {}, "two cells would be called x"),
        ({"a": {"x-y": {}, "x": {}}}, {}, "level 'x-y' of the axis a cannot be part of a file name"),
        ({"a": {"../x": {}}}, {}, "cannot be part of a file name"),
        ({"judging.labels": [["0", "1"]]}, {}, r"the axis judging.labels has the level \['0', '1'\]: give levels"),
        ({"seed": []}, {}, "the axis seed needs levels"),
        ({"seed": 3}, {}, "the axis seed needs levels"),
        ({}, {}, "axes: dictionary should have at least 1 item"),
        ({"seed": [0]}, {"limit": 0}, "limit: 0 GPUs run nothing: set limit to 1 or more"),
        ({"seed": [0]}, {"limit": -2}, "limit: -2 GPUs run nothing"),
        ({"seed": [0]}, {"without": [{"sede": 0}]}, r"without names the axis sede, which is not there; did you mean seed\?"),
        ({"seed": [0]}, {"without": [{"seed": 4}]}, "without names the level 4 of seed, which is not there"),
        ({"seed": [0]}, {"without": [{"seed": 0}]}, "has no cell: without leaves all 1 of them out"),
        ({"seed": [0]}, {"compare": {"method": "sparta"}}, "compare names the axis method, which is not there"),
        ({"seed": [0]}, {"keep": "some"}, "keep: input should be 'all', 'chosen' or 'last'"),
        ({"seed": [0]}, {"limits": 3}, r"unknown key limits; did you mean limit\?"),
        ({"seed": [0]}, {"name": "a/b"}, "cannot be used in file names"),
        ({"a": {"x": {"recipe": "papre/gsm8k"}}}, {}, r"there is no recipe papre/gsm8k: .* did you mean paper/gsm8k\?"),
        ({"a": {"m0-x": {}}}, {}, "cannot be part of a file name"),
        (
            {"method": {"sparta": {}, "equal": {**BASELINE, "baseline.budget.like": "cell:method=sprata"}}},
            {},
            "the cell equal refers to 'cell:method=sprata', which names no cell",
        ),
        (
            {"method": {"sparta": {}, "equal": {**BASELINE, "baseline.budget.like": "cell:method=equal"}}},
            {},
            "the cell equal needs itself",
        ),
        (
            {
                "method": {
                    "sparta": {},
                    "a": {**BASELINE, "baseline.budget.like": "cell:method=b"},
                    "b": {**BASELINE, "baseline.budget.like": "cell:method=a"},
                }
            },
            {},
            r"cells wait for each other \((a needs b needs a|b needs a needs b)\)",
        ),
        (
            {"method": {"sparta": {}, "equal": {**BASELINE, "baseline.budget.like": "cell:method=sparta"}}, "seed": [0, 1]},
            {"without": [{"method": "sparta", "seed": 1}]},
            r"the cell equal-seed1 needs the cell sparta-seed1 \(cell:method=sparta\), which is left out",
        ),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_run_is_refused_in_one_sentence(
    axes: dict[str, Any], keys: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SpartaError, match=words):
        grid_of(write_study(tmp_path, axes, **keys))


def test_a_study_that_is_not_there_brings_up_the_nearest_name() -> None:
    with pytest.raises(SpartaError, match=r"there is no study table2: .* did you mean table"):
        find_study("table2")


def test_the_toy_study_is_fair(tmp_path: Path) -> None:
    """Ablations differ from Sparta in their setting alone; a baseline has the same settings at both budgets; the search has another seed."""
    path, search = find_study("toy"), load_study(find_study("toy_search"))
    grid = expanded(load_study(path), path, StudyDir(tmp_path))
    of_seed = {cell.levels["method"]: cell for cell in grid.cells if cell.levels["seed"] == "seed3"}
    sparta = of_seed["sparta"].recipe
    ablations = {
        # Without reputations none is the lowest, so C.1 is off.
        "no_reputation_updates": {"reputation.frozen", "reweighting.enabled"},
        "no_downweighting": {"reweighting.enabled"},
        "no_randomness": {"match.alpha"},
        "no_top_k": {"match.alpha"},
    }
    for name, keys in ablations.items():
        changed = {line.partition(":")[0] for line in sparta.differences(of_seed[name].recipe)}
        assert changed - {"name"} == keys
    rates = search.axes["dpo.learning_rate"]
    for name in ("self_rewarding", "meta_rewarding", "spin", "sppo"):
        paper, equal = of_seed[name].recipe, of_seed[f"{name}_equal"]
        assert paper.dpo == equal.recipe.dpo and paper.dpo.learning_rate in rates
        assert equal.needs == ("sparta-seed3",)
        assert paper.combats == sparta.combats
    seeds = {cell.recipe.seed for cell in grid.cells}
    assert seeds == {0, 1, 2, 3, 4} and not seeds & set(search.axes["seed"])
    assert search.compare_on == "validation"


def test_the_toy_pools_have_the_sizes_and_copies_of_their_names(tmp_path: Path) -> None:
    path = find_study("toy_pools")
    grid = expanded(load_study(path), path, StudyDir(tmp_path))
    found = {cell.levels["pool"]: cell.recipe.pool.derived for cell in grid.cells if cell.recipe.seed == 0}
    assert found.pop("ten") is None
    kept = {name: derived and (derived.spread, derived.repeat) for name, derived in found.items()}
    assert kept == {
        "three": (3, None),
        "five": (5, None),
        "seven": (7, None),
        "1x10": (None, 1),
        "2x5": (None, 2),
        "5x2": (None, 5),
    }
