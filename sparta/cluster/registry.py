"""Launchers by the name that the recipe and every attempt give them."""

import json
import os

from sparta.cluster.gpus import visible_gpus
from sparta.cluster.inline import Inline
from sparta.cluster.launcher import Launcher
from sparta.cluster.local import Local
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.profile import find_profile, load_profile
from sparta.errors import SpartaError
from sparta.names import ClusterKind
from sparta.store.run import Run

LAUNCHERS: dict[str, type[Inline] | type[Local] | type[Slurm]] = {
    kind.name: kind for kind in (Inline, Local, Slurm)
}


def launcher_named(name: str, run: Run) -> Launcher:
    """The launcher called `name`. Raises SpartaError where this version has none."""
    if name not in LAUNCHERS:
        raise SpartaError(
            f"there is no cluster {name}: the state was written by another version of the suite"
        )
    return LAUNCHERS[name](run)


def settings_for(cluster: ClusterKind | None, profile: str | None) -> list[str]:
    """What --cluster and --profile change in a recipe, as --set would. Raises SpartaError where the profile is not usable."""
    settings = []
    if profile is not None:
        # Read now, so that a fault in it is told before anything is written; found now, for the next command may be typed in another folder.
        load_profile(profile)
        settings += ["cluster.kind=slurm", f"cluster.profile={json.dumps(str(find_profile(profile)))}"]
    if cluster is not None:
        settings.append(f"cluster.kind={cluster}")
    return settings


def launcher_for(run: Run) -> Launcher:
    """Where the recipe wants its tasks to run.

    auto: on SLURM where jobs can be submitted and this is not one; else a process for each GPU where there are several; else this process.
    """
    kind = run.recipe.cluster.kind
    if kind == "auto":
        if cli.installed() and "SLURM_JOB_ID" not in os.environ:
            kind = "slurm"
        else:
            kind = "local" if len(visible_gpus()) > 1 else "inline"
    return launcher_named(kind, run)
