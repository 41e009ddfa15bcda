"""One figure of a run: reputations, losses and scores over the iterations. python analysis/curves.py [STATE] [--out FILE.png]"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.program import parser_of, run_program
from sparta.evaluation.answer import checkpoint_name
from sparta.evaluation.summary import TaskScores, read_summary
from sparta.store import files, standings
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.stats import IterationStats


def draw(run: Run, out: Path) -> None:
    """Draw the curves of `run` into `out`: reputation, loss, and the validation scores of every scored pool."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    committed = run.state.committed()
    history = {t: standings.at_end(run, t) for t in committed}
    stats = {t: files.read_json(run.iteration(t).stats, IterationStats) for t in committed[1:]}
    losses = {t: found.mean_losses for t, found in stats.items()}
    unit = next((found.unit for found in stats.values()), "combats")
    # SPPO's loss is a square and has no unit.
    loss = f"mean {'square' if run.recipe.method == 'sppo' else 'DPO'} loss of the training"
    panels: list[tuple[str, dict[str, dict[int, float]]]] = [
        # Without combats, reputations are only carried over.
        (
            "reputation",
            {
                name: {t: history[t][name].reputation for t in committed}
                for name in run.models
                if unit == "combats"
            },
        ),
        (loss, _by_model(run, losses)),
    ]
    for task, scored in read_summary(run.state).tasks.items():
        metric = scored.metrics[0]
        scale = "%" if metric.top == 1 else f"of {metric.top:g}"
        panels.append((f"{task}: validation {metric.name} ({scale})", _by_model(run, _scores(run, scored))))
    panels = [(title, curves) for title, curves in panels if any(curves.values())]
    colours = pyplot.get_cmap("tab10")
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(1.5 + 4.4 * len(panels), 4.2), layout="constrained", squeeze=False
    )
    for axis, (title, curves) in zip(axes[0], panels, strict=True):
        for index, (name, curve) in enumerate(curves.items()):
            dashes = "-" if index < 10 else "--"
            axis.plot(
                list(curve),
                list(curve.values()),
                dashes,
                color=colours(index % 10),
                marker="o",
                markersize=3,
                label=name,
            )
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("iteration")
        axis.set_xticks(committed)
        axis.grid(alpha=0.25)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9
    )
    figure.suptitle(
        f"{run.recipe.name}, seed {run.recipe.seed}: {len(run.models)} models, {run.recipe.combats} {unit} an iteration"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)


def _by_model(run: Run, values: Mapping[int, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    """`values`, by iteration and model, as values by model and iteration."""
    return {name: {t: found[name] for t, found in values.items() if name in found} for name in run.models}


def _scores(run: Run, scored: TaskScores) -> dict[int, dict[str, float]]:
    """Validation means by iteration and model, in percent where the best value is 1."""
    scale = 100 if scored.metrics[0].top == 1 else 1
    values = {name: value for name, value in scored.validation.items() if value is not None}
    return {
        t: {
            model: scale * values[key]
            for model in run.models
            if (key := checkpoint_name(run, t, model)) in values
        }
        for t in run.state.committed()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--out", type=Path, help="the figure (default: curves.png in the state's evals/)")

    def work(args: argparse.Namespace, state: Path) -> None:
        run = Run.open(StateDir(state))
        out = args.out or run.state.evals / "curves.png"
        draw(run, out)
        print(f"figure: {out}")

    return run_program(parser, arguments, work)


if __name__ == "__main__":
    sys.exit(main())
