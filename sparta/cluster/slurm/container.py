"""The container that tasks run in: pyxis (srun's options) or apptainer, which the profile's section `container` describes.

Only the task runs inside. The batch script runs outside of it, has SLURM's commands, and so requeues a task that was told to stop: the image needs
no scontrol. The state, and whatever the recipe names, has the same path inside and outside.
"""

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from sparta.arena.rules import Rules
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.one_line import of_pattern
from sparta.errors import SpartaError
from sparta.pool.hub_download import wanted_by
from sparta.store.run import Run

REQUEUE_STATUS = 75
"""The exit status of a task that asks its batch script to requeue it: EX_TEMPFAIL of sysexits.h."""
STATUS_KEPT = " && status=0 || status=$?"
"""The end of the command in a batch script, for `requeue_lines`; also where the profile's setup has `set -e`."""
REQUEUE_VARIABLE = "SPARTA_REQUEUE_STATUS"
"""Set in a container, to REQUEUE_STATUS."""
_CACHES = {
    "XDG_CACHE_HOME": "/tmp/sparta-cache",
    "HF_MODULES_CACHE": "/tmp/sparta-cache/modules",
    "TRITON_CACHE_DIR": "/tmp/sparta-cache/triton",
}
"""Where libraries keep what they make, if the job does not say it otherwise."""

_PATH = r"/[^:,'\"`$\\\0-\x1f]*"
_MOUNT = re.compile(rf"(?P<host>{_PATH})(:(?P<inside>{_PATH})(:(?P<how>ro|rw))?)?", re.ASCII)
_SET_BY_THE_SUITE = {
    "pyxis": ("container-image", "container-mounts", "container-workdir", "container-name", "container-mount-home",
              "no-container-mount-home"),
    "apptainer": ("bind", "B", "mount", "pwd", "cwd", "nv", "cleanenv", "e", "containall", "C", "compat"),
}  # fmt: skip
"""Options that a profile may not give again, or, of apptainer's, that hide the job's environment from a task."""

Image = Annotated[
    str,
    AfterValidator(
        of_pattern(r"[\w./][\w./:@#+=%-]*", "an image: a path, or the address of a registry, without spaces")
    ),
]
Option = Annotated[
    str,
    AfterValidator(of_pattern(r"--?[A-Za-z][\w-]*(=[^\0\r\n]+)?", "one option, as --name or --name=value")),
]


class Container(Rules):
    """The container that every task runs in. Drivers run outside of it."""

    kind: Literal["pyxis", "apptainer"] = Field(
        description="pyxis: srun starts it (enroot); apptainer: the command apptainer exec"
    )
    image: Image = Field(
        description="the image: a file (.sqsh of enroot, .sif of apptainer), or an address that the kind knows"
    )
    mounts: tuple[str, ...] = Field(
        default=(),
        description="folders and files to mount, besides the state and what the recipe names: /path, /path:/inside or /path:/inside:ro",
    )
    options: tuple[Option, ...] = Field(
        default=(),
        description="more options of the container: of apptainer exec, or of pyxis (--container-...)",
    )
    python: Annotated[str, AfterValidator(of_pattern(r"[\w./+-]+", "the path or name of a program"))] = Field(
        default="python3", description="the Python in the image"
    )
    check: bool = Field(
        default=True,
        description="a launch first looks for pyxis or apptainer, the image and the mounts; false where only compute nodes have them",
    )

    @field_validator("image")
    @classmethod
    def _found_from_anywhere(cls, image: str, info: Any) -> str:
        apptainer = info.data.get("kind") == "apptainer"
        is_path = image.startswith(".") or image.endswith((".sif", ".sqsh")) or apptainer
        if is_path and not image.startswith("/") and "://" not in image:
            how = (
                "an absolute path or an address such as docker://OWNER/NAME"
                if apptainer
                else "an absolute path"
            )
            raise ValueError(f"{image} is not found from the folder of a job: write {how}")
        return image

    @field_validator("mounts")
    @classmethod
    def _readable(cls, mounts: tuple[str, ...], info: Any) -> tuple[str, ...]:
        for text in mounts:
            mount_of(text)
            if info.data.get("kind") == "pyxis" and re.search(r"\s", text):
                raise ValueError(f"{text!r} has a space, and pyxis mounts no such folder: move it")
        return mounts

    @field_validator("options")
    @classmethod
    def _not_those_of_the_suite(cls, options: tuple[str, ...], info: Any) -> tuple[str, ...]:
        for option in options:
            name = option.lstrip("-").partition("=")[0]
            kind = info.data.get("kind", "")
            if kind == "pyxis" and not re.match("(no-)?container-", name):
                raise ValueError(
                    f"{option} is no option of pyxis: options of srun itself belong in the profile's key srun"
                )
            if name in _SET_BY_THE_SUITE.get(kind, ()):
                raise ValueError(
                    f"{option} cannot be given here: the suite sets the image, the mounts, the working folder, GPUs and environment itself; "
                    "mounts has a key of its own"
                )
        return options

    @property
    def own_mounts(self) -> list["Mount"]:
        """`mounts`, read."""
        return [mount_of(text) for text in self.mounts]


