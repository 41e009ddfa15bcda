"""All tables and figures of a run or a study: python analysis/tables.py [STATE] [--format latex] [--only table1,judges] [--paper] [--out DIR]

Tables are printed; with --out, tables and figures are written to a folder, one file each. What a state has no data for is named with the reason.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import frames
from analysis.catalogue import FIGURES, TABLES
from analysis.drawing import save
from analysis.pieces import FORMATS, Absent, Table
from analysis.program import parser_of, run_program
from sparta.errors import UsageError
from sparta.names import hint

ENDINGS = {"markdown": "md", "latex": "tex", "html": "html", "csv": "csv"}


def table(found: frames.Frames, name: str, paper: bool = False) -> Table:
    """The table `name`. paper: with the paper's numbers beside, where it can have them. Raises Absent."""
    piece = TABLES[name]
    return piece.make(found, paper=paper) if piece.beside_paper else piece.make(found)


def show(found: frames.Frames, names: Sequence[str], kind: str, paper: bool) -> None:
    """Print the tables `names`."""
    for name in names:
        try:
            print(table(found, name, paper).rendered(kind))
        except Absent as why:
            print(f"{name}: {why}\n", file=sys.stderr)


def write(found: frames.Frames, names: Sequence[str], kind: str, paper: bool, out: Path) -> None:
    """Write the tables and figures `names` to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            if name in TABLES:
                path = out / f"{name}.{ENDINGS[kind]}"
                path.write_text(table(found, name, paper).rendered(kind), encoding="utf-8")
                print(path)
        except Absent as why:
            print(f"no table {name}: {why}", file=sys.stderr)
        try:
            if name in FIGURES:
                path = out / f"{name}.svg"
                save(FIGURES[name].make(found), path)
                print(path)
        except Absent as why:
            print(f"no figure {name}: {why}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--format", choices=FORMATS, default="markdown", help="of the tables (default: markdown)"
    )
    parser.add_argument(
        "--only", metavar="NAMES", help="names of tables and figures, separated by commas (default: all)"
    )
    parser.add_argument("--paper", action="store_true", help="show the paper's numbers beside one's own")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a folder for tables and figures")

    def work(args: argparse.Namespace, state: Path) -> None:
        known = list(TABLES) if args.out is None else list(dict.fromkeys([*TABLES, *FIGURES]))
        names = known if args.only is None else [name.strip() for name in args.only.split(",")]
        for name in names:
            if name not in known:
                raise UsageError(f"there is no table {name}: {hint(name, known, 'tables')}")
        found = frames.load(state)
        if args.out is None:
            show(found, names, args.format, args.paper)
        else:
            write(found, names, args.format, args.paper, args.out)

    return run_program(parser, arguments, work)


if __name__ == "__main__":
    sys.exit(main())
