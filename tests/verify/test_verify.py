"""A whole state checked: right ones are right, whatever the method; what somebody changed is found, also behind manifests that fit."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.forged import reseal
from support.one_model_runs import CASES, write_case
from support.openings import begin_or_continue, fork
from support.scripted_run import DEADLINE, advance, begin, command, quiet, sentence, typed, write_recipe
from support.store_samples import EARLIER_STATE
from support.study_runs import GRADED

from sparta.commands.evaluate import score
from sparta.commands.evaluate_request import EvaluateRequest
from sparta.commands.verify import method_parts
from sparta.recipes.load import load
from sparta.screen import Screen
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.pruned import prune
from sparta.store.run import Run
from sparta.verify.state import Verification, verify_state

Change = Callable[[StateDir], None]


def verified(state: Path) -> Verification:
    run = Run.open(StateDir(state))
    return verify_state(run, method_parts(run), lambda text: None)


def wrong(state: Path) -> str:
    """What is wrong, one line each; "" if nothing is."""
    return "\n".join(finding.what for finding in verified(state).findings if finding.wrong)


def notes(state: Path) -> str:
    return "\n".join(finding.what for finding in verified(state).findings if not finding.wrong)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations, the third one generated and partly judged."""
    run = begin(tmp_path_factory.mktemp("whole"))
    for t in (1, 2):
        advance(run, t)
    advance(run, 3, upto="generate")
    return run.state.root


@pytest.fixture
def state(whole: Path, tmp_path: Path) -> StateDir:
    return StateDir(Path(shutil.copytree(whole, tmp_path / "state")))


def test_an_undisturbed_state_is_right(whole: Path) -> None:
    found = verified(whole)
    assert found.right and found.iterations == 3
    assert "generate has 24 of 24 rows" not in notes(whole)
    assert "judge has 0 of" not in notes(whole), "its folder does not exist yet"


@pytest.mark.parametrize("method", CASES)
def test_the_states_of_all_methods_are_right(method: str, tmp_path: Path) -> None:
    run = begin_or_continue(StateDir(tmp_path / "state"), load(write_case(tmp_path, method)))
    for t in (1, 2):
        advance(run, t)
    assert wrong(run.state.root) == ""
    plan = run.iteration(2).preferences
    lines = plan.read_bytes().splitlines(keepends=True)
    assert lines, "a run without pairs tests nothing"
    plan.write_bytes(b"".join(lines[1:]))
    reseal(run.state, method_parts(run).row_types)
    assert "preferences.jsonl is not what its rows give" in wrong(run.state.root)


def test_the_state_of_an_earlier_version_is_right(tmp_path: Path) -> None:
    assert wrong(Path(shutil.copytree(EARLIER_STATE, tmp_path / "state"))) == ""


def test_a_check_writes_nothing(state: StateDir) -> None:
    before = {path: path.stat().st_mtime_ns for path in state.root.rglob("*")}
    verified(state.root)
    assert before == {path: path.stat().st_mtime_ns for path in state.root.rglob("*")}


def _edit(path: Path, change: Callable[[dict[str, Any]], object], line: int = 0) -> None:
    lines = path.read_text().splitlines()
    row = json.loads(lines[line])
    change(row)
    lines[line] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n")


def _rows(state: StateDir, t: int, folder: str) -> Path:
    """A file with rows."""
    return next(path for path in (state.iteration(t).root / folder).glob("*.jsonl") if path.stat().st_size)


def _other_combatants(state: StateDir) -> None:
    _edit(state.iteration(2).plan, lambda row: row["models"].reverse())


def _other_score(state: StateDir) -> None:
    _edit(_rows(state, 1, "votes"), lambda row: row.update(score=1.0 if row["score"] != 1.0 else 10.0))


def _vote_of_contestant(state: StateDir) -> None:
    path = _rows(state, 1, "votes")
    first = json.loads(path.read_text().splitlines()[0])
    path.write_text(path.read_text() + json.dumps({**first, "judge": first["contestant"]}) + "\n")


def _vote_missing(state: StateDir) -> None:
    path = _rows(state, 1, "votes")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def _other_reputation(state: StateDir) -> None:
    path = state.iteration(1).standing
    table = json.loads(path.read_text())
    table["model0"]["reputation"] += 1.0
    files.write_json(path, table)


def _no_longer_initial(state: StateDir) -> None:
    path = state.iteration(0).standing
    table = json.loads(path.read_text())
    table["model0"]["reputation"] += 1.0
    files.write_json(path, table)


def _swapped_pair(state: StateDir) -> None:
    def swap(row: dict[str, Any]) -> None:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]

    _edit(state.iteration(2).preferences, swap)


def _other_adapter(state: StateDir) -> None:
    weights = next(state.iteration(2).adapters.rglob("adapter_model.safetensors"))
    shutil.copyfile(next(state.iteration(1).adapters.rglob("adapter_model.safetensors")), weights)