@dataclass(frozen=True)
class Mount:
    """`host` outside is `inside` in the container. writable: whether tasks may write there."""

    host: str
    inside: str
    writable: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.inside}:{'rw' if self.writable else 'ro'}"

    @property
    def in_words(self) -> str:
        """For a plan."""
        name = "" if self.inside == self.host else f" as {self.inside}"
        return f"{self.host}{name}{'' if self.writable else ', read-only'}"

    def has(self, path: Path) -> bool:
        """Whether `path` is in the container under the same name."""
        return self.host == self.inside and path.is_relative_to(self.host)


def mount_of(text: str) -> Mount:
    """The mount `/path`, `/path:/inside` or `/path:/inside:ro`. Raises ValueError."""
    found = _MOUNT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not a mount: write /path, /path:/inside or /path:/inside:ro, absolute and without commas, quotes and $"
        )
    host = normpath(found["host"])
    inside = normpath(found["inside"]) if found["inside"] else host
    if inside == "/":
        raise ValueError(f"{text!r} would hide the whole image: mount it at a folder")
    return Mount(host, inside, found["how"] != "ro")


def mounts_of(run: Run, container: Container) -> list[Mount]:
    """All mounts of a task: those of the profile, the state, and what the recipe names and the profile does not mount (read-only).

    Raises SpartaError where a path cannot be mounted.
    """
    mounts = container.own_mounts
    state = run.state.root.resolve()
    if not any(mount.has(state) and mount.writable for mount in mounts):
        mounts.append(_of_path(state, True, container))
    for path in sorted(set(_named_by(run))):
        if not any(mount.has(path) for mount in mounts):
            mounts.append(_of_path(path, False, container))
    # A mount hides what lies below it, so a folder comes before those in it.
    return sorted(mounts, key=lambda mount: len(Path(mount.inside).parts))


def _of_path(path: Path, writable: bool, container: Container) -> Mount:
    spaces = container.kind == "pyxis" and re.search(r"\s", str(path)) is not None
    if spaces or re.fullmatch(_PATH, str(path)) is None:
        which = "a space, which pyxis does not take" if spaces else "one of the characters : , ' \" ` $ \\"
        raise SpartaError(
            f"{path} cannot be mounted in a container: its name has {which}; move it to another folder"
        )
    return Mount(str(path), str(path), writable)


def _named_by(run: Run) -> Iterator[Path]:
    """Files and folders that the recipe names, as far as they exist, and the folders that links in them lead to."""
    recipe = run.recipe
    # Where a run is driven is no business of its tasks.
    named = [Path(text) for text in _texts(recipe.model_dump(exclude={"cluster"})) if text.startswith("/")]
    for path in (*named, *(wanted.folder.absolute() for wanted in wanted_by(recipe))):
        if not path.exists():
            continue
        yield path
        # Files of the hub's cache are links to a folder beside it.
        yield from _behind(path)
        for folder, folders, names in os.walk(path):
            for name in (*folders, *names):
                yield from _behind(Path(folder, name))


def _behind(entry: Path) -> Iterator[Path]:
    """The folders that the link `entry` leads through, by the names that the links give them, and the one where it ends. Nothing for what is no link."""
    if not entry.is_symlink() or not entry.exists():
        return
    place = entry
    while place.is_symlink():
        place = Path(normpath(place.parent / os.readlink(place)))
        yield place if place.is_dir() else place.parent
    yield place.resolve() if place.is_dir() else place.resolve().parent


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def srun_options(container: Container, mounts: Sequence[Mount], folder: Path) -> list[str]:
    """What srun gets, for pyxis. folder: the working directory."""
    if container.kind != "pyxis":
        return []
    return [
        f"--container-image={container.image}",
        f"--container-mounts={','.join(map(str, mounts))}",
        f"--container-workdir={folder}",
        # A home folder would hide that of the image, and bring packages with it.
        "--no-container-mount-home",
        *container.options,
    ]


