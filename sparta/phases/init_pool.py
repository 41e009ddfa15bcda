"""init_pool: writes the initial pool, its standing and, last, its manifest, which commits iteration 0."""

from collections.abc import Mapping

from sparta.phases.base import Step
from sparta.phases.train import trained
from sparta.pool.members import install_pool
from sparta.store import files, standings
from sparta.store.disk import present
from sparta.store.manifest import commit
from sparta.store.records import TrainedExpert
from sparta.store.run import Run
from sparta.store.stats import IterationStats


class InitPool(Step):
    name = "found"
    light = True
    derives = False

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).manifest)

    def execute(self, run: Run, t: int) -> None:
        zero = run.iteration(t)
        experts = trained(run, t, [model.name for model in run.recipe.pool.experts], TrainedExpert)
        files.write_json(zero.pool, install_pool(run))
        files.write_json(zero.standing, standings.initial(run))
        if experts:
            losses = {name: row.mean_loss for name, row in experts.items() if row.mean_loss is not None}
            files.write_json(zero.stats, init_pool_stats(losses))
        commit(
            zero,
            parent=run.info.genesis,
            files=[zero.pool, zero.standing],
            rows={"training": TrainedExpert} if experts else {},
        )


def init_pool_stats(losses: Mapping[str, float]) -> IterationStats:
    """Stats of iteration 0, which has no combats. losses: mean loss of each expert trained from data, by name."""
    return IterationStats(0, {}, 0, {}, {}, {}, 0, mean_losses=dict(losses))