def _other_reference(state: StateDir) -> None:
    _edit(_rows(state, 2, "training"), lambda row: row.update(first_loss=0.5))


def _other_member(state: StateDir) -> None:
    path = state.iteration(2).pool
    members = json.loads(path.read_text())
    members[0]["adapter"] = members[0]["adapter"].replace("iter_02", "iter_01")
    files.write_json(path, members)


def _outside(state: StateDir) -> None:
    path = state.iteration(2).pool
    members = json.loads(path.read_text())
    members[0]["adapter"] = "../elsewhere"
    files.write_json(path, members)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_combatants, "plan.jsonl is not what its rows give: line 1 has models"),
        (_other_score, "is not what its rows give"),
        (_vote_of_contestant, "votes: judging is not complete"),
        (_vote_missing, "lacks 1 row"),
        (_other_reputation, "standing.json is not what its rows give: it has model0.reputation"),
        (_no_longer_initial, "does not have the standings that a run of this recipe begins with"),
        (_swapped_pair, "preferences.jsonl is not what its rows give: line 1 has chosen"),
        (_other_adapter, "is not what training of"),
        (_other_reference, "began at a loss of 0.5000 instead of ln 2"),
        (_other_member, "does not follow from the pool before"),
    ],
)
def test_a_change_behind_manifests_that_fit_is_found(state: StateDir, change: Change, said: str) -> None:
    change(state)
    assert wrong(state.root), "the manifest does not fit any more"
    reseal(state, method_parts(Run.open(state)).row_types)
    assert said in wrong(state.root), wrong(state.root)


def test_a_path_that_leads_out_of_the_state_is_refused(state: StateDir) -> None:
    _outside(state)
    reseal(state, method_parts(Run.open(state)).row_types)
    assert "names '../elsewhere', which is outside of it" in wrong(state.root)


def test_every_change_is_listed_not_only_the_first(state: StateDir) -> None:
    for t in (1, 2):
        state.iteration(t).combats.write_bytes(b"")
    state.instructions.write_bytes(b"")
    found = wrong(state.root)
    assert str(state.iteration(1).combats) in found and str(state.iteration(2).combats) in found
    assert str(state.instructions) in found


def test_rows_of_the_iteration_in_work_are_checked_and_what_is_missing_is_no_error(state: StateDir) -> None:
    path = _rows(state, 3, "responses")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    assert wrong(state.root) == ""
    assert "generate has 23 of 24 rows: a launch makes the others" in notes(state.root)
    path.write_text("".join([*lines, "{}\n"]))
    assert f"{path}, line 25 is not a valid row" in wrong(state.root)


def _differing(state: StateDir) -> tuple[Path, str]:
    """Two rows of one key that differ, in the iteration in work."""
    path = _rows(state, 3, "responses")
    row = json.loads(path.read_text().splitlines()[0])
    with path.open("a") as file:
        file.write(json.dumps({**row, "text": "another"}) + "\n")
    return path, f"{row['combat_id']}/{row['model']}"


def test_two_rows_of_one_key_are_both_named_with_what_each_choice_means(state: StateDir) -> None:
    path, key = _differing(state)
    found = wrong(state.root)
    assert f"{path}, line 1 and {path}, line 25 are different results of the same work {key}" in found
    assert f"to keep the first, delete {path}, line 25" in found
    assert f"to keep the second, delete {path}, line 1" in found


def test_a_run_at_work_is_checked_up_to_its_last_commit(state: StateDir) -> None:
    _differing(state)
    with RunLock(state, lambda text: None):
        assert wrong(state.root) == ""
        assert "what is not committed yet was not checked" in notes(state.root)


