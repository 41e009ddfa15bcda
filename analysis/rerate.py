"""A finished run, rated again: python analysis/rerate.py [STATE_OR_STUDY] [--set reputation.kappa=0.5] [--judge-aware]

Replays the votes of a run with other rules (--set), and labels its combats by judge-aware Bradley-Terry (--judge-aware): the standings beside each other, which labels would
have been others, and how often the only correct response wins, where the task has gold answers. Nothing is written into the state.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich import box
from rich.console import Console
from rich.table import Table

from analysis.frames import AXIS, Frames, Source, load
from analysis.judge_aware import Strengths
from analysis.program import parser_of, run_program
from analysis.rerating import (
    Difference,
    Rerated,
    as_committed,
    differences,
    first_replayed,
    gold_of,
    hits,
    judge_aware,
    other_rules,
    rerated,
    share_right,
)
from sparta.errors import SpartaError
from sparta.evaluation.across_seeds import difference_over_seeds
from sparta.screen import plain_console
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run
from sparta.studies.layout import SEED

OWN, SET, JUDGE_AWARE = "the run's own rules", "with --set", "judge-aware"


@dataclass(frozen=True)
class Comparison:
    """A run under all rules that were asked for. made: by rule, the run's own first. strengths: of the last iteration, with --judge-aware."""

    run: Run
    made: dict[str, list[Rerated]]
    strengths: Strengths | None
    gold: dict[str, str] | None

    @property
    def own(self) -> list[Rerated]:
        return self.made[OWN]

    @property
    def others(self) -> dict[str, list[Rerated]]:
        return {rule: made for rule, made in self.made.items() if rule != OWN}

    def differences(self, rule: str) -> list[Difference]:
        return differences(self.run, self.own, self.made[rule], self.gold)


def compared(run: Run, settings: Sequence[str], with_judges: bool) -> Comparison:
    """`run` under its own rules, under those of `settings` if there are any, and by judge-aware Bradley-Terry if asked for.

    Raises SpartaError if the run's own rules do not give what the run has.
    """
    own = rerated(run, run.recipe)
    if own != as_committed(run):
        raise SpartaError(
            f"the votes in {run.state.root} and its own rules do not give the labels and standings that it has: check it with jobs/verify.py, or use "
            "the release that wrote it"
        )
    made, strengths = {OWN: own}, None
    if settings:
        made[SET] = rerated(run, other_rules(run.recipe, settings))
    if with_judges:
        found = judge_aware(run)
        made[JUDGE_AWARE], strengths = [each for each, _ in found], found[-1][1]
    return Comparison(run, made, strengths, gold_of(run, [each.t for each in own]))


def show(console: Console, found: Comparison) -> None:
    """Print standings, labels and gold of one run."""
    console.print(_standings(found))
    if found.others:
        console.print(_labels(found))
    console.print(
        "combats, responses and votes are those of the run; only what the rules make of them is new"
    )
    if found.gold is None:
        console.print(
            "the task has no gold answers that a program can check, so nobody knows which labels are right"
        )


