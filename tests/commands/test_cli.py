"""The command `sparta` and the programs of jobs/: one set of commands, which agree with each other and start quickly."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import ROOT, advance, begin, quiet, sentence, typed, write_recipe

from sparta import __version__
from sparta.commands.cli import PROGRAMS, main
from sparta.store.run import Run

SPARTA = 'import sys; sys.argv[0] = "sparta"; from sparta.commands.cli import main; sys.exit(main())'
SLOW = ("pydantic", "msgspec", "rich", "yaml", "numpy", "torch", "shtab")


def sparta(*arguments: object, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """The console script, of the code in this checkout."""
    command = [sys.executable, "-c", SPARTA, *map(str, arguments)]
    environment = {**quiet(), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with one of its iterations done, on a task that it can be scored on."""
    folder = tmp_path_factory.mktemp("run")
    begun = begin(
        folder, iterations=2, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 4}
    )
    advance(begun, 1)
    return begun


def test_help_lists_every_command_with_what_it_does() -> None:
    done = sparta("--help")
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert all(f"{name} {program.summary}" in shown for name, program in PROGRAMS.items())


@pytest.mark.parametrize("arguments", [[], *([name] for name in PROGRAMS)], ids=lambda given: "-".join(given))
def test_every_command_knows_its_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"sparta {__version__}\n"


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_says_what_a_command_does_and_shows_a_command_line_that_it_takes(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sparta"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert PROGRAMS[name].summary in shown
    [example] = re.findall(r"For example: (.+)", shown)
    assert shlex.split(example)[:2] == ["sparta", name]
    monkeypatch.setattr("sparta.commands.cli._execute", lambda *_: 0)
    assert main(shlex.split(example)[1:]) == 0


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["launch", "--help"], ["evaluate", "--help"]]
)
def test_help_imports_no_heavy_library(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = {["sparta", *arguments]!r}
from sparta.commands.cli import main
try:
    main()
except SystemExit:
    print(sorted({SLOW!r} & sys.modules.keys()), file=sys.stderr)
""".replace(repr(SLOW), repr(set(SLOW)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("launch", ["--dry-run"]),
        ("init_pool", ["--dry-run"]),
        ("status", []),
        ("evaluate", ["--split", "validation"]),
        ("recipe", ["show"]),
    ],
)
def test_the_state_is_an_argument_or_an_option(name: str, options: list[str], run: Run) -> None:
    state = run.state.root
    asked = [
        typed(name, *options, state),
        typed(name, *options, "--state", state),
        typed(name, *options, state, "--state", state.parent / "." / "state"),
        sparta(name.replace("_", "-"), *options, state),
    ]
    assert {done.returncode for done in asked} == {3 if name == "status" else 0}, asked[0].stderr
    said = {re.sub(r"python jobs/(\w+)\.py|sparta (\w+)", r"\1\2", done.stdout) for done in asked[1:]}
    assert len(said) == 1, "the same is done, however the state is named"


@pytest.mark.parametrize("name", ["launch", "init_pool", "status", "evaluate"])
def test_two_states_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    done = typed(name, tmp_path / "a b", "--state", tmp_path / "c")
    assert done.returncode == 2 and done.stdout == ""
    said = (
        f"two state directories are given, '{tmp_path}/a b' and --state {tmp_path}/c: leave one of them out"
    )
    assert done.stderr.splitlines()[-1] == f"{name}.py: error: {said}"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_refused_with_the_known_ones() -> None:
    done = sparta("lunch")
    assert done.returncode == 2 and all(name in done.stderr for name in PROGRAMS)


def test_messages_of_the_console_script_suggest_the_console_script(tmp_path: Path) -> None:
    state = tmp_path / "state"
    recipe = write_recipe(tmp_path, data={"task": "toy", "size": 30})
    done = sparta("launch", state, "--recipe", recipe, "--iters", 1)
    assert done.returncode == 0, done.stderr
    assert f"sparta evaluate {state}" in done.stdout and "python jobs/" not in done.stdout
    assert sentence(sparta("status", tmp_path / "none")).endswith(
        f"sparta launch --state {tmp_path / 'none'}"
    )


def completed(script: str, *words: str) -> list[str]:
    """bash's completions of the last of `words`."""
    asked = f"""{script}
COMP_WORDS=({" ".join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}
_shtab_sparta sparta {shlex.quote(words[-1])} {shlex.quote(words[-2])}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_recipes_profiles_and_folders(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "bash"])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert set(PROGRAMS) <= set(completed(script, "sparta", ""))
    assert completed(script, "sparta", "la") == ["launch"]
    assert completed(script, "sparta", "launch", "--dr") == ["--dry-run"]
    assert completed(script, "sparta", "launch", "--cluster", "lo") == ["local"]
    assert completed(script, "sparta", "launch", "--recipe", "paper/gs") == ["paper/gsm8k"]
    assert "requirements" in completed(script, "sparta", "launch", "--recipe", "requ")
    assert completed(script, "sparta", "evaluate", "--profile", "a100") == ["a100-16"]
    assert completed(script, "sparta", "status", "analys") == ["analysis"]
    assert completed(script, "sparta", "recipe", "sho") == ["show"]


def test_zsh_has_a_completion_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--print-completion", "zsh"])
    script = capsys.readouterr().out
    assert script.startswith("#compdef sparta") and "_sparta_recipes() { compadd -- " in script
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=script, text=True, check=True)


def test_scripts_and_profiles_are_copied_once_and_overwrite_nothing(tmp_path: Path) -> None:
    done = sparta("scripts", tmp_path)
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'slurm'}\n"
    for name in ("launch.sh", "driver.sh", "profiles/template.yaml"):
        assert (tmp_path / "slurm" / name).read_bytes() == (ROOT / "slurm" / name).read_bytes()
    assert not (tmp_path / "slurm" / "devcluster").exists()
    (tmp_path / "slurm" / "launch.sh").write_text("mine")
    assert "exists already" in sentence(sparta("scripts", tmp_path))
    assert (tmp_path / "slurm" / "launch.sh").read_text() == "mine"
