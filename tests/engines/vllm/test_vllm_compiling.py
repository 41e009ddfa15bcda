"""vLLM that compiles for real, as on a GPU: on a CPU it does so for a base without adapters, if engine.vllm.eager is false."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, ROOT
from support.tiny_models import make_base

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)

# One process for both starts, because importing vLLM takes most of the time. What it has compiled it keeps in memory, so that comes second.
OPEN = """
import os
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from support.engine_contract import answers, ref, request, settings
from sparta.engines.fallbacks import fallbacks
from sparta.engines.vllm.engine import VllmEngine

base, compiled, path_without_compilers = map(Path, sys.argv[1:])
for place, path in (("without", str(path_without_compilers)), ("with", os.environ["PATH"])):
    os.environ["PATH"] = path
    asked = {"own_process": False, "cpu_cache_gib": 0.1, "sequences": 4, "prefill_tokens": 64, "eager": False}
    engine = VllmEngine(settings(context_length=64, vllm=asked), compiled=compiled / place)
    [answer] = answers(engine, [request(engine, ref("base", base, None), "1")]).values()
    print("RESULT", engine._open.eager, len(fallbacks()), *answer.token_ids)
    engine.close()
"""
COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "cpp")


def path_without_compilers(folder: Path) -> Path:
    """A folder with links to all programs but compilers, for PATH."""
    folder.mkdir()
    for place in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in place.iterdir() if place.is_dir() else ():
            link = folder / program.name
            if not any(name in program.name for name in COMPILERS) and not link.is_symlink():
                link.symlink_to(program)
    return folder


@pytest.mark.long
def test_a_start_fills_the_cache_and_without_a_compiler_goes_on_without_compiling(tmp_path: Path) -> None:
    # vLLM's attention on a CPU needs heads of 32.
    base = make_base(tmp_path / "base", layers=1, width=128)
    compiled = tmp_path / "compiled"
    done = subprocess.run(
        [sys.executable, "-c", OPEN, base, compiled, path_without_compilers(tmp_path / "bin")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    without, with_compiler = (
        line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")
    )
    assert without[:2] == ["True", "1"], done.stderr[-3000:]
    assert "note: vLLM could not compile for base" in done.stderr
    # The fallback is the one of before: what this process has said stays said.
    assert with_compiler[:2] == ["False", "1"] and with_compiler[2:] == without[2:]
    [empty], [filled] = ((compiled / place).iterdir() for place in ("without", "with"))
    assert (filled / "turn" / "compiled").exists() and list(filled.glob("torch_compile_cache/*"))
    assert (empty / "turn" / "failed").exists() and filled.name == empty.name
