"""What comes from others is data, never code, and stays where it belongs; what is secret stays in the environment."""

import ast
import json
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.forged import reseal
from support.scripted_run import ROOT, command, quiet, sentence, typed, write_recipe

from sparta.commands.verify import method_parts
from sparta.recipes.pool import Pool
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.run import Run

RUNS_DATA = ("pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib")
"""Modules whose reading runs what the file says."""
RUNS_TEXT = ("eval", "exec", "compile", "__import__")
"""Built-in functions that run a text."""
READS_PICKLES = {
    ("torch", "load"),
    ("os", "system"),
    ("os", "popen"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
}


def _sources() -> list[Path]:
    return [
        path for folder in ("sparta", "analysis", "jobs") for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def _suspicious(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines that could run what others wrote, with what they do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            for module in names if isinstance(node, ast.Import) else [node.module or ""]:
                if module.partition(".")[0] in RUNS_DATA:
                    yield node.lineno, f"imports {module}"
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in RUNS_TEXT:
                yield node.lineno, f"calls {called.id}"
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                if (called.value.id, called.attr) in READS_PICKLES:
                    yield node.lineno, f"calls {called.value.id}.{called.attr}"
                if (called.value.id, called.attr) == ("yaml", "load") and not node.keywords:
                    yield node.lineno, "calls yaml.load without a loader"
            for keyword in node.keywords:
                constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in ("shell", "trust_remote_code", "allow_pickle") and constant is True:
                    yield node.lineno, f"sets {keyword.arg}"


def test_nothing_in_the_suite_runs_what_a_file_says() -> None:
    found = [
        f"{path.relative_to(ROOT)}, line {line}: {what}"
        for path in _sources()
        for line, what in _suspicious(ast.parse(path.read_text()))
    ]
    assert not found
    assert Pool.model_fields["trust_remote_code"].default is False


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from torch.x import y; torch.load(p)",
        "eval(x)",
        "f(shell=True)",
        "yaml.load(x)",
        "g(trust_remote_code=True)",
    ],
)
def test_such_a_line_would_be_found(line: str) -> None:
    assert list(_suspicious(ast.parse(line)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one committed iteration, beside which lies a file that nobody should read or write."""
    folder = tmp_path_factory.mktemp("whole")
    done = typed("launch", "--recipe", write_recipe(folder), "--state", folder / "state", "--iters", 1)
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "adapters" / "model0", folder / "elsewhere")
    return folder


@pytest.fixture
def state(whole: Path, tmp_path: Path) -> StateDir:
    shutil.copytree(whole, tmp_path / "place", symlinks=True)
    return StateDir(tmp_path / "place" / "state")


def _named(state: StateDir, adapter: str) -> None:
    """The pool names this folder as the adapter of its first member, and the manifest fits."""
    path = state.iteration(1).pool
    members = json.loads(path.read_bytes())
    members[0]["adapter"] = adapter
    files.write_json(path, members)
    reseal(state, method_parts(Run.open(state)).row_types)


def _outside_by_dots(state: StateDir) -> None:
    _named(state, "../elsewhere")


def _outside_by_dots_within(state: StateDir) -> None:
    _named(state, "iter_01/../../elsewhere")


def _outside_by_an_absolute_path(state: StateDir) -> None:
    _named(state, str(state.root.parent / "elsewhere"))


def _outside_by_a_link_to_the_folder(state: StateDir) -> None:
    folder = state.iteration(1).adapter("model0")
    shutil.rmtree(folder)
    folder.symlink_to(state.root.parent / "elsewhere")


def _outside_by_a_link_to_the_weights(state: StateDir) -> None:
    weights = state.iteration(1).adapter("model0") / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(state.root.parent / "elsewhere" / "adapter_model.safetensors")


WAYS_OUT: tuple[Callable[[StateDir], None], ...] = (
    _outside_by_dots,
    _outside_by_dots_within,
    _outside_by_an_absolute_path,
    _outside_by_a_link_to_the_folder,
    _outside_by_a_link_to_the_weights,
)


@pytest.mark.parametrize("lead_out", WAYS_OUT, ids=lambda way: way.__name__.strip("_"))
def test_a_state_that_leads_out_of_itself_is_refused(
    state: StateDir, lead_out: Callable[[StateDir], None]
) -> None:
    lead_out(state)
    beside = files.sha256_tree(state.root.parent / "elsewhere")
    said = sentence(typed("launch", "--state", state.root, "--set", "iterations=2"))
    assert str(state.root) in said
    done = typed("verify", state.root)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert files.sha256_tree(state.root.parent / "elsewhere") == beside


def test_the_name_of_a_model_cannot_lead_out_of_the_state(tmp_path: Path) -> None:
    models = [{"name": name, "adapter": "./adapters/model0"} for name in ("../evil", "b", "c")]
    recipe = write_recipe(tmp_path, pool={"base": "none", "models": models})
    said = sentence(typed("launch", "--recipe", recipe, "--state", tmp_path / "state"))
    assert "../evil" in said
    assert not (tmp_path / "evil").exists() and not list(tmp_path.rglob("*evil*"))


SECRETS = {
    name: f"secret-of-{name}".lower()
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "GEMINI_API_KEY", "WANDB_API_KEY")
}


def test_secrets_are_neither_in_the_state_nor_in_logs_nor_on_the_screen(tmp_path: Path) -> None:
    """Tasks are processes of their own here, so that what is handed to them is on the disk too."""
    recipe = write_recipe(
        tmp_path,
        models=3,
        combats=2,
        prompts=4,
        iterations=1,
        cluster={"kind": "local", "tasks": 1, "at_once": 1},
    )
    state, said = tmp_path / "state", []
    for words in (
        ("launch", "--recipe", recipe, "--state", state),
        ("status", state, "--json"),
        ("verify", state),
        ("launch", "--state", state, "--set", "iterations=nonsense"),
    ):
        done = subprocess.run(
            command(*words),
            capture_output=True,
            text=True,
            env={**quiet(), **SECRETS},  # type: ignore[arg-type]
        )
        said.append(done.stdout + done.stderr)
    assert (state / "iter_01" / "MANIFEST.json").exists(), said
    logs = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pkl" for path in logs) and any(path.suffix == ".out" for path in logs)
    leaks = [
        str(path) for path in logs if any(secret.encode() in path.read_bytes() for secret in SECRETS.values())
    ]
    assert not leaks
    assert not any(secret in text for secret in SECRETS.values() for text in said)
    pickles = {path.parent for path in logs if path.suffix == ".pkl"}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in pickles} == {0o700}
