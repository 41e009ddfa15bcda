"""The pages are true: links lead somewhere, paths and names exist, commands can be typed, keys and fields are those of the code."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import takewhile, zip_longest
from pathlib import Path

import msgspec
import pytest
import yaml
from pydantic import BaseModel, TypeAdapter
from support.house import COMING, JOBS, LINE
from support.pages import BY_NAME, PAGES, ROOT, Page, defined, is_said, options, parsed
from support.scripted_run import typed

from sparta.arena.reputation import Standing
from sparta.cluster.attempts import Attempt, TaskRecord
from sparta.cluster.slurm.detached import Chain
from sparta.cluster.slurm.job_ids import ArrayPart, Jobs
from sparta.cluster.slurm.profile import Profile, Shape, load_profile
from sparta.commands.resume import ResumePlan
from sparta.engines.api.call_cache import Call
from sparta.evaluation.holdout_log import HoldoutAccess
from sparta.evaluation.summary import CheckpointChoice, Interval, RunComparison, Scale, TaskScores
from sparta.methods.registry import sections
from sparta.phases.single import rows as single
from sparta.pool.hub_download import Fetched
from sparta.recipes.load import find, load
from sparta.recipes.schema import Recipe
from sparta.store import records
from sparta.store.baton import Claim
from sparta.store.driver_jobs import DriverJob, DriverJobs
from sparta.store.failure import LaunchFailure
from sparta.store.layout import IterationDir, StateDir
from sparta.store.manifest import FileEntry, Manifest
from sparta.store.row_schema import Record
from sparta.store.run import RunInfo
from sparta.store.run_budget import RunBudget
from sparta.store.shards import RowsEntry
from sparta.store.stats import IterationStats, JudgeStats, PhaseStats, TimeAccount, TokenCounts
from sparta.tasks.base import Item
from sparta.tasks.chats import Chat
from sparta.tasks.prepared import Provenance, SplitFile

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

TOP = re.compile(r"(?:\.ci|analysis|jobs|requirements|slurm|sparta|tests)/[\w./*-]*")
"""What reads as a path from the top of the repository. What a run writes is called state/..., and on its own page jobs/... too."""
FILE = re.compile(r"Makefile|[\w-]+\.(?:md|toml|cff|yml)")
EMBEDDED = ("toy", "toy_pool", "toy_study")
"""Recipes that need nothing but the repository."""
KNOWN_PROGRAMS = {
    "git",
    "cd",
    "conda",
    "cp",
    "eval",
    "pip",
    "pip-audit",
    "scancel",
    "scontrol",
    "sinfo",
    "squeue",
    "python3.11",
    "uv",
    ".",
}
"""Programs that are not ours: of their arguments only paths are looked at."""

TAKE_OPTIONS = ("jobs/", "analysis/", "tests/bench/", "tests/chaos/")
"""Where the scripts are that parse their arguments before they do anything."""

Command = list[str]


def exists(path: str) -> bool:
    return any(ROOT.glob(path.rstrip("/"))) if "*" in path else (ROOT / path).exists()


# --- links, paths, names ---


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8000


def test_every_folder_of_the_top_has_its_page() -> None:
    folders = {"analysis", "jobs", "slurm", "sparta", "state", "tests"}
    assert {f"{folder}/README.md" for folder in folders} <= BY_NAME.keys()


@each_page
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Page) -> None:
    wrong = []
    for link in page.links:
        if link.startswith(("https:", "http:")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        there = path.exists() and path.is_relative_to(ROOT)
        if not there or (anchor and anchor not in Page(path).anchors):
            wrong.append(link)
    assert wrong == []


@each_page
def test_every_path_in_backticks_exists(page: Page) -> None:
    words = [word for span in page.spans for word in span.split()]
    paths = [word for word in words if TOP.fullmatch(word) or FILE.fullmatch(word)]
    if page.name == "state/README.md":
        # There jobs/ is a run's own, but for the programs.
        paths = [path for path in paths if not path.startswith("jobs/") or path.endswith(".py")]
    paths = [path.replace("NAME", "*") for path in paths]
    # A file may also be named as it is called in the page's own folder.
    assert [path for path in paths if not exists(path) and not (page.path.parent / path).exists()] == []


@pytest.mark.parametrize("name", ["sparta/README.md", "CONTRIBUTING.md"])
def test_every_name_of_code_in_backticks_exists(name: str) -> None:
    page = BY_NAME[name]
    names = {span.removesuffix("()") for span in page.spans if re.fullmatch(r"[a-z_]+\(\)", span)}
    names |= {span for span in page.spans if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]*)*|[A-Z]{3,}", span)}
    assert names - defined() <= {"PYTHONPATH"}


def test_the_page_about_the_code_has_every_room_in_the_order_of_the_line() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", BY_NAME["sparta/README.md"].section("Rooms"), flags=re.MULTILINE)
    assert rows == [room for room in LINE if room not in COMING]


# --- commands ---


def programs(page: Page) -> Iterator[tuple[str, Command]]:
    """Every command of `page` without the variables before it: what runs, and its arguments."""
    for command in page.commands:
        words = command[len(list(takewhile(lambda word: re.match(r"[A-Z_]+=", word), command))) :]
        yield words[0], words[1:]


def scripts(page: Page) -> Iterator[tuple[Path | str, Command]]:
    """The programs of the repository that `page` has typed: a script or a module, and arguments."""
    for program, arguments in programs(page):
        if program == "python" and arguments[0] == "-m":
            yield arguments[1], arguments[2:]
        elif program == "python" and arguments[0].startswith(TAKE_OPTIONS):
            yield ROOT / arguments[0], arguments[1:]
        elif program == "sparta":
            yield program, arguments


def batch_scripts(page: Page) -> Iterator[tuple[Path | str, Command]]:
    """The same of the batch scripts: the command that each of them runs, with its arguments."""
    for program, arguments in programs(page):
        if program in ("bash", "sbatch"):
            before = list(takewhile(lambda word: not word.endswith(".sh"), arguments))
            script = arguments[len(before) :]
            drives = re.search(r"^drive (\w+)", (ROOT / script[0]).read_text(), re.M) if script else None
            if drives:
                yield ROOT / "jobs" / f"{drives[1]}.py", script[1:]


def once(found: Iterable[tuple[Path | str, Command]]) -> list[tuple[Path | str, Command]]:
    return [(program, list(rest)) for program, *rest in dict.fromkeys((one, *rest) for one, rest in found)]


TYPED = once(typed for page in PAGES for typed in (*scripts(page), *batch_scripts(page)))
STARTS = [
    (program.stem, arguments)
    for program, arguments in once(typed for page in PAGES for typed in scripts(page))
    if isinstance(program, Path) and program.stem in ("launch", "init_pool")
]


def as_typed(value: object) -> str:
    if isinstance(value, Path):
        return value.name
    return shlex.join(value) if isinstance(value, list) else str(value)


@each_page
def test_every_program_of_a_page_is_known_and_its_files_exist(page: Page) -> None:
    for program, arguments in programs(page):
        if program == "make":
            [target] = [word for word in arguments if "=" not in word]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target
        elif program == ".venv/bin/pytest" or program in KNOWN_PROGRAMS | {
            "python",
            "bash",
            "sbatch",
            "sparta",
        }:
            named = re.findall(r"[\w./*-]+", " ".join(arguments)) if program == "eval" else arguments
            paths = [word for word in named if TOP.fullmatch(word) or FILE.fullmatch(word)]
            assert [path for path in paths if not exists(path)] == []
        else:
            raise AssertionError(f"{program} is no program that this test knows: {arguments}")
        if program == "python" and arguments[0] == "-c":
            compile(arguments[1], page.name, "exec")
        elif program == "python" and not arguments[0].startswith(("-", *TAKE_OPTIONS)):
            assert exists(arguments[0]) and arguments[1:] == []


@pytest.mark.parametrize(("program", "arguments"), TYPED, ids=as_typed)
def test_every_command_is_understood_by_its_program(program: Path | str, arguments: Command) -> None:
    parsed(program, arguments)


@pytest.mark.parametrize("option", ["--iterations", "--iter"])
def test_an_option_that_a_command_does_not_have_is_noticed(option: str) -> None:
    with pytest.raises(AssertionError, match=f"unrecognized arguments: {option}"):
        parsed(ROOT / "jobs" / "launch.py", [option, "8"])


@pytest.mark.parametrize(("command", "arguments"), STARTS, ids=as_typed)
def test_recipe_settings_and_profile_of_a_command_are_valid(
    command: str, arguments: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = parsed(ROOT / "jobs" / f"{command}.py", arguments)
    # Files and placeholders are the reader's own.
    named = found.recipe is not None and not found.recipe.endswith(".yaml") and not found.recipe.isupper()
    load(find(found.recipe) if named else "toy", found.settings)
    if found.profile is not None and not found.profile.endswith(".yaml"):
        load_profile(found.profile)


def embedded(arguments: Command) -> bool:
    """Whether a command begins a run that needs nothing but the repository."""
    given = dict(zip_longest(arguments, arguments[1:], fillvalue=""))
    others = {"--resume", "--fork", "--cancel", "--detach", "--fetch"} & given.keys()
    own_profile = given.get("--profile", "").endswith(".yaml")
    return given.get("--recipe", EMBEDDED[0]) in EMBEDDED and not others and not own_profile


WITHOUT_SBATCH = str(Path(sys.executable).parent)
"""A search path without SLURM's commands, which other machines do not have either."""


