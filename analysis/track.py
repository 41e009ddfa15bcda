"""Sends what a run knows to a tracker: python analysis/track.py [STATE] --to trackio|wandb|tensorboard

Reputations, judging weights, losses, results of combats, tokens, GPU time and scores, by iteration. Compute nodes often have no network, so type it on a login node, as often as you like and
while the run goes on: each number is sent once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.frames import load_all
from analysis.program import parser_of, run_program
from analysis.tracked import read_sent, sent_file, settings_of, tracked_values
from analysis.trackers import TRACKERS, Numbers
from sparta.errors import SpartaError
from sparta.store import files


def send(state: Path, to: str, project: str) -> str:
    """Send what `to` does not have yet of the run in `state`. Returns what was done, in a sentence."""
    found = load_all([state])
    run = found.run()
    values = tracked_values(found)
    before = read_sent(run.state, to)
    after, new = before.missing(values)
    count = sum(map(len, new.values()))
    if not count:
        return f"{to} has everything already"
    tracker = TRACKERS[to](project, run.state)
    name = after.name(f"{run.recipe.name}-seed{run.recipe.seed}")
    noted = after

    def delivered(t: int) -> None:
        nonlocal noted
        noted = noted.having(t, new[t])
        files.write_json(sent_file(run.state, to), noted)

    # First, so that nothing is sent if what was sent could not be remembered.
    files.write_json(sent_file(run.state, to), before)
    try:
        where = tracker.send(Numbers(name, after.name(run.info.run_id), settings_of(found), new, delivered))
    except Exception as error:
        raise SpartaError(
            f"{to} did not take the numbers ({type(error).__name__}: {error}): see to that, and type the command again"
        ) from error
    anew = " (some had changed since, so all of them, as a new run)" if after.number > before.number else ""
    return f"sent {count:,} numbers of {len(new)} iterations to {to} as {name}{anew}: {where}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--to", choices=sorted(TRACKERS), default="trackio", help="the tracker (default: trackio)"
    )
    parser.add_argument("--project", default="sparta", help="the project there (default: sparta)")

    def work(args: argparse.Namespace, state: Path) -> None:
        print(send(state, args.to, args.project))

    return run_program(parser, arguments, work)


if __name__ == "__main__":
    sys.exit(main())
