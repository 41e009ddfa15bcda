"""Standings on disk."""

from sparta import rng
from sparta.arena.reputation import Standing, initial_standing
from sparta.arena.reweighting import reweight
from sparta.store import files
from sparta.store.run import Run


def initial(run: Run) -> dict[str, Standing]:
    """The standing of every model before the first iteration."""
    return {name: initial_standing(run.recipe.reputation) for name in run.models}


def at_end(run: Run, t: int) -> dict[str, Standing]:
    """iter_t/standing.json, in the pool's order."""
    found = files.read_json(run.iteration(t).standing, dict[str, Standing])
    return {name: found[name] for name in run.models}


def at_start(run: Run, t: int) -> dict[str, Standing]:
    """The standing for planning and judging iteration t: that of t-1 after reweighting, which weights down one more model (appendix C.1)."""
    stream = rng.stream(run.recipe.seed, t, "reweighting")
    return reweight(at_end(run, t - 1), t, run.recipe.reweighting, stream)