def python_command(container: Container, mounts: Sequence[Mount], folder: Path, gpus: int) -> str:
    """The command line, quoted, that starts Python in the container. `env` comes last, because variables of an image win over those of a job."""
    inside = [
        "env",
        "PYTHONNOUSERSITE=1",
        f"{REQUEUE_VARIABLE}={REQUEUE_STATUS}",
    ]
    outside, filled_in = [], ['PYTHONPATH="$PYTHONPATH"']
    if container.kind == "pyxis":
        # The home folder in the image may be read-only.
        filled_in += [f'{name}="${{{name}:-{folder}}}"' for name, folder in _CACHES.items()]
    if container.kind == "apptainer":
        # Of AMD's cards, or by NVIDIA's own program, where the profile says so.
        others = any(option in ("--rocm", "--nvccli") for option in container.options)
        outside = [
            # SLURM's signal goes to every process of the step, also to those that hold the image for apptainer, which it would end.
            *("bash", "-c", 'trap "" USR2; exec "$@"', "bash"),
            "apptainer",
            "exec",
            *(["--nv"] if gpus and not others else []),
            *(f"--bind={mount}" for mount in mounts),
            f"--pwd={folder}",
            *container.options,
            container.image,
        ]
    # The shell of the batch script fills in PYTHONPATH, which begins with the copy of the code.
    return f"{shlex.join([*outside, *inside])} {' '.join(filled_in)} {shlex.quote(container.python)}"


def setup_lines(container: Container, gpus: int) -> list[str]:
    """Lines before srun. Enroot mounts NVIDIA's driver only where these variables are set, and most images do not set them."""
    if container.kind != "pyxis" or not gpus:
        return []
    return [
        'export NVIDIA_VISIBLE_DEVICES="${NVIDIA_VISIBLE_DEVICES:-all}"',
        'export NVIDIA_DRIVER_CAPABILITIES="${NVIDIA_DRIVER_CAPABILITIES:-compute,utility}"',
    ]


def requeue_lines() -> list[str]:
    """The end of a batch script: requeue the task if that is what it has asked for."""
    return [
        # The number of an array's last task is that of the whole array.
        "job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
        # SLURM_CLUSTERS says where to submit jobs; a command about this job must not use it.
        f'if [ "$status" -eq {REQUEUE_STATUS} ]; then env -u SLURM_CLUSTERS scontrol requeue "${{job:-$SLURM_JOB_ID}}"; fi',
        'exit "$status"',
    ]


def check_container(container: Container, profile: str) -> None:
    """Raises SpartaError where the container cannot be started, as far as this machine shows it. profile: its name, for messages."""
    if not container.check:
        return
    elsewhere = "or set container.check: false in the profile if only compute nodes have it"
    if container.kind == "apptainer" and shutil.which("apptainer") is None:
        raise SpartaError(
            f"profile {profile} runs tasks in a container of apptainer, which is not on PATH here: load its module, here and in the profile's "
            f"setup, {elsewhere}"
        )
    if container.kind == "pyxis":
        with cli.answering("try again when it does"):
            known = cli.help_of("srun")
        if "--container-image" not in known:
            raise SpartaError(
                f"profile {profile} runs tasks in a container of pyxis, and srun knows no --container-image here: ask the cluster's "
                f"administrators for pyxis, use another container.kind, {elsewhere}"
            )
    paths = [container.image] if container.image.startswith("/") else []
    for path in (*paths, *(mount.host for mount in container.own_mounts)):
        if not Path(path).exists():
            raise SpartaError(
                f"profile {profile} names {path} in its section container, and that does not exist here: correct it, {elsewhere}"
            )


def in_words(container: Container, mounts: Sequence[Mount], setup: Sequence[str]) -> list[str]:
    """Lines for the plan of a launch: the image, what tasks see, and what they do not see of the folders that the profile's `setup` names."""
    own = container.own_mounts
    lines = [
        f"{container.kind}, image {container.image}, {container.python}",
        *(f"sees {mount.in_words}{'' if mount in own else ' (mounted by the suite)'}" for mount in mounts),
    ]
    for name, value in _exported(setup):
        if value.startswith("/") and "$" not in value and not any(mount.has(Path(value)) for mount in mounts):
            lines.append(f"does not see {name}={value}, which the profile's setup names")
        elif re.match(r"[~$]", value):
            lines.append(
                f"may not see {name}={value}, which the profile's setup names: this cannot be checked here"
            )
    return lines


def _exported(setup: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Variables that lines of `setup` export and their values, without search paths."""
    for command in (part for line in setup for part in re.split(r"[;&|]+", line)):
        try:
            words = shlex.split(command, comments=True)
        except ValueError:
            continue
        for word in words[1:] if words[:1] == ["export"] else ():
            name, _, value = word.partition("=")
            if value and name != "PATH" and not name.endswith("_PATH"):
                yield name, value
