"""The rates that estimates assume: those of the recipe, else those of the profile, else the defaults."""

from pathlib import Path

import pytest
from support.scripted_run import advance, begin, write_recipe
from support.study_runs import write_study

from sparta.commands.launch_request import LaunchRequest, recipe_of
from sparta.commands.study_request import StudyRequest, opened_study
from sparta.errors import SpartaError
from sparta.recipes.cluster import Assumed
from sparta.recipes.load import thaw
from sparta.screen import Screen
from sparta.studies.estimate import Where
from sparta.studies.manifest import freeze


def profile(folder: Path, assumed: str) -> str:
    """A profile with these rates."""
    path = folder / "mine.yaml"
    path.write_text(f"name: mine\nnodes: 2\ngpus_per_node: 4\nassumed: {assumed}\n")
    return str(path)


def rates(folder: Path, of_profile: str | None, *settings: str, **cluster: object) -> Assumed:
    """The rates of a new run that is requested with such a profile."""
    recipe = write_recipe(folder, cluster=cluster)
    chosen = profile(folder, of_profile) if of_profile is not None else None
    request = LaunchRequest(str(recipe), folder / "state", settings=settings, profile=chosen)
    return recipe_of(request, Screen()).cluster.assumed


def test_a_profile_says_the_rates_of_its_gpus_and_the_recipe_has_the_last_word(tmp_path: Path) -> None:
    h100 = "{tokens_per_second: 12000, prompt_token: 0.27, start_seconds: 58}"
    assert rates(tmp_path, None) == rates(tmp_path, "{}") == Assumed()
    assert rates(tmp_path, h100) == Assumed(tokens_per_second=12000, prompt_token=0.27, start_seconds=58)
    assert rates(tmp_path, h100, "cluster.assumed.start_seconds=9").start_seconds == 9
    own = rates(tmp_path, h100, assumed={"tokens_per_second": 50, "start_seconds": 60})
    # 60 is also the default; the recipe says it all the same.
    assert own == Assumed(tokens_per_second=50, prompt_token=0.27, start_seconds=60)


@pytest.mark.parametrize(
    ("assumed", "said"),
    [
        ("{tokens_per_secnd: 1}", "unknown key assumed.tokens_per_secnd; did you mean tokens_per_second"),
        ("{pairs_per_second: 0}", "assumed.pairs_per_second: input should be greater than 0, not 0"),
        ("fast", "assumed: input should be a valid dictionary"),
    ],
)
def test_rates_of_a_profile_that_make_no_sense_are_named(assumed: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpartaError) as error:
        rates(tmp_path, assumed)
    assert said in str(error.value)


def test_a_run_that_has_begun_keeps_its_rates(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    request = LaunchRequest(state=run.state.root, profile=profile(tmp_path, "{tokens_per_second: 12000}"))
    assert recipe_of(request, Screen()).cluster.assumed == Assumed()


def test_the_cells_of_a_study_have_the_rates_of_the_profile_too(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"cluster.assumed.start_seconds": [9, 60], "seed": [0, 1]})
    chosen = profile(tmp_path, "{tokens_per_second: 12000, start_seconds: 58}")
    opened = opened_study(StudyRequest(str(path), tmp_path / "study", profile=chosen))
    freeze(opened.place, opened.grid, opened.text)
    for cell in opened.grid.cells:
        own = 9 if "start_seconds9" in cell.name else 60
        expected = Assumed(tokens_per_second=12000, start_seconds=own)
        assert thaw(opened.place.recipe(cell.name)).cluster.assumed == expected
        assert Where(profile=chosen).placed(cell.recipe).cluster.assumed == expected
    for pool in opened.grid.pools:
        assert pool.recipe.cluster.assumed.tokens_per_second == 12000
