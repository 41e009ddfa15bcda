"""vLLM that compiles for real, as on a GPU: on a CPU it does so for a base without adapters, if engine.vllm.eager is false."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)

OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from support.engine_contract import answers, ref, request, settings
from sparta.engines.fallbacks import fallbacks
from sparta.engines.vllm.engine import VllmEngine

if __name__ == "__main__":
    base, compiled, own_process = sys.argv[1:]
    asked = {"own_process": own_process == "own", "cpu_cache_gib": 0.1, "sequences": 4, "prefill_tokens": 64, "eager": False}
    engine = VllmEngine(settings(context_length=64, vllm=asked), compiled=Path(compiled))
    [answer] = answers(engine, [request(engine, ref("base", Path(base), None), "1")]).values()
    print("RESULT", engine._open.eager, len(fallbacks()), engine._open.waited > 0.5, answer.token_ids)
    engine.close()
"""
COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "cpp")


def opened(
    base: Path, compiled: Path, script: Path, own: str = "", **environment: str
) -> "subprocess.Popen[str]":
    script.write_text(OPEN)
    return subprocess.Popen(
        [sys.executable, str(script), str(base), str(compiled), own],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: "subprocess.Popen[str]") -> tuple[list[str], str]:
    """Words of the line: eager, number of fallbacks, waited, token ids; and what went to standard error."""
    out, errors = process.communicate(timeout=DEADLINE)
    lines = [line for line in out.splitlines() if line.startswith("RESULT")]
    assert lines, errors[-3000:]
    return lines[0].split(maxsplit=4)[1:], errors


def path_without_compilers(folder: Path) -> str:
    """A folder with links to all programs but compilers, for PATH."""
    folder.mkdir()
    for place in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in place.iterdir() if place.is_dir() else ():
            link = folder / program.name
            if not any(name in program.name for name in COMPILERS) and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)


def test_one_of_two_tasks_compiles_and_a_node_without_a_compiler_goes_on_without(
    tiny_base: Path, tmp_path: Path
) -> None:
    compiled = tmp_path / "compiled"
    two = [opened(tiny_base, compiled, tmp_path / f"task{number}.py") for number in range(2)]
    (first, _), (second, _) = map(result, two)
    assert first[:2] == second[:2] == ["False", "0"]
    assert sorted([first[2], second[2]]) == ["False", "True"]
    [folder] = compiled.iterdir()
    assert (folder / "turn" / "compiled").exists() and (folder / "torch_compile_cache").is_dir()
    path = path_without_compilers(tmp_path / "bin")
    without, errors = result(opened(tiny_base, tmp_path / "empty", tmp_path / "without.py", "own", PATH=path))
    assert without[:2] == ["True", "1"] and without[3] == first[3]
    assert "note: vLLM could not compile" in errors and "No working C++ compiler" in errors
    [folder] = (tmp_path / "empty").iterdir()
    assert (folder / "turn" / "failed").exists()
