"""The first screen of a report: did it work, which model to keep, how sure is that, what did it cost. All of it from frames.

A gain is that of the checkpoint chosen on validation over the best initial model, on the test split where it was scored, item by item.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import pandas as pd

from analysis import chosen
from analysis.frames import Frames, Source
from sparta.evaluation.across_seeds import holm
from sparta.evaluation.selection import ALL, INITIAL, LAST
from sparta.evaluation.statistics import interval, paired
from sparta.evaluation.tables import in_figures
from sparta.names import suggested
from sparta.pool.members import locate
from sparta.pool.serving import serve_command
from sparta.screen import duration
from sparta.store.failure import last_failure
from sparta.store.layout import parse_checkpoint
from sparta.store.run import Run

LEVEL = 0.05
"""A gain with a larger p, adjusted for all tasks, may be chance."""


@dataclass(frozen=True)
class Gain:
    """One task of one run. before, after: the best initial model and the chosen one. difference, low, high: of their means over the items that both have, with the
    95 % interval. p: two-sided, adjusted for all tasks (Holm). split: test, or validation where there are no test scores. accesses: to the test split for this choice. chosen_on: the task
    on whose validation split both were chosen. validation: the score of the chosen one there.
    """

    run: str
    task: str
    metric: str
    top: float
    split: str
    before_checkpoint: str
    after_checkpoint: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    items: int
    accesses: int
    chosen_on: str
    validation: float

    @property
    def sure(self) -> bool:
        """Whether the difference is more than chance would give."""
        return self.p < LEVEL

    @property
    def in_words(self) -> str:
        """From 74.8% to 96.7%, +21.8 points (95 % interval +18.2 to +25.5)."""
        elsewhere = f", chosen on validation of {self.chosen_on}" if self.chosen_on != self.task else ""
        return (
            f"{in_figures(self.before, self.top)} to {in_figures(self.after, self.top)}, {points(self.difference, self.top)}{' points' * (self.top == 1)} "
            f"(95 % interval {points(self.low, self.top)} to {points(self.high, self.top)}){elsewhere}"
        )


def points(value: float, top: float) -> str:
    """A difference for display: +3.1 points of 100, or in the metric's own unit."""
    return f"{100 * value:+.1f}" if top == 1 else f"{value:+.2f}"


@dataclass(frozen=True)
class ValidationScore:
    """The validation score on `task` that a checkpoint was chosen by."""

    task: str
    validation: float


@dataclass(frozen=True)
class Keep:
    """The model to keep. checkpoint: as in evaluations. why: in words. adapter: its folder. commands: what to type to use it.

    score: what it was chosen by; None where it was its reputation.
    """

    checkpoint: str
    why: str
    adapter: str
    commands: tuple[str, ...]
    score: ValidationScore | None


@dataclass(frozen=True)
class Headline:
    """The four answers. pool: how the mean of all models moved, by task. state: how far the run is, in words; going: whether it is not finished."""

    worked: str
    pool: tuple[str, ...]
    state: str
    going: bool
    gains: tuple[Gain, ...]
    keep: Keep | None
    sure: tuple[str, ...]
    cost: tuple[str, ...]


