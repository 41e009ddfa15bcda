"""Launchers by the name that recipes and attempts use."""

import json
import os

from sparta.cluster.attempts import AttemptDir, with_alternatives
from sparta.cluster.gpus import visible_gpus
from sparta.cluster.inline import Inline
from sparta.cluster.launcher import Launcher
from sparta.cluster.local import Local
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.profile import find_profile, load_profile
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.names import ClusterKind
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run

LAUNCHERS: dict[str, type[Inline] | type[Local] | type[Slurm]] = {
    kind.name: kind for kind in (Inline, Local, Slurm)
}


HERE = (Inline.name, Local.name)
"""Launchers whose tasks run on the driver's own machine."""


def launcher_named(name: str, run: Run) -> Launcher:
    """The launcher called `name`. Raises SpartaError where this version has none."""
    if name not in LAUNCHERS:
        raise SpartaError(
            f"there is no cluster {name}: another version of the suite wrote this state; continue with that version"
        )
    return LAUNCHERS[name](run)


def settings_for(cluster: ClusterKind | None, profile: str | None, frozen: Recipe | None = None) -> list[str]:
    """What --cluster and --profile change in a recipe, in the form of --set. Raises SpartaError where the profile is not usable.

    frozen: the recipe of the run to continue, if any. `auto` keeps its cluster if that is this machine, unless a profile asks for SLURM.
    """
    settings = []
    if profile is not None:
        # Loaded now to report its errors before anything is written; made absolute because the next command may run in another folder.
        load_profile(profile)
        settings += ["cluster.kind=slurm", f"cluster.profile={json.dumps(str(find_profile(profile)))}"]
    if cluster == "auto" and (
        _submits() if profile is not None else frozen is not None and frozen.cluster.kind in HERE
    ):
        return settings
    if cluster is not None:
        settings.append(f"cluster.kind={cluster}")
    return settings


def at_rates_of(profile: str | None, recipe: Recipe) -> Recipe:
    """`recipe` of a new run with the assumed rates of `profile`, where it says none itself. Raises SpartaError where the profile is not usable.

    For a recipe as it was loaded: one that was stored says every rate.
    """
    if profile is None:
        return recipe
    own, of_profile = recipe.cluster.assumed, load_profile(profile).assumed
    rates = {name: getattr(of_profile, name) for name in of_profile.model_fields_set - own.model_fields_set}
    cluster = recipe.cluster.model_copy(update={"assumed": own.model_copy(update=rates)})
    return recipe.model_copy(update={"cluster": cluster})


def launcher_for(run: Run) -> Launcher:
    """The launcher that the recipe names.

    auto: the run's last launcher if that was inline or local; else slurm, where jobs can be submitted and this process is not in one; else local
    where there are several GPUs; else inline.
    """
    kind: str = run.recipe.cluster.kind
    if kind == "auto":
        before = _latest(run)
        if before in HERE:
            kind = before
        elif _submits():
            kind = Slurm.name
        else:
            kind = Local.name if len(visible_gpus()) > 1 else Inline.name
    return launcher_named(kind, run)


def _submits() -> bool:
    """Whether `auto` submits jobs from here."""
    return cli.installed() and "SLURM_JOB_ID" not in os.environ


def _latest(run: Run) -> str | None:
    """The name of the launcher of the latest array in the iterations of `run`; None before the first one.

    Steps do not count: the driver runs them itself.
    """
    for t in reversed(StateDir(run.state.jobs).iterations()):
        phases = with_alternatives(run, phases_of(run.recipe, t), t)
        arrays = [AttemptDir(run, phase, t) for phase in phases if phase.device == "gpu"]
        attempts = [attempt for array in arrays for attempt in array.all()]
        if attempts:
            return max(attempts, key=lambda attempt: attempt.submitted).cluster
    return None
