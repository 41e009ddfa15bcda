"""Runs start, continue, roll back and branch; nothing is deleted and nothing is mixed up."""

import shutil
from datetime import date
from pathlib import Path

import msgspec
import pytest
import yaml
from support.openings import begin_or_continue, fork, go_back
from support.scripted_run import advance, begin, committed, manifests, rehearsal

from sparta.cluster.attempts import Attempt, AttemptDir, new_record
from sparta.cluster.sharding import shard_items
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry
from sparta.cluster.slurm.job_ids import ArrayPart, Jobs, note_jobs
from sparta.commands import resume
from sparta.commands.cancel import cancel_all
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate
from sparta.evaluation.holdout_log import HoldoutAccess, accesses_so_far, record_accesses
from sparta.phases.base import ArrayPhase, WorkItem
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.recipes.load import adjust
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.run import Run


def through(run: Run, last: int, first: int = 1) -> Run:
    for t in range(first, last + 1):
        advance(run, t)
    return run


def test_a_new_run_holds_everything_it_needs_except_the_bases(tmp_path: Path) -> None:
    run = begin(tmp_path)
    shutil.rmtree(tmp_path / "adapters")
    (tmp_path / "prompts.jsonl").unlink()
    state = tmp_path / "elsewhere"
    run.state.root.rename(state)
    again = begin_or_continue(StateDir(state), None)
    assert through(again, 2).state.committed() == [0, 1, 2]


@pytest.mark.parametrize("played", [0, 2])
def test_a_run_whose_initial_pool_was_deleted_is_refused_and_the_pool_is_not_rebuilt(
    played: int, tmp_path: Path
) -> None:
    run = through(begin(tmp_path), played)
    shutil.rmtree(run.iteration(0).root)
    with pytest.raises(SpartaError) as caught:
        begin_or_continue(run.state, run.recipe)
    assert str(caught.value) == (
        f"{run.iteration(0).root}, the run's initial pool, is missing or has no MANIFEST.json: restore it from a copy, or start a new run "
        "with another --state"
    )
    assert not run.iteration(0).root.exists()


def test_the_same_recipe_continues_and_may_be_carried_out_differently(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    again = begin_or_continue(run.state, adjust(run.recipe, ["iterations=9", "cluster.at_once=3"]))
    assert again.info == run.info
    assert Run.open(run.state).recipe.iterations == 9


def test_more_iterations_are_those_of_a_run_that_had_them_from_the_start(tmp_path: Path) -> None:
    for name in ("short", "long"):
        (tmp_path / name).mkdir()
    adapters = {"prompts": 30}
    short = through(begin(tmp_path / "short", iterations=1, **adapters), 1)
    more = begin_or_continue(short.state, adjust(short.recipe, ["iterations=3"]))
    through(more, 3, first=2)
    assert more.state.committed() == [0, 1, 2, 3]
    long = through(begin(tmp_path / "long", iterations=3, **adapters), 3)
    for t in (1, 2, 3):
        for name in ("plan.jsonl", "combats.jsonl", "preferences.jsonl", "standing.json"):
            assert (more.iteration(t).root / name).read_bytes() == (
                long.iteration(t).root / name
            ).read_bytes()


def test_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    before = committed(run.state.root)
    with pytest.raises(SpartaError) as error:
        begin_or_continue(run.state, adjust(run.recipe, ["match.k=2", "seed=5"]))
    assert "match.k: 5, now 2" in str(error.value) and "seed: 0, now 5" in str(error.value)
    assert "--fork" in str(error.value)
    assert committed(run.state.root) == before


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "thesis.tex").write_text("x")
    with pytest.raises(SpartaError, match="is not empty and holds no run"):
        begin(tmp_path)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["thesis.tex"]


def test_leftovers_of_a_launch_that_was_killed_early_do_not_block_the_next(tmp_path: Path) -> None:
    run = begin(tmp_path)
    state = run.state.root
    run.state.run_json.rename(state / ".run.json.0123456789abcdef.tmp")
    (state / ".recipe.yaml.0123456789abcdef.tmp").write_text("name: x")
    (run.iteration(0).adapters / "half").mkdir()
    assert through(begin(tmp_path), 1).state.committed() == [0, 1]


def test_a_missing_adapter_of_a_rehearsal_is_named(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path)
    (tmp_path / "adapters/model1/adapter_model.safetensors").unlink()
    with pytest.raises(SpartaError, match="adapters/model1/adapter_model.safetensors is missing"):
        begin_or_continue(StateDir(tmp_path / "state"), recipe)