def test_a_fork_by_other_rules_is_checked_from_where_it_branched(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    alike = fork(run.state, 1, StateDir(tmp_path / "alike"), None)
    reputation = run.recipe.reputation.model_copy(update={"epsilon": 5.0})
    other = fork(
        run.state, 1, StateDir(tmp_path / "other"), run.recipe.model_copy(update={"reputation": reputation})
    )
    # The parent is not needed.
    shutil.rmtree(run.state.root)
    # Its members begin with other reputations, which the parent's iterations do not have.
    initial = run.recipe.reputation.model_copy(update={"initial": 500.0})
    changed = run.recipe.model_copy(update={"reputation": initial})
    lower = fork(StateDir(tmp_path / "alike"), 1, StateDir(tmp_path / "lower"), changed)
    for branch, is_noted in ((alike, False), (other, True), (lower, True)):
        advance(branch, 2)
        assert wrong(branch.state.root) == ""
        assert ("by the rules of the run that this one branched from" in notes(branch.state.root)) == is_noted


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the embedded pool, scored."""
    state = tmp_path_factory.mktemp("scored") / "state"
    few = ("combats=6", "evaluation.validation=6", "evaluation.test=6")
    settings = [word for setting in few for word in ("--set", setting)]
    for arguments in (
        ("launch", "--recipe", "toy", "--iters", 1, "--state", state, "--cluster", "inline", *settings),
        ("evaluate", state),
    ):
        done = typed(*arguments)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stdout + done.stderr
    assert verified(state).right and verified(state).evaluations == 2
    return state


def test_an_adapter_must_be_finite_and_of_the_shapes_that_its_base_has(scored: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = StateDir(Path(shutil.copytree(scored, tmp_path / "state")))
    folder = min(state.iteration(0).adapters.iterdir())
    weights = load_file(folder / "adapter_model.safetensors")
    name = min(weights)

    def found_with(tensor: torch.Tensor) -> str:
        save_file({**weights, name: tensor}, folder / "adapter_model.safetensors")
        path = state.iteration(0).pool
        members = json.loads(path.read_text())
        for member in members:
            member["sha256"] = files.sha256_tree(state.inside(member["adapter"]))
        files.write_json(path, members)
        reseal(state, method_parts(Run.open(state)).row_types)
        return wrong(state.root)

    assert f"{folder / 'adapter_model.safetensors'} has numbers that are not finite" in found_with(
        torch.full_like(weights[name], float("nan"))
    )
    assert str(folder) in found_with(torch.zeros(3, 3))


def test_adapters_that_were_pruned_on_purpose_are_noted_and_lost_ones_are_found(
    scored: Path, tmp_path: Path
) -> None:
    state = StateDir(Path(shutil.copytree(scored, tmp_path / "state")))
    for t in (0, 1):
        gone = sorted(state.iteration(t).adapters.rglob("adapter_model.safetensors"))[:2]
        prune(state, gone, "keep: chosen")
    assert wrong(state.root) == ""
    assert notes(state.root).count("of 2 adapters were removed on purpose (keep: chosen)") == 2
    lost = max(state.iteration(1).adapters.rglob("adapter_model.safetensors"))
    lost.unlink()
    assert f"{lost} is missing" in wrong(state.root)


def test_what_no_check_foresees_is_a_finding_and_the_rest_is_checked(scored: Path, tmp_path: Path) -> None:
    state = StateDir(Path(shutil.copytree(scored, tmp_path / "state")))
    summary = state.evals / "summary.json"
    table = json.loads(summary.read_bytes())
    table["tasks"]["toy"]["metrics"] = []
    files.write_json(summary, table)
    assert "scores could not be checked to its end (IndexError" in wrong(state.root)


def test_scores_and_grades_are_computed_again(scored: Path, tmp_path: Path) -> None:
    state = StateDir(Path(shutil.copytree(scored, tmp_path / "state")))
    summary = state.evals / "summary.json"
    kept = summary.read_bytes()
    table = json.loads(kept)
    checkpoint = min(table["tasks"]["toy"]["validation"])
    table["tasks"]["toy"]["validation"][checkpoint] = 0.123
    files.write_json(summary, table)
    assert f"has 0.123 for {checkpoint} on toy validation, and its answers give" in wrong(state.root)
    table = json.loads(kept)
    choice = table["tasks"]["toy"]["choices"][0]
    [metric] = choice["test"]
    choice["test"][metric]["mean"] = 1.5
    files.write_json(summary, table)
    assert f"has 1.5 for {choice['checkpoint']} on toy test by {metric}" in wrong(state.root)
    summary.write_bytes(kept)
    shard = next(path for path in state.evals.rglob("a0-*.jsonl") if "validation" in str(path))
    _edit(shard, lambda row: row.update(grades={metric: 1.0 - row["grades"][metric]}))
    assert "1 answer with other grades than the text gets" in wrong(state.root)


def test_answers_that_nothing_asked_for_are_noted(scored: Path, tmp_path: Path) -> None:
    state = StateDir(Path(shutil.copytree(scored, tmp_path / "state")))
    shard = next(path for path in state.evals.rglob("a0-*.jsonl") if "validation" in str(path))
    first = json.loads(shard.read_text().splitlines()[0])
    strangers = ({**first, "item_id": "unknown"}, {**first, "checkpoint": "iter_07-adder"})
    shard.write_text(shard.read_text() + "".join(json.dumps(row) + "\n" for row in strangers))
    assert wrong(state.root) == ""
    assert f"{shard.parent} has 2 answers that nothing asked for, toy/iter_" in notes(state.root)


def test_grades_of_a_judge_are_read_and_mended(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, models=3, combats=6, iterations=1, **GRADED)
    for split in ("validation", "test"):
        rows = [{"id": f"{split}{n}", "prompt": f"{split} {n}", "reference": "x"} for n in range(3)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = begin_or_continue(StateDir(tmp_path / "state"), load(recipe))
    advance(run, 1)
    score(EvaluateRequest(state=run.state.root), Screen())
    state = run.state
    assert wrong(state.root) == "" and "nothing asked for" not in notes(state.root)
    shard = next(path for path in state.evals.rglob("grades-*/a0-*.jsonl") if "validation" in str(path))
    before = shard.read_bytes()
    row = json.loads(before.splitlines()[0])
    shard.write_bytes(before + json.dumps({**row, "item_id": "unknown"}).encode() + b"\n")
    assert wrong(state.root) == ""
    assert f"{shard.parent} has 1 grade that nothing asked for, own/iter_0" in notes(state.root)
    shard.write_bytes(before + b"{}\n")
    last = len(before.splitlines()) + 1
    assert f"{shard}, line {last} is not a valid grade" in wrong(state.root)
    shard.write_bytes(before + json.dumps({**row, "raw": "another"}).encode() + b"\n")
    assert "are different grades for" in wrong(state.root)
    shard.write_bytes(before + before.splitlines(keepends=True)[0] + b'{"task": "o')
    done = typed("verify", state.root, "--repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert shard.read_bytes() == before


def test_the_command_says_what_is_wrong_and_ends_with_status_1(state: StateDir) -> None:
    done = typed("verify", state.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "iteration 2" in done.stdout and f"{state.root} is right (3 committed iterations" in done.stdout
    state.iteration(1).combats.write_bytes(b"")
    done = typed("verify", state.root)
    assert done.returncode == 1 and "1 thing wrong, see above" in done.stdout
    assert f"wrong (manifest): {state.iteration(1).combats} was changed after the commit" in done.stdout
    found = json.loads(typed("verify", state.root, "--json").stdout)
    assert found["right"] is False and found["iterations"] == 3
    assert [(one["check"], one["iteration"]) for one in found["findings"] if one["wrong"]] == [
        ("manifest", 1)
    ]


def test_a_state_of_another_version_and_a_folder_without_a_run_are_refused(state: StateDir) -> None:
    files.write_json(state.run_json, {**json.loads(state.run_json.read_text()), "schema_version": 2})
    assert "has schema version 2, this code reads version 1" in sentence(typed("verify", state.root))
    assert "holds no run" in sentence(typed("verify", state.root / "nowhere"))


def _unwritable(place: Path) -> list[str]:
    """What to put before a command that must not be able to write below `place`."""
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "a-w", place], check=True)
        return []
    # Nothing is forbidden to root, but a disk can be.
    mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", mounts, str(place)]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    return wrapper


def test_a_read_only_disk_can_be_checked_and_not_repaired(state: StateDir) -> None:
    first = _unwritable(state.root)
    try:
        checked, repaired = (
            subprocess.run(
                [*first, *command("verify", state.root, *arguments)],
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                env=quiet(),
            )
            for arguments in ((), ("--repair",))
        )
    finally:
        subprocess.run(["chmod", "-R", "u+w", state.root], check=True)
    assert checked.returncode == 0 and "is right" in checked.stdout, checked.stdout + checked.stderr
    assert "may not be read or written by this user" in sentence(repaired)


def test_a_repair_takes_out_what_does_not_count_and_keeps_it_aside(state: StateDir) -> None:
    committed, unfinished = _rows(state, 1, "votes"), _rows(state, 3, "responses")
    before = {path: path.read_bytes() for path in (committed, unfinished)}
    first = before[committed].splitlines(keepends=True)[0]
    committed.write_bytes(before[committed] + first + first[:10])
    unfinished.write_bytes(b"not a row\n" + before[unfinished] + b'{"combat_id": "03')
    litter = state.iteration(2).root / ".stats.json.0123456789abcdef.tmp"
    litter.write_bytes(b"")
    assert "1 line of" in notes(state.root) and "is cut off" in notes(state.root)
    assert "is not a valid row" in wrong(state.root)
    done = typed("verify", state.root, "--repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not litter.exists()
    kept = [path.read_bytes() for path in sorted(state.superseded.rglob("*.jsonl"))]
    assert kept == [first + first[:10] + b"\n", b'not a row\n{"combat_id": "03\n'] or kept == [
        first[:10] + b"\n" + first,
        b'{"combat_id": "03\nnot a row\n',
    ]
    again = typed("verify", state.root, "--repair")
    assert again.returncode == 0 and "set aside" not in again.stdout
    done = typed("launch", "--state", state.root)
    assert done.returncode == 0, done.stderr


def test_a_repair_leaves_rows_that_differ_and_a_running_state_alone(state: StateDir) -> None:
    path, _ = _differing(state)
    before = path.read_bytes()
    assert typed("verify", state.root, "--repair").returncode == 1
    assert path.read_bytes() == before
    with RunLock(state, lambda text: None):
        sentence(typed("verify", state.root, "--repair"))
