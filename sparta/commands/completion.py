"""The tab completion of the command `sparta`, as a script for a shell."""

from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import shtab

from sparta.names import PROFILE_FOLDERS, quoted
from sparta.recipes.load import built_in

Shell = Literal["bash", "zsh"]

_BY_NAME = {"--recipe": "_sparta_recipes", "--profile": "_sparta_profiles"}
"""Options that take a file or a name of the suite -> the shell function that completes them."""


def completion(parser: ArgumentParser, shell: Shell) -> str:
    """The completion script of `parser`: commands, options, folders, and recipes and profiles by name or file."""
    for action in _actions(parser):
        if name := next((_BY_NAME[option] for option in action.option_strings if option in _BY_NAME), None):
            _complete(action, {shell: name})
        elif action.type is Path:
            _complete(action, shtab.DIRECTORY)
    known = {
        "_sparta_recipes": built_in(),
        "_sparta_profiles": sorted(
            {path.stem for folder in PROFILE_FOLDERS for path in folder.glob("*.yaml")}
        ),
    }
    functions = (_function(shell, name, quoted(*words)) for name, words in known.items())
    return shtab.complete(parser, shell, preamble="\n".join(functions))


def _function(shell: Shell, name: str, words: str) -> str:
    """A shell function that offers `words` and files."""
    if shell == "bash":
        return f'{name}() {{ compgen -W {quoted(words)} -- "$1"; compgen -f -- "$1"; }}'
    return f"{name}() {{ compadd -- {words}; _files }}"


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """Every argument and option of the parser and its commands. The help line of each command becomes its description."""
    for action in parser._actions:
        yield action
        if isinstance(action, _SubParsersAction):
            # zsh shows the description beside the name of a command.
            for shown in action._choices_actions:
                action.choices[shown.dest].description = shown.help
            for command in action.choices.values():
                yield from _actions(command)


def _complete(action: Action, how: Mapping[str, object]) -> None:
    # shtab reads this attribute.
    action.complete = how  # type: ignore[attr-defined]
