"""Sampling several answers of a run's checkpoints to each validation item, and having sets of them graded: what diversity is measured on.

Only validation splits are answered: a test split is for scores, and every access to it counts.
"""

import signal

from sparta.cluster.registry import settings_for
from sparta.commands.begin import check_state
from sparta.commands.phase_driver import PhaseDriver
from sparta.commands.sample_request import SampleRequest, plan_samples
from sparta.engines.factory import close_engine
from sparta.evaluation.grade_sets import GradeSets
from sparta.evaluation.items import freeze_items
from sparta.evaluation.sampled import EvaluateBySampling
from sparta.recipes.load import adjust
from sparta.screen import Screen
from sparta.store.cleanup import clear_abandoned
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.records import SetGrade
from sparta.store.run import Run
from sparta.store.shards import read_shards


def sample(request: SampleRequest, screen: Screen) -> None:
    """Make the sampled answers as requested, and the judge's grades of their sets where asked for.

    Raises SpartaError; finished work stays on disk, and the same call continues from there.
    """
    # A stop request from a person or from SLURM: the same as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = StateDir(request.state)
    run = Run.open(state)  # before the lock, which writes
    with RunLock(state, screen.say) as lock:
        clear_abandoned(state)
        check_state(run).save()
        # For this process only: it does not change where the run itself is launched.
        run.recipe = adjust(run.recipe, settings_for(request.cluster, request.profile, run.recipe))
        plan = plan_samples(run, request)
        asked = dict.fromkeys(plan.tasks, plan.entries)
        answers = EvaluateBySampling("validation", asked, plan.settings)
        sets = GradeSets("validation", asked, plan.settings) if request.graded else None
        # The judge too: fail now rather than after an hour of sampling.
        if sets is not None:
            sets.check(run)
        for name in plan.tasks:
            freeze_items(run, name, "validation")
        answers.check(run)
        driver = PhaseDriver(run, screen, lock.check)
        try:
            driver.complete(answers)
            if sets is not None:
                driver.complete(sets)
        finally:
            close_engine()
        driver.say_loads()
        of = f"{len(plan.names)} checkpoint{'s' * (len(plan.names) != 1)}"
        for part in answers.parts:
            count = plan.settings.samples * len(part.items(run))
            screen.say(f"{part.task}: {count:,} sampled answers of each of {of} are in {part.folder(run)}")
        if sets is not None:
            _say_grades(run, sets, screen)


def _say_grades(run: Run, sets: GradeSets, screen: Screen) -> None:
    """Say how many sets have a grade, and why others have none."""
    for part in sets.parts:
        wanted = {item.key for item in part.work(run, 0)}
        rows = [row for key, row in read_shards(part.folder(run), SetGrade).items() if key in wanted]
        graded = sum(row.score is not None for row in rows)
        screen.say(f"{part.task}: {graded:,} of {len(rows):,} sets are graded")
        if too_long := sum(row.too_long for row in rows):
            screen.say(
                f"  {too_long:,} sets do not fit the judge's context and are ungraded: raise evaluation.judge.engine.context_length"
            )
