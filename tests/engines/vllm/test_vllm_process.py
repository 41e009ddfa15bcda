"""VllmEngine with vLLM in a separate process, as on a GPU: it answers, leaves nothing behind, and ends with its parent."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.engine_contract import answers, ref, request, settings
from support.scripted_run import DEADLINE

from sparta import toy
from sparta.engines.stopwatch import WEIGHTS
from sparta.engines.vllm.engine import VllmEngine
from sparta.engines.vllm.instance import environment
from sparta.errors import SpartaError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)

SCRIPT = '''
"""A user's script. The child imports it again, so it needs the `if` guard."""
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import psutil
from support.engine_contract import answers, ref, request, settings
from sparta import toy
from sparta.engines.vllm.engine import VllmEngine
from sparta.errors import SpartaError

def engines():
    """Ids of vLLM's living processes below this one, without zombies."""
    for child in psutil.Process().children():
        try:
            if "EngineCore" in " ".join(child.cmdline()):
                yield child.pid
        except psutil.NoSuchProcess:
            pass

if __name__ == "__main__":
    small = {{"own_process": True, "cpu_cache_gib": 0.25, "sequences": 16}}
    engine = VllmEngine(settings(context_length=256, vllm=small))
    pool = [ref(name, toy.BASE, folder) for name, folder in toy.ADAPTERS.items()][:2]
    engine.expect(pool)
    made = answers(engine, [request(engine, model, "12 + 13") for model in pool])
    print(len(made), *(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    sys.stdin.readline()
    engine.close()
    print(*engines(), flush=True)
'''


def started(script: Path) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """The script after it received its answers, and its child processes."""
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[2])), encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=script.with_suffix(".log").open("w"),
        text=True,
    )
    assert parent.stdout is not None
    overdue = threading.Timer(DEADLINE, parent.kill)
    overdue.start()
    told = parent.stdout.readline().split()
    overdue.cancel()
    assert told[:1] == ["2"], script.with_suffix(".log").read_text(encoding="utf-8")
    return parent, [psutil.Process(int(pid)) for pid in told[1:]]


def test_the_engine_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    parent, children = started(tmp_path / "script.py")
    try:
        assert children
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(DEADLINE)
        _, left = psutil.wait_procs(children, timeout=DEADLINE)
        assert not left
    finally:
        for process in children:
            if process.is_running():
                process.kill()


def test_closing_ends_the_engine_and_prints_nothing(tmp_path: Path) -> None:
    parent, children = started(tmp_path / "script.py")
    said, _ = parent.communicate("\n", timeout=DEADLINE)
    assert (parent.returncode, said.strip()) == (0, "")
    assert not psutil.wait_procs(children, timeout=DEADLINE)[1]
    logged = (tmp_path / "script.log").read_text(encoding="utf-8").splitlines()
    # Triton, which vLLM does without on a CPU, causes a line before anybody can say how much to log, be it installed or not.
    about_triton = ("Triton is installed", "Triton not available")
    assert [line for line in logged if not any(words in line for words in about_triton)] == []


def test_a_killed_process_is_not_a_user_error_and_the_next_run_starts_another() -> None:
    """A SpartaError would stop the whole run, but the kernel may have killed the process because only this node lacks memory."""
    from vllm.v1.engine.exceptions import EngineDeadError

    engine = VllmEngine(
        settings(context_length=256, vllm={"own_process": True, "cpu_cache_gib": 0.25, "sequences": 16})
    )
    first, second = (ref(name, toy.BASE, folder) for name, folder in list(toy.ADAPTERS.items())[:2])
    engine.expect([first, second])
    pattern = r"[0-9]{3}"
    asked = [replace(request(engine, first, str(number)), pattern=pattern) for number in range(40)]
    try:
        expected = answers(engine, asked)
        assert all(len(done.text) == 3 for done in expected.values())
        assert engine._open is not None
        assert 0 < engine._open.start_stages[WEIGHTS] < engine.load_seconds, (
            "also of a start in another process"
        )
        # Met amid requests, and by an adapter that is to be loaded.
        for loads, met in enumerate((asked, [request(engine, second, "1 + 1")]), start=1):
            for process in psutil.Process().children(recursive=True):
                if "EngineCore" in " ".join(process.cmdline()):
                    process.kill()
            with pytest.raises(EngineDeadError) as caught:
                answers(engine, met)
            assert not isinstance(caught.value, SpartaError)
            assert caught.value.__notes__ == [f"vLLM was processing requests to base {toy.BASE}"]
            assert engine.loads == loads
            assert answers(engine, asked) == expected
            assert engine.loads == loads + 1
    finally:
        engine.close()


def test_environment_variables_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("GONE", "1")
    before = dict(os.environ)
    with environment({"KEPT": "2", "GONE": None, "NEW": "3"}):
        assert (os.environ["KEPT"], os.environ["NEW"]) == ("2", "3")
        assert "GONE" not in os.environ
        os.environ["KEPT"] = "4"
        os.environ["LATE"] = "5"
    assert dict(os.environ) == before