def _standings(found: Comparison) -> Table:
    last = found.own[-1]
    table = Table(title=f"after iteration {last.t}", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("model", "reputation", *(["with --set"] if SET in found.made else [])):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    if found.strengths is not None:
        for heading in ("strength", "discrimination as a judge"):
            table.add_column(heading, justify="right")
    for name, standing in sorted(last.standings.items(), key=lambda entry: -entry[1].reputation):
        row = [name, f"{standing.reputation:.1f}"]
        if SET in found.made:
            row.append(f"{found.made[SET][-1].standings[name].reputation:.1f}")
        if found.strengths is not None:
            k = found.run.models.index(name)
            row += [f"{found.strengths.strengths[k]:+.2f}", f"{found.strengths.discriminations[k]:.2f}"]
        table.add_row(*row)
    return table


def _labels(found: Comparison) -> Table:
    table = Table(title="labels that would have been others", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("rules", "iteration", "pairs", "of the run", "other winner", "pair in one only", "share"):
        table.add_column(heading, justify="left" if heading == "rules" else "right")
    for rule, made in found.others.items():
        changed = found.differences(rule)
        for ours, theirs in zip(found.own, made, strict=True):
            here = [each for each in changed if each.t == ours.t]
            both = sum(each.run.winner is not None and each.other.winner is not None for each in here)
            table.add_row(
                rule,
                str(ours.t),
                str(_pairs(theirs)),
                str(_pairs(ours)),
                str(both),
                str(len(here) - both),
                f"{len(here) / len(ours.labels):.1%}",
            )
    return table


def _pairs(made: Rerated) -> int:
    return sum(found.winner is not None for found in made.labels.values())


def _replayable(found: Frames) -> list[Source]:
    """The runs to rate again; of a study, those that have committed an iteration with combats. The others are named on standard error.

    Raises SpartaError if no cell is left.
    """
    if found.study is None:
        return list(found.sources)
    kept = [source for source in found.sources if _has_combats(source.run)]
    left_out = [*(source.label for source in found.sources if source not in kept), *found.waiting]
    if not kept:
        raise SpartaError(
            f"no cell of the study {found.study.name} has committed an iteration with combats: let one finish an iteration"
        )
    if left_out:
        print(f"left out, without a committed iteration with combats: {', '.join(left_out)}", file=sys.stderr)
    return kept


def _has_combats(run: Run) -> bool:
    last = run.state.last_committed() or 0
    return last >= first_replayed(run) and present(run.iteration(last).combats)


def _by_configuration(
    sources: Sequence[Source], found: Sequence[Comparison]
) -> dict[tuple[str, ...], list[Comparison]]:
    """The runs that differ in their seeds alone, by the levels of their study's axes; runs without a study are together."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for source, each in zip(sources, found, strict=True):
        levels = tuple(
            f"{name.removeprefix(AXIS)} {value}"
            for name, value in source.extra.items()
            if name.startswith(AXIS) and name != f"{AXIS}{SEED}"
        )
        groups.setdefault(levels, []).append(each)
    return groups


def gold_table(found: Sequence[Comparison], levels: Sequence[str] = ()) -> Table:
    """How often the only correct response wins, by rule, over all of these runs that have gold answers. levels: of a study's axes, for the title."""
    known = [each for each in found if each.gold]
    title = ", ".join(levels) + (": " if levels else "")
    title += f"the only correct response won: {sum(len(each.gold or {}) for each in known):,} combats of {len(known)} run{'s' * (len(known) != 1)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("rules", "share right", "95 % interval", "against the run's own", "95 % interval", "p"):
        table.add_column(heading, justify="left" if heading == "rules" else "right")
    own = [_hits(each, OWN) for each in known]
    for rule in known[0].made if known else ():
        values = [_hits(each, rule) for each in known]
        share = share_right(values)
        row = [rule, f"{share.difference:.1%}", f"{share.low:.1%} to {share.high:.1%}"]
        if rule != OWN:
            against = difference_over_seeds(values, own)
            row += [
                f"{100 * against.difference:+.1f} points",
                f"{100 * against.low:+.1f} to {100 * against.high:+.1f}",
                f"{against.p:.3f}",
            ]
        table.add_row(*row)
    return table


def _hits(found: Comparison, rule: str) -> dict[str, float]:
    return hits(found.gold or {}, found.made[rule], str(found.run.state.root))


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything as plain values: standings of every iteration, every label that would have been another one, and gold."""
    return {
        "state": str(found.run.state.root),
        "standings": {
            rule: {each.t: each.standings for each in made}
            for rule, made in found.made.items()
            if rule != JUDGE_AWARE
        },
        "strengths": None
        if found.strengths is None
        else {
            "strength": dict(zip(found.run.models, found.strengths.strengths.tolist(), strict=True)),
            "discrimination": dict(
                zip(found.run.models, found.strengths.discriminations.tolist(), strict=True)
            ),
        },
        "differences": {rule: found.differences(rule) for rule in found.others},
        "gold": None
        if found.gold is None
        else {
            rule: {"right": sum(_hits(found, rule).values()), "of": len(found.gold)} for rule in found.made
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=Path,
        default=[],
        metavar="STATE",
        help="more runs of the recipe, with other seeds: gold answers count over all of them",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another rule: a key of reputation, reweighting or preferences; reputation.preset=authors sets all of them",
    )
    parser.add_argument(
        "--judge-aware",
        action="store_true",
        help="label by Bradley-Terry with judges of different discrimination",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, each changed label too")
    console = plain_console()

    def work(args: argparse.Namespace, state: Path) -> None:
        sources = [source for path in (state, *args.seeds) for source in _replayable(load(path))]
        found = [compared(source.run, args.set, args.judge_aware) for source in sources]
        if len(found) == 1:
            show(console, found[0])
        for levels, alike in _by_configuration(sources, found).items():
            if any(each.gold for each in alike):
                console.print(gold_table(alike, levels))
        if args.json:
            files.write_bytes(
                args.json, msgspec.json.format(msgspec.json.encode([as_json(each) for each in found]))
            )

    return run_program(parser, arguments, work)


if __name__ == "__main__":
    sys.exit(main())
