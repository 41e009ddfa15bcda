"""Where a run stands: python jobs/status.py [state]. Exit status: 0 done, 1 failed, 3 in progress."""

import argparse
import sys
from pathlib import Path

from sparta.commands.options import exit_on_error
from sparta.status.collect import status_of
from sparta.status.tables import as_json, show_status
from sparta.store.layout import StateDir
from sparta.store.run import Run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "state", nargs="?", type=Path, default=Path("state"), help="the state directory (default: state)"
    )
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    args = parser.parse_args()
    with exit_on_error():
        status = status_of(Run.open(StateDir(args.state)))
    if args.json:
        print(as_json(status))
    else:
        show_status(status, args.state)
    return status.exit_code


if __name__ == "__main__":
    sys.exit(main())