def gains(found: Frames, source: Source) -> list[Gain]:
    """The gain of a run on every task that both its initial models and later ones were scored on."""
    choices = chosen.counted(found)
    choices = choices[choices.run == source.label]
    scores = found.item_scores[found.item_scores.run == source.label]
    made = []
    for task, here in choices.groupby("task", observed=True, sort=False):
        # The first metric is the one that checkpoints are chosen by.
        first = here[here.metric == here.metric.iloc[0]].set_index("what")
        later = next((what for what in (ALL, LAST) if what in first.index), None)
        if INITIAL not in first.index or later is None:
            continue
        before, after = first.loc[INITIAL], first.loc[later]
        split = "test" if pd.notna(before["mean"]) and pd.notna(after["mean"]) else "validation"
        of_task = scores[(scores.task == task) & (scores.split == split) & (scores.metric == before.metric)]
        values = [
            dict(zip(rows.item_id.astype(str), rows.score, strict=True))
            for rows in (of_task[of_task.checkpoint == each.checkpoint] for each in (before, after))
        ]
        common = [value - values[0][item] for item, value in values[1].items() if item in values[0]]
        if not common:
            continue
        test = paired(values[1], values[0])
        low, high = interval(common)
        made.append(
            Gain(
                run=source.label,
                task=str(task),
                metric=str(before.metric),
                top=float(before.top),
                split=split,
                before_checkpoint=str(before.checkpoint),
                after_checkpoint=str(after.checkpoint),
                before=fmean(values[0].values()),
                after=fmean(values[1].values()),
                difference=test.difference,
                low=low,
                high=high,
                p=test.p,
                items=test.n,
                accesses=0 if pd.isna(after.access) else int(after.access),
                chosen_on=str(after.chosen_on),
                validation=float(after.validation),
            )
        )
    adjusted = holm({number: gain.p for number, gain in enumerate(made)})
    return [replace(gain, p=adjusted[number]) for number, gain in enumerate(made)]


def headline(found: Frames, source: Source) -> Headline:
    """The four answers for one run."""
    made, run = gains(found, source), source.run
    return Headline(
        worked=worked(made, run),
        pool=tuple(pool_means(found, source)),
        state=progress(run),
        going=run.state.next_iteration() <= run.recipe.iterations,
        gains=tuple(made),
        keep=keep(found, source, made),
        sure=tuple(how_sure(made, run)),
        cost=tuple(costs(found, source, made)),
    )


def worked(made: Sequence[Gain], run: Run) -> str:
    """Did it work, in a sentence that begins with the answer."""
    if not made:
        return f"Nobody knows yet: no checkpoints were scored. Score them: {suggested('evaluate', run.state.root, '--all')}"
    better = [gain for gain in made if gain.sure and gain.difference > 0]
    worse = [gain for gain in made if gain.sure and gain.difference < 0]
    if len(made) == 1:
        [gain] = made
        answer = "Yes" if better else "No, it got worse" if worse else "Not shown"
        return f"{answer}: {gain.metric} on {gain.task} went from {gain.in_words}"
    answer = "Yes" if better and not worse else "In part" if better else "No" if worse else "Not shown"
    level = len(made) - len(better) - len(worse)
    return f"{answer}: {len(better)} of {len(made)} tasks got better, {len(worse)} worse, {level} show no sure difference"


def pool_means(found: Frames, source: Source) -> list[str]:
    """How the mean validation score of all models moved, by task, from the first scored iteration to the last one."""
    scores = found.scores[
        (found.scores.run == source.label)
        & (found.scores.split == "validation")
        & found.scores.selects.astype(bool)
    ]
    said = []
    for task, here in scores[scores["mean"].notna()].groupby("task", observed=True, sort=False):
        means = here.groupby("iteration", observed=True)["mean"].mean()
        if len(means) > 1:
            first, last, top = int(means.index[0]), int(means.index[-1]), float(here.top.iloc[0])
            said.append(
                f"mean of all models on validation of {task}: {in_figures(float(means.iloc[0]), top)} in iteration {first}, "
                f"{in_figures(float(means.iloc[-1]), top)} in iteration {last}"
            )
    return said


def progress(run: Run) -> str:
    """How far the run is, in a sentence."""
    last, planned = run.state.last_committed() or 0, run.recipe.iterations
    said = f"iteration {last} of {planned}"
    failure = last_failure(run)
    if failure is not None:
        return f"{said}; the last launch failed: {failure.said}"
    return f"{said}, finished" if last >= planned else f"{said}, not finished"


