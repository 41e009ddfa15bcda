"""Builds the wheel of this checkout and installs it in a new environment."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from support.scripted_run import DEADLINE, ROOT, quiet

BUILT_FROM = ("sparta", "slurm", "requirements", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def run_outside(command: list[object], **options: object) -> "subprocess.CompletedProcess[str]":
    """Run `command` with an environment in which Python does not find this checkout."""
    environment = {key: value for key, value in quiet().items() if key != "PYTHONPATH"}
    settings = {"capture_output": True, "text": True, "timeout": DEADLINE, "env": environment, **options}
    return subprocess.run([str(part) for part in command], **settings)  # type: ignore[call-overload]


def build_wheel(folder: Path) -> Path:
    """The wheel, built below `folder` from a source distribution."""
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, source / name)
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    _succeeds([sys.executable, "-c", code], cwd=source)
    [archive] = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    _succeeds([*pip, "--wheel-dir", folder, archive])
    [path] = folder.glob("*.whl")
    return path


def install(wheel: Path, environment: Path) -> Path:
    """A virtual environment in `environment` with the wheel and the libraries of this one. Returns its bin/."""
    _succeeds([sys.executable, "-m", "venv", "--without-pip", environment])
    binaries = environment / "bin"
    pip = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet"]
    _succeeds([*pip, "--no-deps", "--no-index", wheel])
    [packages] = environment.glob("lib/python*/site-packages")
    # Only the path: .pth files there, such as an editable install of this project, have no effect.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = _succeeds([binaries / "python", "-c", "import sparta; print(sparta.__file__)"], cwd=environment)
    assert found.startswith(str(packages)), found
    return binaries


def _succeeds(command: list[object], **options: object) -> str:
    done = run_outside(command, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout
