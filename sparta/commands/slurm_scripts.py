"""What a dry run shows for SLURM: the arrays, their sbatch scripts, and the answer of sbatch --test-only."""

from rich.console import Console

from sparta.cluster.attempts import AttemptDir, Piece
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import SlurmUnavailable
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.submit import Array, left_to_the_user, remedy_for, script
from sparta.cluster.slurm.worker import ShardJob
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.status.forecast import forecasts
from sparta.store.run import Run


def arrays_of(run: Run, launcher: Slurm, t: int) -> list[Array]:
    """The arrays of iteration t, as far as they are known before it begins."""
    widths = {forecast.phase.name: forecast.width.tasks for forecast in forecasts(run, launcher, t)}
    found = []
    for phase in phases_of(run.recipe, t):
        if launcher.takes(phase):
            piece = Piece(phase.name, t, AttemptDir(run, phase, t).next_number())
            found += launcher.arrays(ShardJob(run.state.root.resolve(), (piece,)), widths[phase.name])
    return found


def show_scripts(run: Run, launcher: Slurm, t: int, console: Console) -> None:
    """Print the script of every array of iteration t. Raises SpartaError where sbatch is installed and would refuse one.

    Without sbatch nothing is checked against the cluster, except that the profile has enough GPUs and memory of these.
    """
    submits = cli.installed()
    if not submits:
        launcher.check_gpus(phases_of(run.recipe, t))
    for array in arrays_of(run, launcher, t):
        text = script(array, launcher.profile)
        console.rule(f"{array.name}: {array.count} task{'s' * (array.count != 1)}", align="left", style="")
        console.print(text.rstrip(), markup=False)
        if submits:
            console.print(f"# {_test_only(array, text, launcher)}", markup=False)
    console.rule(style="")
    if not submits:
        console.print(
            "There is no sbatch here, so these scripts were not checked against the cluster: repeat the dry run there."
        )


def _test_only(array: Array, text: str, launcher: Slurm) -> str:
    try:
        return cli.submit_dry(text, left_to_the_user(array, launcher.profile))
    except SlurmUnavailable as error:
        raise SpartaError(
            f"sbatch would refuse {array.name} of profile {launcher.profile.name}: {error}; {remedy_for(str(error)).rstrip(',')}"
        ) from None
