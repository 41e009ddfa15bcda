"""Found: the initial pool, its standing and, last of all, its manifest. From then on there is a pool to play with."""

from sparta.errors import SpartaError
from sparta.phases import standings
from sparta.phases.base import Step
from sparta.phases.pool import install_pool
from sparta.phases.stats import of_founding
from sparta.store import files
from sparta.store.manifest import commit
from sparta.store.records import Taught
from sparta.store.run import Run
from sparta.store.shards import read_shards


class Found(Step):
    name = "found"
    light = True

    def done(self, run: Run, t: int) -> bool:
        return run.iteration(t).manifest.is_file()

    def execute(self, run: Run, t: int) -> None:
        zero = run.iteration(t)
        taught = _taught(run, t)
        files.write_json(zero.pool, install_pool(run))
        files.write_json(zero.standing, standings.initial(run))
        if taught:
            losses = {name: row.mean_loss for name, row in taught.items() if row.mean_loss is not None}
            files.write_json(zero.stats, of_founding(losses))
        commit(
            zero,
            parent=run.info.genesis,
            files=[zero.pool, zero.standing],
            rows={"training": Taught} if taught else {},
        )


def _taught(run: Run, t: int) -> dict[str, Taught]:
    """The rows of experts that were trained from data, by name. Raises SpartaError where one is missing, or is not what training made."""
    zero, experts = run.iteration(t), run.recipe.pool.taught
    rows = read_shards(zero.training, Taught) if experts else {}
    for model in experts:
        folder = zero.adapter(model.name)
        if model.name not in rows or not folder.is_dir():
            raise SpartaError(
                f"{folder} is missing: training of {model.name} from its data is not complete, launch the run again to continue it"
            )
        if files.sha256_tree(folder) != rows[model.name].sha256:
            raise SpartaError(
                f"{folder} is not what training of {model.name} made: remove the folder and its line in {zero.training}, then launch the run "
                "again to train it anew"
            )
    return rows
