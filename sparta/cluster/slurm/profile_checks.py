"""Whether a profile has what tasks ask for: GPUs on a node, and partitions of the cluster with their time limits."""

from collections.abc import Mapping, Sequence

from sparta.cluster.slurm.profile import Profile, Resources
from sparta.errors import SpartaError
from sparta.phases.base import Phase


def check_gpus(profile: Profile, phase: Phase, needed: int, asked: int) -> None:
    """Raises SpartaError where a task of `phase` needs more GPUs than a node of `profile` has, or than it is given."""
    if needed > profile.gpus_per_node:
        raise SpartaError(
            f"{phase.gpus_key} is {needed}, and a node of profile {profile.name} has {profile.gpus_per_node} "
            f"GPU{'s' * (profile.gpus_per_node != 1)}: lower it, or correct gpus_per_node there"
        )
    if needed > 1 and asked < needed:
        raise SpartaError(
            f"{phase.gpus_key} is {needed}, and profile {profile.name} gives a task of {phase.name} "
            f"{asked} GPU{'s' * (asked != 1)}: set phases.{phase.name}.gpus there, or lower it"
        )


def check_partitions(
    profile: Profile, asked: Mapping[str, Resources], known: Mapping[str, float], clusters: Sequence[str]
) -> None:
    """Raises SpartaError where a phase is sent to a partition that no cluster has, or for longer than it allows.

    asked: by phase. known: partition -> the longest time limit, in seconds. clusters: those chosen from; empty: the default one.
    """
    for phase, resources in asked.items():
        for partition in resources.partition.split(",") if resources.partition else []:
            if partition not in known:
                there = ", ".join(sorted(known))
                unknown = (
                    f"partition {partition}, which no chosen cluster has (on {', '.join(clusters)}: {there})"
                    if clusters
                    else f"partition {partition}, which this cluster does not have (it has {there})"
                )
                raise SpartaError(f"profile {profile.name} sends {phase} to {unknown}: correct the profile")
            if resources.minutes * 60 > known[partition]:
                raise SpartaError(
                    f"profile {profile.name} asks for {resources.minutes} min for {phase}, and partition {partition} allows "
                    f"{known[partition] / 60:.0f}: lower the time in the profile; tasks that need more are requeued and continue"
                )
