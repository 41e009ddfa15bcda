"""Scores as a person reads them: a table a task, and what is to be known beside it."""

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from sparta.evaluation.holdout_log import HoldoutAccess
from sparta.evaluation.summary import Comparison, Interval, Scale, TaskScores

NONE = "-"


def show_scores(console: Console, found: Mapping[str, TaskScores]) -> None:
    """The scores of every task for which something was chosen."""
    for name, scores in found.items():
        if scores.choices:
            console.print(score_table(name, scores))
        for line in remarks(name, scores):
            console.print(line, markup=False)


def score_table(name: str, scores: TaskScores) -> Table:
    """The chosen checkpoints of one task, their validation mean and, a line a metric, their test scores with 95 % intervals."""
    items = " and ".join(f"{count} {split}" for split, count in sorted(scores.items.items(), reverse=True))
    others = sorted({choice.chosen_on for choice in scores.choices} - {name})
    table = Table(
        title=f"{name}: {items} items" + "".join(f", chosen on {other}" for other in others),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("chosen on validation", "checkpoint"):
        table.add_column(heading)
    table.add_column("validation", justify="right")
    if any(choice.test for choice in scores.choices):
        table.add_column("metric")
        for heading in ("test", "95 % interval"):
            table.add_column(heading, justify="right")
    for choice in scores.choices:
        chosen = (choice.what, choice.checkpoint, in_figures(choice.validation, choice.by.top))
        lines = [_tested(metric, choice.test[metric.name]) for metric in scores.metrics if choice.test]
        for number, line in enumerate(lines or [()]):
            table.add_row(*(("", "", "") if number else chosen), *line)
    return table


def remarks(name: str, scores: TaskScores) -> Iterator[str]:
    """What a table does not say: answers without a grade, looks that were not the first, comparisons."""
    items = scores.items.get("validation", 0)
    barred = [checkpoint for checkpoint, count in scores.ungraded.items() if 2 * count > items]
    ungraded = sum(scores.ungraded.values())
    if ungraded:
        yield f"  {name}: {ungraded:,} validation answers are ungraded and left out of the means"
    if unanswered := sum(scores.unanswered.values()):
        yield f"  {name}: in {unanswered:,} of these the thinking never ended (chat.thinking_tokens, the answer's own limit beside it, was used up)"
    if barred:
        yield f"  {name}: more than half of the answers of {', '.join(barred)} are ungraded, so that they were not to be chosen"
    for choice in scores.choices:
        for metric, estimate in choice.test.items():
            if estimate.ungraded:
                yield (
                    f"  {name}: {estimate.ungraded:,} test answers of {choice.checkpoint} have no {metric} and are left out of its mean"
                )
    for look in scores.looks:
        if look.number > 1:
            yield f"  {name}: {second_look(look)}"
    tops = {metric.name: metric.top for metric in scores.metrics}
    for comparison in scores.against:
        yield f"  {name}: {in_words(comparison, tops[comparison.metric])}"


def second_look(look: HoldoutAccess) -> str:
    """That a test score is not the first of its kind that was seen."""
    return (
        f"look number {look.number} at the test split for the {look.why}"
        f"{f' (chosen on {look.chosen_on})' if look.chosen_on != look.task else ''}: {look.checkpoint}; it was asked before of another checkpoint, "
        "on other items or in another way; see evals/looks.jsonl"
    )


def in_words(comparison: Comparison, top: float) -> str:
    """A comparison in one line."""
    difference = f"{100 * comparison.difference:+.1f} points" if top == 1 else f"{comparison.difference:+.2f}"
    return (
        f"{comparison.checkpoint} against {comparison.other_checkpoint} of {comparison.other}, {comparison.what}: {comparison.metric} "
        f"{difference}, p = {comparison.p:.4f} ({comparison.n} items)"
    )


def in_figures(value: float | None, top: float) -> str:
    """A score as people write it: 54.2% of what is at most 1, 7.31 of what is at most 10."""
    if value is None:
        return NONE
    return f"{value:.1%}" if top == 1 else f"{value:.2f}"


def _tested(metric: Scale, estimate: Interval) -> tuple[str, str, str]:
    """Metric, test score and interval."""
    low, high = in_figures(estimate.low, metric.top), in_figures(estimate.high, metric.top)
    return metric.name, in_figures(estimate.mean, metric.top), f"{low} to {high}"
