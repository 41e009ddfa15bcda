"""Real SLURM on this host, one development cluster (slurm/devcluster) a test process; without it these tests skip and say how to have it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, ROOT, Launched, launches

SCRIPTS = ROOT / "slurm" / "devcluster"
FIRST_PORT = 18000
PORTS_EACH = 20


def _why_not() -> str:
    how = "as root, after apt-get install slurm-wlm munge, `make slurm` runs these tests"
    if shutil.which("slurmctld") is None or shutil.which("sbatch") is None:
        return f"SLURM is not installed; {how}"
    if os.geteuid() != 0:
        return f"only root can start a SLURM of its own; {how}"
    return ""


def _settings(worker: str) -> dict[str, str]:
    number = int(worker.removeprefix("gw")) + 1 if worker.startswith("gw") else 0
    return {
        **os.environ,
        "SPARTA_DEVCLUSTER": f"/tmp/sparta-devcluster-tests-{worker}",
        "SPARTA_DEVCLUSTER_PORT": str(FIRST_PORT + PORTS_EACH * number),
    }


@pytest.fixture(scope="session")
def _cluster() -> Iterator[dict[str, str]]:
    if why := _why_not():
        # CI asks for them: there a test that skips would hide that nothing was tested.
        (pytest.fail if "SPARTA_NEED_SLURM" in os.environ else pytest.skip)(why)
    settings = _settings(os.environ.get("PYTEST_XDIST_WORKER", "alone"))
    up = subprocess.run(
        ["bash", SCRIPTS / "up.sh"], capture_output=True, text=True, env=settings, timeout=DEADLINE
    )
    try:
        assert up.returncode == 0, up.stderr
        conf = up.stdout.strip().removeprefix("export SLURM_CONF=")
        yield {key: settings[key] for key in ("SPARTA_DEVCLUSTER", "SPARTA_DEVCLUSTER_PORT")} | {
            "SLURM_CONF": conf
        }
    finally:
        subprocess.run(["bash", SCRIPTS / "down.sh"], capture_output=True, env=settings, timeout=DEADLINE)


@pytest.fixture
def devcluster(_cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """SLURM's commands, in this process and those it starts, talk to a development cluster of its own. The folder of its scripts.

    Whatever the test leaves behind is ended and stopped nodes are started again.
    """
    for key, value in _cluster.items():
        monkeypatch.setenv(key, value)
    yield SCRIPTS
    subprocess.run(["scancel", "--full", f"--user={os.getuid()}"], capture_output=True, timeout=DEADLINE)
    again = subprocess.run(["bash", SCRIPTS / "up.sh"], capture_output=True, text=True, timeout=DEADLINE)
    assert again.returncode == 0, again.stderr


@pytest.fixture
def launched(devcluster: Path) -> Iterator[Launched]:
    """See `support.scripted_run.launches`."""
    with launches() as start:
        yield start
