"""The reference of all keys and the schema for editors say what the code says."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from support.house import ROOT

from sparta.cluster.slurm.profile import Profile
from sparta.commands import recipe as command
from sparta.names import RECIPES
from sparta.recipes.load import built_in
from sparta.recipes.reference import FREE, recipe_file_schema, reference
from sparta.recipes.schema import Recipe

PAGE = ROOT / "jobs" / "RECIPE.md"
SHIPPED = [RECIPES / f"{name}.yaml" for name in built_in()]
SCHEMAS = {"recipe": Recipe.model_json_schema(), "profile": Profile.model_json_schema()}


def test_the_checked_in_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == command.reference(), (
        "write it again: python jobs/recipe.py docs > jobs/RECIPE.md"
    )


def keys(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Section, key and its schema, of every key."""
    sections = {"": schema, **schema.get("$defs", {})}
    return [
        (name, key, field)
        for name, section in sections.items()
        # A value that may be anything is no section.
        for key, field in section.get("properties", {}).items()
    ]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_key_says_what_it_means(kind: str) -> None:
    # A section says it above its keys.
    silent = [
        f"{name}.{key}"
        for name, key, field in keys(SCHEMAS[kind])
        if not field.get("description") and "$ref" not in str(field)
    ]
    assert silent == [], "give the field a description"
    sections = {name: section for name, section in SCHEMAS[kind]["$defs"].items() if "properties" in section}
    assert [name for name, section in sections.items() if not section.get("description")] == []


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_tables_have_a_row_for_every_key(kind: str) -> None:
    rows = re.findall(r"^\| `(\w+)`", reference(SCHEMAS[kind], "###", "Top"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(key for _, key, _ in keys(SCHEMAS[kind]))


@pytest.mark.parametrize(
    "row",
    [
        f"| `iterations`{FREE} | integer | ≥ 1 | `8` | T; a larger value continues a finished run |",
        "| `name` | text |  | required | the name of the run in tables |",
        "| `top_p` | number | > 0, ≤ 1 | `0.95` | sample from the most likely tokens of this total probability; 1: off |",
        "| `mode` | `text` or `expected` |  | `text` | text: the judge writes a score; expected: the mean over single-token labels |",
        "| `unreadable` | mapping of names to number | ≥ 0, ≤ 1 | `{}` | judge -> share of its votes that cannot be read |",
        "| `models` | list of sections |  | `[]` | see [pool.models[]](#poolmodels) |",
        "| `epsilon` | number | > 0 | `0.01` | smallest value of \\|Phi(z_i) - Phi(z_j)\\| |",
    ],
)
def test_a_row_has_type_bounds_default_and_meaning(row: str) -> None:
    assert row in command.reference().splitlines()


def test_every_link_of_the_page_leads_to_a_heading_of_it() -> None:
    page = command.reference()
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert len(links) > 20 and links <= headings


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_recipes_of_the_suite_fit_the_schema_for_editors(path: Path) -> None:
    Draft202012Validator.check_schema(recipe_file_schema())
    assert (
        list(Draft202012Validator(recipe_file_schema()).iter_errors(yaml.safe_load(path.read_text()))) == []
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{name: a, pool: {}, data: {task: toy}, combat: 3}", "combat"),
        ("{extends: toy, combats: 0}", "minimum"),
        ("{extends: toy, match: {first: last}}", "last"),
        ("{name: a, pool: {}}", "not valid under any of the given schemas"),
    ],
)
def test_an_editor_sees_what_a_launch_would_refuse(text: str, fault: str) -> None:
    errors = list(Draft202012Validator(recipe_file_schema()).iter_errors(yaml.safe_load(text)))
    assert len(errors) == 1 and fault in errors[0].message
