"""Make a run's initial pool, and nothing more: python jobs/init_pool.py --recipe R --state DIR. A launch makes it too."""

import argparse

from sparta.commands.launch import command_to_continue, fetch_models, launch
from sparta.commands.launch_request import LaunchRequest
from sparta.commands.options import add_run, exit_on_error
from sparta.screen import Screen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Experts are trained from data, one task each; the same command goes on with what was interrupted.",
    )
    add_run(parser)
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="only fetch what the pool names hub:..., where there is a network",
    )
    parser.add_argument(
        "--update", action="store_true", help="with --fetch: take newer commits of what is there"
    )
    args = vars(parser.parse_args())
    only_fetch, update = args.pop("fetch"), args.pop("update")
    if update and not only_fetch:
        parser.error("--update goes with --fetch")
    asked, screen = LaunchRequest(**args, pool_only=True), Screen()
    if only_fetch:
        with exit_on_error():
            fetch_models(asked, update, screen)
        return
    with exit_on_error(lambda: f"go on with\n  {command_to_continue(asked)}"):
        launch(asked, screen)


if __name__ == "__main__":
    main()
