"""Found: the initial pool, its standing and, last of all, its manifest. From then on there is a pool to play with."""

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

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).manifest)

    def execute(self, run: Run, t: int) -> None:
        zero = run.iteration(t)
        taught = trained(run, t, [model.name for model in run.recipe.pool.experts], TrainedExpert)
        files.write_json(zero.pool, install_pool(run))
        files.write_json(zero.standing, standings.initial(run))
        if taught:
            losses = {name: row.mean_loss for name, row in taught.items() if row.mean_loss is not None}
            files.write_json(zero.stats, init_pool_stats(losses))
        commit(
            zero,
            parent=run.info.genesis,
            files=[zero.pool, zero.standing],
            rows={"training": TrainedExpert} if taught else {},
        )


def init_pool_stats(losses: Mapping[str, float]) -> IterationStats:
    """Of iteration 0, where nothing is played: the mean losses of experts that were trained from data, by name."""
    return IterationStats(0, {}, 0, {}, {}, {}, 0, mean_losses=dict(losses))
