"""A run on SLURM commits what a run on this machine does, wherever its tasks ran."""

from pathlib import Path

from rehearsal import DEADLINE, Launched, manifests, typed, wait_until, write_recipe
from scenes import HeldBack, at_work, ended

from sparta.cluster.attempts import AttemptDir
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.store.layout import StateDir
from sparta.store.run import Run


def test_three_iterations_commit_what_the_local_executor_does(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, iterations=3, combats=12)
    on_slurm = launched("--recipe", recipe, "--state", tmp_path / "slurm", "--profile", "devcluster")
    local = typed("launch", "--recipe", recipe, "--state", tmp_path / "local", "--cluster", "local")
    assert local.returncode == 0, local.stderr
    _, err = on_slurm.communicate(timeout=DEADLINE)
    assert on_slurm.returncode == 0, err
    assert manifests(tmp_path / "slurm") == manifests(tmp_path / "local")
    assert len(manifests(tmp_path / "slurm")) == 4


def test_sixteen_tasks_spread_over_four_nodes_each_with_a_gpu_of_its_own(
    tmp_path: Path, launched: Launched
) -> None:
    profile = tmp_path / "wide.yaml"
    text = (Path(__file__).parents[2] / "slurm" / "profiles" / "devcluster.yaml").read_text()
    profile.write_text(text.replace("at_once: 4", "at_once: 16"))
    recipe = write_recipe(tmp_path, iterations=1, combats=64)
    state = StateDir(tmp_path / "state")
    held = HeldBack(tmp_path, "iter_01-generate-a0", "iter_01-judge-a0")
    driver = launched("--recipe", recipe, "--state", state.root, "--profile", profile, **held.environment)
    wait_until(lambda: at_work(state, Generate(), tasks=16))
    held.let_go("iter_01-generate-a0")
    wait_until(lambda: at_work(state, Judge(), tasks=16))
    held.let_go("iter_01-judge-a0")
    ended(driver)
    run = Run.open(state)
    for phase in (Generate(), Judge()):
        attempts = AttemptDir(run, phase, 1)
        [attempt] = attempts.all()
        records = attempts.records(attempt)
        assert len(records) == 16
        places = {(record.node, record.gpus) for record in records}
        assert places == {(f"node{node}", str(gpu)) for node in range(1, 5) for gpu in range(4)}, phase.name