# --- going back


def test_going_back_sets_later_iterations_aside_whole(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 3)
    before = manifests(run.state.root)
    files.write_json(run.state.evals / "toy" / "summary.json", {})
    go_back(run.state, 1)
    assert run.state.committed() == [0, 1]
    [aside] = run.state.superseded.iterdir()
    assert sorted(path.name for path in aside.iterdir()) == ["evals", "iter_02", "iter_03", "jobs"]
    assert manifests(aside) == {name: before[name] for name in ("iter_02", "iter_03")}
    assert sorted(path.name for path in (aside / "jobs").iterdir()) == ["iter_02", "iter_03"]
    again = through(begin_or_continue(run.state, None), 3, first=2)
    assert manifests(again.state.root) == before


def test_going_back_twice_keeps_both_pasts(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    for _ in range(2):
        go_back(run.state, 1)
        through(begin_or_continue(run.state, None), 2, first=2)
    assert len(list(run.state.superseded.iterdir())) == 2


def test_going_back_to_the_last_iteration_drops_only_what_was_begun(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    advance(run, 2, upto="judge")
    go_back(run.state, 1)
    assert run.state.iterations() == [0, 1]
    go_back(run.state, 1)
    assert len(list(run.state.superseded.iterdir())) == 1


@pytest.mark.parametrize("t", [2, 7])
def test_going_back_to_what_is_not_committed_is_refused(t: int, tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    advance(run, 2, upto="generate")
    with pytest.raises(SpartaError, match=rf"iteration {t} of .* is not committed \(committed: 0 to 1\)"):
        go_back(run.state, t)
    assert run.state.iterations() == [0, 1, 2]


def test_going_back_heals_a_damaged_later_iteration_but_not_an_earlier_one(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    run.iteration(2).standing.write_text("{}")
    with pytest.raises(SpartaError, match="iter_02/standing.json was changed"):
        begin_or_continue(run.state, None)
    with pytest.raises(SpartaError, match="iter_02/standing.json was changed"):
        go_back(run.state, 2)
    go_back(run.state, 1)
    through(begin_or_continue(run.state, None), 2, first=2)


@pytest.mark.parametrize("phase", [Generate(), CombatAndJudge()])
def test_going_back_is_refused_while_tasks_of_a_later_iteration_run(
    phase: ArrayPhase, tmp_path: Path
) -> None:
    """Also those that an earlier launch started, which played combats and judging in one phase."""
    run = through(begin(tmp_path), 1)
    advance(run, 2, upto="plan")
    attempts = AttemptDir(run, phase, 2)
    attempts.assign(shard_items(phase.work(run, 2), 1), "local")
    files.write_json(attempts.record_file(0, 0), new_record(0, 24))
    with pytest.raises(SpartaError, match=f"tasks of {phase.name} of iteration 2 are still running"):
        go_back(run.state, 1)
    assert run.state.iterations() == [0, 1, 2]


def test_going_back_is_refused_while_jobs_of_an_alternative_phase_are_queued_without_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = through(begin(tmp_path), 1)
    advance(run, 2, upto="plan")
    note_jobs([(AttemptDir(run, CombatAndJudge(), 2), 0)], Jobs([ArrayPart("n", 0, 1, "10")]))
    code = run.state.jobs / "code"
    code.mkdir()
    job = QueueEntry("n", "10", 0, "PENDING", "Dependency", "", str(code / "copy"))
    monkeypatch.setattr(cli, "installed", lambda: True)
    monkeypatch.setattr(cli, "tasks_named", lambda names, clusters: [job])
    with pytest.raises(SpartaError, match="tasks of combat of iteration 2 are still running"):
        go_back(run.state, 1)


def test_going_back_is_refused_while_checkpoints_are_scored(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    phase = Evaluate("validation", {"toy": ("iter_00", "iter_02")})
    attempts = AttemptDir(run, phase, 0)
    attempts.assign([[WorkItem("toy/iter_00-model0/i0", 1.0, "model0")]], "local")
    files.write_json(attempts.record_file(0, 0), new_record(0, 1))
    with pytest.raises(
        SpartaError, match="tasks that score toy validation are still running: cancel them with"
    ):
        go_back(run.state, 1)
    assert run.state.iterations() == [0, 1, 2] and attempts.all()
    # Where nothing is set aside, scores stay where they are.
    go_back(run.state, 2)
    record = msgspec.structs.replace(new_record(0, 1), outcome="done")
    files.write_json(attempts.record_file(0, 0), record)
    go_back(run.state, 1)
    assert run.state.iterations() == [0, 1]


@pytest.mark.parametrize("upto", ["plan", "judge"])
def test_going_back_past_uncommitted_iterations_keeps_scores(upto: str, tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    files.write_json(run.state.evals / "summary.json", {})
    attempts = AttemptDir(run, Evaluate("validation", {"toy": ("iter_00", "iter_01")}), 0)
    attempts.assign([[WorkItem("toy/iter_00-model0/i0", 1.0, "model0")]], "local")
    advance(run, 2, upto=upto)
    go_back(run.state, 1)
    assert run.state.iterations() == [0, 1]
    assert (run.state.evals / "summary.json").is_file() and attempts.all()


# --- what an earlier version wrote


@pytest.mark.parametrize(("task", "tasks"), [(None, ()), ("toy", ("toy",))])
def test_a_state_of_the_version_before_tasks_can_continue_go_back_and_be_cancelled(
    task: str | None, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    run = through(begin(tmp_path), 2)
    frozen = yaml.safe_load(run.state.recipe_yaml.read_text())
    for key in ("folder", "validation", "test", "grading"):
        del frozen["data"][key]
    frozen["evaluation"] = {"task": task, "validation": 6, "test": None, "max_new_tokens": 512}
    run.state.recipe_yaml.write_text(yaml.safe_dump(frozen, sort_keys=False))
    place = run.state.jobs / "evals" / "toy" / "validation"
    scoring = Attempt("evaluate:toy:validation:0,2:", 0, 0, "local", shards=1, items=1, submitted=0.0)
    files.write_json(place / "a0.json", scoring)
    files.write_json(place / "a0-00000.json", msgspec.structs.replace(new_record(0, 1), outcome="done"))

    again = begin_or_continue(run.state, None)
    assert again.recipe.evaluation.tasks == tasks
    assert (again.recipe.evaluation.validation, again.recipe.evaluation.max_new_tokens) == (6, 512)
    assert again.recipe.hash == run.recipe.hash
    assert cancel_all(again) == 0
    go_back(run.state, 1)
    assert run.state.committed() == [0, 1] and not place.exists()


# --- branching


def test_a_fork_shares_the_past_and_leaves_its_parent_alone(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    before = committed(run.state.root)
    target = StateDir(tmp_path / "branch")
    branch = through(fork(run.state, 1, target, None), 2, first=2)
    assert manifests(target.root) == {
        name: content for name, content in manifests(run.state.root).items() if name <= "iter_02"
    }
    assert branch.info.forked_from == f"{run.info.run_id} iteration 1"
    assert branch.info.run_id != run.info.run_id
    begin_or_continue(target, None)
    assert committed(run.state.root) == before


def test_a_fork_inherits_the_log_of_test_set_accesses(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    look = HoldoutAccess(
        "quiz", "iter_01-model0", "v1", "best of the last pool", "quiz", (0, 1), 5, "answers-chat-5"
    )
    noted = record_accesses(run.state, [look])
    files.write_json(run.state.evals / "summary.json", {})
    target = StateDir(tmp_path / "branch")
    fork(run.state, 1, target, None)
    assert accesses_so_far(target) == noted
    assert [path.name for path in target.evals.iterdir()] == ["looks.jsonl"]
    # Killed before it was a run, it is made again.
    target.run_json.unlink()
    fork(run.state, 1, target, None)
    target.run_json.unlink()
    files.write_json(target.evals / "summary.json", {})
    with pytest.raises(SpartaError, match="is not empty, choose another"):
        fork(run.state, 1, target, None)


def test_a_fork_may_play_by_other_rules_from_there_on(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    target = StateDir(tmp_path / "branch")
    recipe = adjust(run.recipe, ["match.alpha=1", "combats=15", "seed=9"])
    branch = through(fork(run.state, 1, target, recipe), 3, first=2)
    assert len(branch.plan(2)) == 15
    assert manifests(target.root)["iter_01"] == manifests(run.state.root)["iter_01"]
    assert begin_or_continue(target, recipe).state.committed() == [0, 1, 2, 3]
    with pytest.raises(SpartaError, match="combats: 15, now 12"):
        begin_or_continue(target, run.recipe)


def test_the_day_of_a_run_stays_that_of_its_start_and_forks_keep_it(tmp_path: Path) -> None:
    run = begin(tmp_path)
    began = run.day
    assert run.chat.today == began
    run.info = msgspec.structs.replace(run.info, created="2024-02-29T23:59:59+00:00", day="")
    run.save()
    again = begin_or_continue(run.state, None)
    assert again.day == date(2024, 2, 29), "as a state of an earlier version has it"
    branch = fork(run.state, 0, StateDir(tmp_path / "branch"), None)
    assert branch.info.created[:10] == began.isoformat() and branch.day == date(2024, 2, 29)
    said = begin_or_continue(StateDir(tmp_path / "said"), adjust(run.recipe, ["chat.date=2026-11-28"]))
    assert said.chat.today == date(2026, 11, 28)
    assert said.recipe.hash != run.recipe.hash == run.info.recipe_hash


def test_the_same_fork_again_goes_on_with_it(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    target = StateDir(tmp_path / "branch")
    first = through(fork(run.state, 1, target, None), 2, first=2)
    again = fork(run.state, 1, target, None)
    assert again.info == first.info and again.state.committed() == [0, 1, 2]


def test_a_fork_that_was_killed_while_copying_is_finished(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    target = StateDir(tmp_path / "branch")
    fork(run.state, 2, target, None)
    target.run_json.unlink()
    (target.root / "jobs").mkdir()
    target.iteration(2).root.rename(target.root / ".iter_02.0123456789abcdef.tmp")
    fork(run.state, 2, target, None)
    begin_or_continue(target, None)
    assert not list(target.root.glob(".*.tmp"))


@pytest.mark.parametrize("what", ["a stranger's file", "another run", "another fork"])
def test_a_fork_into_an_occupied_folder_is_refused(what: str, tmp_path: Path) -> None:
    run = through(begin(tmp_path), 2)
    target = StateDir(tmp_path / "branch")
    if what == "a stranger's file":
        files.write_bytes(target.root / "thesis.tex", b"x")
    elif what == "another run":
        (tmp_path / "other").mkdir()
        begin(tmp_path / "other").state.root.rename(target.root)
    else:
        fork(run.state, 2, target, None)
    before = committed(target.root)
    with pytest.raises(SpartaError, match="is not empty, choose another"):
        fork(run.state, 1, target, None)
    assert committed(target.root) == before


@pytest.mark.parametrize("setting", ["data.size=5", "pool.models=[{name: a}, {name: b}, {name: c}]"])
def test_a_fork_keeps_pool_and_data(setting: str, tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    with pytest.raises(SpartaError, match="keeps the pool and the data"):
        fork(run.state, 1, StateDir(tmp_path / "branch"), adjust(run.recipe, [setting]))
    assert not (tmp_path / "branch").exists()


def test_a_fork_of_what_is_not_committed_is_refused(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    with pytest.raises(SpartaError, match="iteration 4 of .* is not committed"):
        fork(run.state, 4, StateDir(tmp_path / "branch"), None)
    assert not (tmp_path / "branch").exists()


# --- what was edited


def edit_recipe(run: Run) -> None:
    text = run.state.recipe_yaml.read_text()
    run.state.recipe_yaml.write_text(text.replace("alpha: 0.6", "alpha: 0.5"))


def test_an_edited_recipe_is_noticed(tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    edit_recipe(run)
    with pytest.raises(SpartaError, match="recipe.yaml was changed since the run began"):
        begin_or_continue(run.state, None)
    with pytest.raises(SpartaError, match="recipe.yaml was changed since the run began"):
        fork(run.state, 1, StateDir(tmp_path / "branch"), None)


@pytest.mark.parametrize("how", ["edited", "missing"])
def test_edited_instructions_are_noticed(how: str, tmp_path: Path) -> None:
    run = through(begin(tmp_path), 1)
    text = run.state.instructions.read_text()
    run.state.instructions.unlink()
    if how == "edited":
        run.state.instructions.write_text(text.replace("question 3", "question 4", 1))
    with pytest.raises(SpartaError, match="data/train.jsonl is missing or was changed"):
        begin_or_continue(run.state, None)


def test_a_requeued_job_goes_back_once_and_another_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path, iterations=2)
    for t in (1, 2):
        advance(run, t)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert not resume.has_resumed(run.state, 1)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not resume.has_resumed(run.state, 1), "told to stop before it went back"
    go_back(run.state, 1)
    assert resume.has_resumed(run.state, 1)
    assert not resume.has_resumed(run.state, 0), "another iteration"
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert not resume.has_resumed(run.state, 1), "another submission"
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert not resume.has_resumed(run.state, 1), "typed again in one allocation"
