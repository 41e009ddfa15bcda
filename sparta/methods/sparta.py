"""Sparta Alignment: plan, generate, judge, merge, train, commit; Algorithm 1."""

from collections.abc import Iterable

from sparta.methods.base import IterationSummary, Method, notes_on
from sparta.phases.base import Phase
from sparta.phases.commit import Commit
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.phases.merge import Merge
from sparta.phases.plan import Plan
from sparta.phases.train import Train
from sparta.recipes.schema import Recipe
from sparta.store import files, standings
from sparta.store.run import Run
from sparta.store.stats import IterationStats


class Sparta(Method):
    """Every member fights, judges and learns."""

    name = "sparta"
    fewest_members = 3

    def __init__(self) -> None:
        self._plan = Plan()
        self._apart = (Generate(), Judge())
        self._fused = (CombatAndJudge(),)
        self._rest = (Merge(), Train(self.learners), Commit(self.learners))

    def iteration(self, recipe: Recipe) -> tuple[Phase, ...]:
        return (self._plan, *(self._fused if recipe.fused else self._apart), *self._rest)

    @property
    def all_phases(self) -> Iterable[Phase]:
        return (self._plan, *self._apart, *self._fused, *self._rest)

    def summary(self, run: Run, t: int) -> IterationSummary:
        """Reputation, deviation, judging weight, combats won, missing votes and loss of every model, highest reputation first."""
        stats = files.read_json(run.iteration(t).stats, IterationStats)
        after, before = standings.at_end(run, t), standings.at_end(run, t - 1)
        rows = []
        for name, standing in sorted(after.items(), key=lambda entry: -entry[1].reputation):
            judge, loss = stats.judges[name], stats.mean_losses.get(name)
            rows.append(
                (
                    name,
                    f"{standing.reputation:.1f}",
                    f"{standing.reputation - before[name].reputation:+.1f}",
                    f"{standing.deviation:.2f}",
                    f"{standing.weight:.1f}",
                    f"{stats.wins[name]}/{stats.wins[name] + stats.losses[name]}",
                    f"{judge.missing}/{judge.votes}",
                    "" if loss is None else f"{loss:.3f}",
                )
            )
        more = (
            (stats.votes_saved, "votes were skipped: the two answers were equal, or one was empty"),
            (stats.uniform_juries, "juries had no weight and counted equally"),
        )
        return IterationSummary(
            f"iteration {t} of {run.recipe.iterations}",
            ("model", "reputation", "change", "deviation", "judging weight", "won", "missing votes", "loss"),
            tuple(rows),
            tuple(notes_on(stats, "response", more)),
        )


METHOD = Sparta()
