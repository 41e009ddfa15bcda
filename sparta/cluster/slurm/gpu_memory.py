"""Whether what a run trains fits the GPUs of a profile that says how much memory they have."""

from sparta.cluster.slurm.profile import Profile
from sparta.errors import SpartaError
from sparta.phases.memory import estimates
from sparta.store.run import Run


def check_memory(run: Run, profile: Profile) -> None:
    """Raises SpartaError for a training of `run` that is reckoned to need more memory than a GPU of `profile` has."""
    most = profile.gpu_memory_gib
    if most is None or run.recipe.engine.device == "cpu":
        return
    for estimate in estimates(run):
        if estimate.gib > most:
            section = estimate.section
            raise SpartaError(
                f"{estimate.what} is reckoned to take {estimate.gib:.1f} GiB of GPU memory, and a GPU of profile {profile.name} has {most:g}: "
                f"set {section}.gradient_checkpointing to true, lower {section}.batch_size or {section}.max_length, or correct "
                "gpu_memory_gib there"
            )
