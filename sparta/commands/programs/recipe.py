"""The command line that shows recipes and their keys."""

from argparse import ArgumentParser, Namespace

from sparta.commands.options import add_recipe, exit_on_error
from sparta.commands.programs.base import Program
from sparta.errors import UsageError
from sparta.store.state_argument import add_state


def _add_options(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print a recipe with every key, as YAML")
    show.description = (
        "Print a recipe with every key, defaults and --set included, as YAML. Without --recipe: the recipe frozen in the state directory, "
        "or toy where there is no run."
    )
    add_state(show)
    add_recipe(show)
    actions.add_parser("schema", help="print the JSON schema of recipe files, for editors").description = (
        "Print the JSON schema of recipe files. An editor with YAML support uses it to check and complete a recipe that starts with the line "
        "# yaml-language-server: $schema=recipe.schema.json"
    )
    actions.add_parser(
        "docs", help="print the reference of all keys, in Markdown"
    ).description = "Print the reference of all keys of recipes and of cluster profiles, in Markdown: the content of jobs/RECIPE.md."


def _run(args: Namespace) -> int:
    from sparta.commands import recipe

    with exit_on_error():
        if args.action == "schema":
            print(recipe.schema())
        elif args.action == "docs":
            print(recipe.reference(), end="")
        elif args.recipe is not None and args.state is not None:
            raise UsageError("a state directory and --recipe are alternatives: leave one of them out")
        else:
            print(recipe.shown(args.recipe, args.state, args.settings), end="")
    return 0


PROGRAM = Program(
    name="recipe",
    summary="Show a recipe with every key, or what its keys mean.",
    details="A recipe is the whole configuration of a run.",
    example=("show", "--recipe", "paper/gsm8k", "--set", "match.k=3"),
    add_options=_add_options,
    run=_run,
)
