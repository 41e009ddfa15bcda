"""What the command `recipe` prints: a recipe with every key, the JSON schema, and the reference of all keys."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sparta.cluster.slurm.profile import Profile
from sparta.evaluation.derived_pool import resolved
from sparta.names import DEFAULT_RECIPE, DEFAULT_STATE
from sparta.recipes.load import adjust, load
from sparta.recipes.reference import FREE, recipe_file_schema
from sparta.recipes.reference import reference as tables
from sparta.recipes.schema import Recipe
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.run import Run

_PAGE = f"""\
# The keys of recipes and cluster profiles

`python jobs/recipe.py docs > jobs/RECIPE.md` writes this page from the code; a test keeps the two equal.

## Recipes

A recipe is a YAML file with the whole configuration of a run. It lists only what differs from the defaults, which are the paper's
(arXiv 2506.04721); unknown keys are refused. `extends: NAME` at the top level names another recipe as its base. On the command line,
`--set dpo.beta=0.2` changes one value. `python jobs/recipe.py show` prints a recipe with every key, `python jobs/recipe.py schema` the JSON
schema with which editors check and complete a recipe.

Keys with {FREE} control how a run is carried out, not what it computes: they may change between two launches of one run. Where a section
has the mark, all its keys may change. Every other key is fixed when the run begins.

{{recipe}}
## Cluster profiles

A profile is a YAML file that describes one SLURM cluster; `slurm/profiles/template.yaml` is a template with every key. `--profile NAME`
selects one. Nothing in it changes a result.

{{profile}}"""


def shown(source: str | None, state: Path | None, settings: Sequence[str]) -> str:
    """The recipe that a launch would use, with every key, as YAML: the recipe `source`, or the one frozen in `state`, changed by `settings`.

    Where neither is given: the recipe frozen in the default state directory, or the default recipe if that holds no run. Raises SpartaError
    where `state` is given and holds no run.
    """
    frozen = StateDir(state or DEFAULT_STATE)
    if source is None and (state is not None or present(frozen.run_json)):
        recipe = adjust(Run.open(frozen).recipe, settings)
    else:
        recipe = load(source or DEFAULT_RECIPE, settings)
    # Standard output holds nothing but the YAML.
    return resolved(recipe, lambda text: print(text, file=sys.stderr)).to_yaml()


def schema() -> str:
    """The JSON schema of recipe files."""
    return json.dumps(recipe_file_schema(), indent=2, ensure_ascii=False)


def reference() -> str:
    """The page of all keys of recipes and cluster profiles, in Markdown."""
    return _PAGE.format(
        recipe=tables(Recipe.model_json_schema(), "###", "Top level"),
        profile=tables(Profile.model_json_schema(), "###", "Profile"),
    )
