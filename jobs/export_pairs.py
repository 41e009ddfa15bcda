"""Write preference pairs as TRL takes them: python jobs/export_pairs.py state/iter_05 --out pairs.jsonl"""

import argparse
from pathlib import Path

from sparta.commands.export_pairs import export_pairs
from sparta.commands.options import exit_on_error
from sparta.screen import Screen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source",
        nargs="?",
        type=Path,
        default=Path("state"),
        help="an iteration such as state/iter_05, or a state directory for all of its iterations (default: state)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON Lines of prompt, chosen and rejected, each a list of messages",
    )
    parser.add_argument(
        "--finished",
        action="store_true",
        help="leave out pairs of which a response was cut at its token limit",
    )
    args = parser.parse_args()
    with exit_on_error():
        export_pairs(args.source, args.out, args.finished, Screen())


if __name__ == "__main__":
    main()
