"""Real prompts on real SLURM: one Sparta iteration of a small pool on GSM8K, scored on GSM8K and NormAd Country by sbatch slurm/eval_all.sh."""

from pathlib import Path

import pytest
from support.real_data import check_evaluated, needs_raw_data, prepared, write_recipe
from support.scripted_run import typed
from support.slurm_runs import PROFILE, Batch

pytestmark = needs_raw_data


def test_a_small_pool_plays_and_is_scored_on_real_prompts_in_job_arrays(
    tmp_path: Path, devcluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(tmp_path / "data")
    recipe, state = write_recipe(tmp_path, data, "gsm8k"), tmp_path / "state"
    played = typed("launch", "--recipe", recipe, "--state", state, "--profile", PROFILE)
    assert played.returncode == 0, played.stderr
    monkeypatch.setenv("PROFILE", str(PROFILE))
    batch = Batch("eval_all.sh", state, log=tmp_path / "log")
    assert batch.ends() == "COMPLETED", batch.text
    check_evaluated(state, data)
