"""VllmEngine with vLLM in a process of its own, as on a GPU: it answers, it leaves nothing behind, it ends with its parent."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sparta.engines.vllm_base import environment

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)

SCRIPT = '''
"""A script as a person types it: the child imports it again, so what must happen once stands under `if`."""
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import psutil
from asking import answers, ref, request, settings
from sparta import toy
from sparta.engines.vllm import VllmEngine
from sparta.errors import SpartaError

if __name__ == "__main__":
    small = {{"own_process": True, "cpu_cache_gib": 0.25, "sequences": 16}}
    engine = VllmEngine(settings(context_length=256, vllm=small))
    pool = [ref(name, toy.BASE, folder) for name, folder in toy.ADAPTERS.items()][:2]
    engine.expect(pool)
    made = answers(engine, [request(engine, model, "12 + 13") for model in pool])
    print(len(made), *(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    sys.stdin.readline()
    engine.close()
    print(*(child.pid for child in psutil.Process().children() if "EngineCore" in " ".join(child.cmdline())), flush=True)
'''


def started(script: Path) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """The script, once it has had its answers, and the processes under it."""
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=script.with_suffix(".log").open("w"),
        text=True,
    )
    assert parent.stdout is not None
    told = parent.stdout.readline().split()
    assert told[:1] == ["2"], script.with_suffix(".log").read_text(encoding="utf-8")
    return parent, [psutil.Process(int(pid)) for pid in told[1:]]


def test_the_engine_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    parent, children = started(tmp_path / "script.py")
    try:
        assert children
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        _, left = psutil.wait_procs(children, timeout=8)
        assert not left
    finally:
        for process in children:
            if process.is_running():
                process.kill()


def test_closing_ends_the_engine_and_prints_nothing(tmp_path: Path) -> None:
    parent, children = started(tmp_path / "script.py")
    said, _ = parent.communicate("\n", timeout=60)
    assert (parent.returncode, said.strip()) == (0, "")
    assert not psutil.wait_procs(children, timeout=8)[1]
    logged = (tmp_path / "script.log").read_text(encoding="utf-8").splitlines()
    # The one line that triton, which the tests' vLLM does without, would cause before vLLM reads how much to log.
    assert [line for line in logged if not line.startswith("Triton is installed")] == []


def test_variables_are_put_back_whatever_changed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("GONE", "1")
    before = dict(os.environ)
    with environment({"KEPT": "2", "GONE": None, "NEW": "3"}):
        assert (os.environ["KEPT"], os.environ["NEW"]) == ("2", "3")
        assert "GONE" not in os.environ
        os.environ["KEPT"] = "4"
        os.environ["LATE"] = "5"
    assert dict(os.environ) == before