@pytest.mark.parametrize(
    ("command", "arguments"), [start for start in STARTS if embedded(start[1])], ids=as_typed
)
def test_what_needs_only_the_repository_can_be_rehearsed(
    command: str, arguments: Command, tmp_path: Path
) -> None:
    dry = [] if "--dry-run" in arguments else ["--dry-run"]
    own = re.findall(r"train: ([\w.]+)", " ".join(arguments))
    for name in own:
        (tmp_path / name).write_text('{"instruction": "Name a river."}\n')
    done = typed(command, *arguments, *dry, cwd=tmp_path, PATH=WITHOUT_SBATCH)
    assert done.returncode == 0, done.stderr
    assert "Dry run" in done.stdout and (not own or "the first: Name a river." in done.stdout)
    assert [path.name for path in tmp_path.iterdir()] == own


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small run of the toy pool in state/."""
    folder = tmp_path_factory.mktemp("reader")
    small = ("combats=8", "evaluation.validation=5", "evaluation.test=5", "engine.threads=1")
    settings = [word for setting in small for word in ("--set", setting)]
    done = typed("launch", "--iters", 1, "--cluster", "inline", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def looks() -> list[tuple[str, Command]]:
    """Commands that look at a run or score one, and need no other task and no other run: each once, whatever the run is called."""
    of_runs = {"evaluate", "sample", "status", "curves", "tables", "truth", "diversity", "report", "rerate"}
    others = {
        "--tasks",
        "--select-on",
        "--against",
        "--split",
        "--checkpoints",
        "--graded",
        "--beside",
        "--seeds",
        "--watch",
    }
    found = [
        (
            program.relative_to(ROOT).as_posix(),
            [re.sub(r"^state/\w+$|^STATE$", "state", word) for word in given],
        )
        for program, given in once(typed for page in PAGES for typed in scripts(page))
        if isinstance(program, Path) and program.stem in of_runs and not others & set(given)
    ]
    return [entry for place, entry in enumerate(found) if entry not in found[:place]]


@pytest.mark.parametrize(("script", "arguments"), looks(), ids=as_typed)
def test_what_looks_at_a_run_works_on_one(script: str, arguments: Command, toy_run: Path) -> None:
    where = ["--cluster", "inline"] if script in ("jobs/evaluate.py", "jobs/sample.py") else []
    done = subprocess.run(
        [sys.executable, ROOT / script, *arguments, *where], cwd=toy_run, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [*([path.stem] for path in JOBS), ["recipe", "show"]], ids="-".join)
def test_every_option_is_on_the_page_of_the_commands(command: Command) -> None:
    page = BY_NAME["jobs/README.md"]
    shown = {word for span in page.spans for word in re.findall(r"--[a-z][\w-]*", span)}
    assert options(*command) <= shown


def test_the_one_node_job_runs_without_slurm(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        ["bash", "slurm/one_node.sh", "--dry-run", "--state", str(tmp_path / "state")],
        cwd=ROOT,
        env={**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "local" in done.stdout
    assert not (tmp_path / "state").exists()


# --- recipes and profiles ---


def yaml_blocks() -> list[tuple[str, str]]:
    return [(page.name, code) for page in PAGES for language, code in page.blocks if language == "yaml"]


@pytest.mark.parametrize(("page", "code"), yaml_blocks(), ids=lambda text: str(text).splitlines()[0])
def test_every_yaml_block_is_a_valid_recipe_or_profile(page: str, code: str, tmp_path: Path) -> None:
    tree = yaml.safe_load(code)
    (tmp_path / "block.yaml").write_text(code)
    if "nodes" in tree:
        assert load_profile(tmp_path / "block.yaml").name
    elif "pool" in tree:
        assert load(tmp_path / "block.yaml").pool.models
    else:
        for section, values in tree.items():
            TypeAdapter(Recipe.model_fields[section].annotation).validate_python(values)


def key_in(section: type[BaseModel], parts: list[str]) -> bool:
    """Whether a recipe has a key of that name, section by section."""
    field = section.model_fields.get(parts[0])
    if field is None:
        return False
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
    inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return len(parts) == 1 or any(key_in(kind, parts[1:]) for kind in inner)


@each_page
def test_every_key_of_a_recipe_in_backticks_is_one(page: Page) -> None:
    dotted = [span for span in page.spans if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", span)]
    keys = [span for span in dotted if span.partition(".")[0] in Recipe.model_fields]
    keys = [key for key in keys if not key.endswith((".json", ".jsonl"))]
    assert [key for key in keys if not key_in(Recipe, key.split("."))] == []


def test_every_setting_that_a_page_names_can_be_set() -> None:
    named = {
        setting
        for page in PAGES
        for setting in re.findall(r"\b([a-z_]+(?:\.[a-z_]+)+=[\w.:/-]*\w)", page.text)
        if setting.partition(".")[0] in Recipe.model_fields
    }
    assert len(named) > 8
    for setting in named:
        load("toy", [setting])


def test_the_page_about_clusters_has_every_key_of_a_profile_and_every_phase() -> None:
    text = BY_NAME["slurm/README.md"].section("All keys of a profile")
    first = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    assert {key for cell in first for key in re.findall(r"`(\w+)`", cell)} == Profile.model_fields.keys()
    named = set(re.findall(r"`(\w+)`", text))
    assert Shape.model_fields.keys() <= named
    assert {name for names in sections() for name in names} <= named


@each_page
def test_every_key_of_a_profile_that_a_page_names_is_one(page: Page) -> None:
    dotted = [span.split(".") for span in page.spans if re.fullmatch(r"phases\.\w+(\.\w+)?", span)]
    assert [
        parts
        for parts in dotted
        if parts[1] not in ("NAME", *(name for names in sections() for name in names))
        or not set(parts[2:]) <= Shape.model_fields.keys()
    ] == []


def quoted_errors() -> list[str]:
    rows = re.findall(r"^\| `([^`]+)` \|", BY_NAME["slurm/README.md"].section("Errors"), flags=re.MULTILINE)
    assert len(rows) > 15
    return rows


@pytest.mark.parametrize("error", quoted_errors())
def test_every_error_in_the_troubleshooting_is_one_that_the_code_says(error: str) -> None:
    assert is_said(error)


def test_an_error_that_nothing_says_is_noticed() -> None:
    assert not is_said("there is no profile … on the moon")


# --- the state ---

HEADINGS = {"HoldoutAccess": "Test-set access"}
"""Sections about rows that are not called as their class is."""
OTHER_ROWS = (Item, Chat, Call, HoldoutAccess)
WHOLE = (
    RunInfo, records.SftDataInfo, Standing, records.Member, IterationStats, JudgeStats, PhaseStats, TimeAccount, TokenCounts, Manifest, FileEntry, RowsEntry, Provenance,
    SplitFile, Fetched, TaskScores, CheckpointChoice, Interval, RunComparison, RunBudget, Scale, Attempt, TaskRecord, Jobs, ArrayPart, Claim, LaunchFailure, Chain,
    DriverJobs, DriverJob, ResumePlan,
)  # fmt: skip
"""What whole files of a state hold."""


def fields_of(kind: type) -> set[str]:
    if issubclass(kind, msgspec.Struct):
        return {field.encode_name for field in msgspec.structs.fields(kind)}
    return set(kind.__dataclass_fields__)


def row_types() -> list[type]:
    found = [
        kind
        for kind in (*vars(records).values(), *vars(single).values())
        if isinstance(kind, type)
        and issubclass(kind, Record)
        and kind is not Record
        and kind not in (records.Member, records.SftDataInfo)
    ]
    assert len(found) > 8
    return [*found, *OTHER_ROWS]


@pytest.mark.parametrize("kind", row_types(), ids=lambda kind: kind.__name__)
def test_every_field_of_a_row_is_documented(kind: type) -> None:
    words = re.sub(r"(?<!^)([A-Z])", lambda found: f" {found[1].lower()}", kind.__name__)
    section = BY_NAME["state/README.md"].section(HEADINGS.get(kind.__name__, words))
    assert fields_of(kind) - set(re.findall(r"`(\w+)`", section)) == set()


@pytest.mark.parametrize("kind", WHOLE, ids=lambda kind: kind.__name__)
def test_every_field_of_a_whole_file_is_documented(kind: type) -> None:
    assert fields_of(kind) - set(re.findall(r"`(\w+)`", BY_NAME["state/README.md"].prose)) == set()


def test_every_path_of_a_state_is_documented() -> None:
    text = BY_NAME["state/README.md"].text
    for home in (StateDir(Path("run")), IterationDir(Path("run/iter_05"), 5)):
        for name, member in vars(type(home)).items():
            if isinstance(member, property) and isinstance(path := getattr(home, name), Path):
                assert path.name in text, f"{type(home).__name__}.{name}"
