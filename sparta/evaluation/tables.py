"""Scores for display: one table per task, with remarks."""

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from sparta.evaluation.holdout_log import HoldoutAccess
from sparta.evaluation.summary import Interval, RunComparison, Scale, TaskScores
from sparta.store.run_budget import RunBudget

NONE = "-"


def show_scores(console: Console, found: Mapping[str, TaskScores]) -> None:
    """Print the scores of every task with choices, and all remarks."""
    for name, scores in found.items():
        if scores.choices:
            console.print(score_table(name, scores))
        for line in remarks(name, scores):
            console.print(line, markup=False)


def score_table(name: str, scores: TaskScores) -> Table:
    """The chosen checkpoints of one task, their validation mean and, one line per metric, their test scores with 95 % intervals."""
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
    """Remarks below a table: ungraded answers, repeated test-set accesses, comparisons."""
    items = scores.items.get("validation", 0)
    barred = [checkpoint for checkpoint, count in scores.ungraded.items() if 2 * count > items]
    ungraded = sum(scores.ungraded.values())
    if ungraded:
        yield f"  {name}: {ungraded:,} validation answers are ungraded and left out of the means"
    if unanswered := sum(scores.unanswered.values()):
        yield f"  {name}: in {unanswered:,} of these the thinking never ended (it used up chat.thinking_tokens and the answer's own limit)"
    if barred:
        yield f"  {name}: more than half of the answers of {', '.join(barred)} are ungraded, so these could not be chosen"
    for choice in scores.choices:
        for metric, estimate in choice.test.items():
            if estimate.ungraded:
                yield (
                    f"  {name}: {estimate.ungraded:,} test answers of {choice.checkpoint} have no {metric} and are left out of its mean"
                )
    for access in scores.accesses:
        if access.number > 1:
            yield f"  {name}: {repeated_access(access)}"
    tops = {metric.name: metric.top for metric in scores.metrics}
    for comparison in scores.against:
        yield f"  {name}: {in_words(comparison, tops[comparison.metric])}"
    for budgets in dict.fromkeys((each.other, each.budget, each.other_budget) for each in scores.against):
        yield from _budgets(name, *budgets)


def _budgets(name: str, other: str, ours: RunBudget | None, theirs: RunBudget | None) -> Iterator[str]:
    """What the two runs of a comparison cost, so that a difference is not taken for one of methods if it is one of budgets."""
    for whose, budget in (("this run", ours), (other, theirs)):
        if budget is not None:
            yield f"  {name}: cost of {whose}: {budget.in_words}"


def repeated_access(access: HoldoutAccess) -> str:
    """A remark that a test score is not the first of its kind."""
    return (
        f"test-set access number {access.number} for the {access.why}"
        f"{f' (chosen on {access.chosen_on})' if access.chosen_on != access.task else ''}: {access.checkpoint}; earlier ones had another "
        "checkpoint, other items or another prompt format; see evals/looks.jsonl"
    )


def in_words(comparison: RunComparison, top: float) -> str:
    """A comparison in one line."""
    difference = f"{100 * comparison.difference:+.1f} points" if top == 1 else f"{comparison.difference:+.2f}"
    return (
        f"{comparison.checkpoint} against {comparison.other_checkpoint} of {comparison.other}, {comparison.what}: {comparison.metric} "
        f"{difference}, p = {comparison.p:.4f} ({comparison.n} items)"
    )


def in_figures(value: float | None, top: float) -> str:
    """A score for display: 54.2% if its best value is 1, 7.31 if it is 10."""
    if value is None:
        return NONE
    return f"{value:.1%}" if top == 1 else f"{value:.2f}"


def _tested(metric: Scale, estimate: Interval) -> tuple[str, str, str]:
    """Metric, test score and interval."""
    low, high = in_figures(estimate.low, metric.top), in_figures(estimate.high, metric.top)
    return metric.name, in_figures(estimate.mean, metric.top), f"{low} to {high}"