def keep(found: Frames, source: Source, made: Sequence[Gain]) -> Keep | None:
    """The model to keep: the one chosen on the task that the pool was aligned on, or on the first; without scores, the one with the highest reputation."""
    run = source.run
    main = next((gain for gain in made if gain.task == run.recipe.data.task), made[0] if made else None)
    if main is not None:
        checkpoint = main.after_checkpoint
        others = {gain.after_checkpoint for gain in made} - {checkpoint}
        score = ValidationScore(main.chosen_on, main.validation)
        on = f" of {main.task}" if main.task != main.chosen_on else ""
        why = f"chosen on validation of {main.chosen_on}, {in_figures(main.after, main.top)} on {main.split}{on}"
        if others:
            why += f"; other tasks chose {len(others)} other{'s' * (len(others) > 1)}, see the scores"
        t, model = parse_checkpoint(checkpoint)
    else:
        last = run.state.last_committed()
        here = found.standings[(found.standings.run == source.label) & (found.standings.iteration == last)]
        if not last or here.empty or here.reputation.nunique() == 1:
            return None
        best, score = here.loc[here.reputation.idxmax()], None
        t, model = last, str(best.model)
        checkpoint = f"iter_{t:02d}-{model}"
        why = f"the highest reputation after iteration {t}, {best.reputation:.1f}; it was not scored, and a reputation is only what other models think of it"
    member = run.pool(t).get(model)
    if member is None:
        return None
    adapter, base = run.state.inside(member.adapter), _from_here(locate(member.base, run.recipe.pool.folder))
    commands = (
        serve_command(base, model, adapter),
        f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), {str(adapter)!r})",
    )
    return Keep(checkpoint, why, str(adapter), commands, score)


def _from_here(path: str) -> str:
    """`path` relative to the working directory if it is below it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def how_sure(made: Sequence[Gain], run: Run) -> list[str]:
    """What the gains rest on, and what they leave out."""
    said = []
    for gain in made[:1] if len(made) == 1 else ():
        said.append(f"p = {gain.p:.4f} in a paired test on {gain.items:,} {gain.split} items")
    if len(made) > 1:
        said.append(
            f"p values are of paired tests over items, adjusted for {len(made)} tasks together (Holm)"
        )
    if any(gain.split == "validation" for gain in made):
        said.append(
            "scores are of the validation split that chose the checkpoint, so they are too high: score on test"
        )
    repeated = max((gain.accesses for gain in made), default=0)
    if repeated > 1:
        said.append(
            f"the test split was accessed {repeated} times for this choice, so the last score is not unbiased"
        )
    if made:
        said.append(
            "one run: other seeds would give other models, which these intervals leave out; a study repeats it with other seeds"
        )
    return said


def costs(found: Frames, source: Source, made: Sequence[Gain]) -> list[str]:
    """GPU or task time, tokens, and tokens a point of improvement."""
    here = found.iterations[found.iterations.run == source.label]
    time = found.cost[found.cost.run == source.label]
    said = []
    for unit, parts in time.groupby("unit", observed=True):
        total, idle = parts.seconds.sum(), parts[parts.part == "idle"].seconds.sum()
        if total > 0:
            said.append(f"{duration(total)} of {unit} time, {idle / total:.0%} of it idle")
    tokens = {name: int(here[name].sum()) for name in ("generated", "read", "trained")}
    total = sum(tokens.values())
    if total:
        said.append(
            f"{total:,} tokens: {tokens['generated']:,} generated, {tokens['read']:,} read, {tokens['trained']:,} trained on"
        )
    if total and len(made) == 1 and made[0].sure and made[0].difference > 0:
        points = 100 * made[0].difference / made[0].top
        said.append(f"{total / points:,.0f} tokens a point of improvement")
    if here.pair.notna().any():
        said.append(
            f"{int(here.pair.sum()):,} preference pairs from {int(here.combats.sum()):,} {here.unit.dropna().iloc[0]}"
        )
    return said
