"""The README is true: its commands exist with the options it names, its recipe is valid, its links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sparta.recipes.load import load
from sparta.recipes.schema import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for language, block in BLOCKS
        if language == "bash"
        for line in block.splitlines()
        if line.split("#")[0].strip()
    }
)


def help_of(script: str) -> str:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python ")])
def test_every_command_of_the_readme_exists_with_its_options(command: str) -> None:
    _, script, *arguments = shlex.split(command)
    known = set(re.findall(r"--[\w-]+", help_of(script)))
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_every_option_of_launch_is_in_the_readme() -> None:
    options = set(re.findall(r"--[\w-]+", help_of("jobs/launch.py"))) - {"--help", "--version"}
    assert {option for option in options if option not in README} == set()


@pytest.mark.parametrize(
    "target", [command.split()[1] for command in COMMANDS if command.startswith("make ")]
)
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_the_recipe_of_the_readme_is_valid() -> None:
    [recipe] = [block for language, block in BLOCKS if language == "yaml"]
    assert len(Recipe.model_validate(yaml.safe_load(recipe)).pool.models) == 3


def test_every_setting_that_the_readme_names_is_a_key_of_the_recipe() -> None:
    named = re.findall(r"\b([a-z]+(?:\.[a-z_]+)+=[\w.:/-]*\w)", README)
    assert len(named) > 8
    for setting in named:
        load("toy", [setting])


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README) + re.findall(
        r'<img src="(?!https?:)([^"]+)"', README
    )
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_one_node_job_runs_without_slurm(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        ["bash", "slurm/one_node.sh", "--dry-run", "--state", str(tmp_path / "state")],
        cwd=ROOT,
        env={**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "local" in done.stdout
    assert not (tmp_path / "state").exists()
