"""A profile: one SLURM cluster, the resources that a task requests, and settings for every job. Nothing in it changes a result.

A profile is a YAML file that lists only what differs from the defaults; slurm/profiles/template.yaml has every key. The launcher calls
`Profile.shape` and does not read the sections.
"""

import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from sparta.arena.rules import Rules
from sparta.cluster.slurm.container import Container
from sparta.cluster.slurm.one_line import Line, of_pattern
from sparta.errors import SpartaError
from sparta.methods.registry import sections
from sparta.names import PROFILE_FOLDERS, hint
from sparta.phases.base import Device
from sparta.recipes.cluster import Assumed
from sparta.recipes.load import Loader, read_mapping, validated

DEFAULT_PROFILE = "a100-16"

_SET_BY_THE_SUITE = (
    "array", "chdir", "dependency", "error", "hold", "job-name", "kill-on-invalid-dep", "no-requeue", "nodes", "ntasks", "ntasks-per-core",
    "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket", "open-mode", "output", "parsable", "requeue", "signal", "test-only", "wait", "wrap",
)  # fmt: skip
_HAS_A_KEY = {
    **{name: name for name in ("account", "constraint", "exclude", "partition", "qos", "time")},
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cpus"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres"), "gpus"),
    "mem": "memory",
    **dict.fromkeys(("clusters", "cluster"), "clusters"),
}
"""sbatch option -> the key of a profile that sets it."""


Name = Annotated[
    str,
    AfterValidator(of_pattern(r"[\w.,@+:-]+", "a name SLURM knows: no spaces, no characters of the shell")),
]
Cluster = Annotated[str, AfterValidator(of_pattern(r"[A-Za-z0-9][\w.-]*", "the name of a cluster, or all"))]
Node = Annotated[
    str, AfterValidator(of_pattern(r"[A-Za-z][\w.,\[\]-]*", "a node name, such as node7 or node[1-4,7]"))
]
Constraint = Annotated[
    str,
    AfterValidator(
        of_pattern(r"[\w.,@+:=&|*()\[\]!-]+", "a constraint, such as a100&nvlink: no spaces, no quotes")
    ),
]
Memory = Annotated[
    str,
    AfterValidator(
        of_pattern(r"[1-9]\d*[KMGT]", "an amount of memory: a whole number and K, M, G or T, as 64G")
    ),
]


class Shape(Rules):
    """The resources of one task. null is inherited: by a phase from gpu or cpu, by these from the profile."""

    partition: Name | None = Field(default=None, description="of these jobs")
    qos: Name | None = Field(default=None, description="quality of service of these jobs")
    account: Name | None = Field(default=None, description="the account charged for these jobs")
    constraint: Constraint | None = Field(default=None, description="features of a node, as a100&nvlink")
    time: int | None = Field(
        default=None,
        ge=1,
        description="time limit, whole minutes; written as SLURM does: 90, 1:30:00, 2-12, 1-06:30:00",
    )
    cpus: int | None = Field(default=None, ge=1, description="cores a task")
    memory: Memory | None = Field(default=None, description="host memory a task, as 64G; null: the cluster's")
    gpus: int | None = Field(default=None, ge=0, description="GPUs a task")

    @field_validator("time", mode="before")
    @classmethod
    def _as_minutes(cls, given: Any) -> Any:
        return minutes_of(given) if isinstance(given, str) else given


GPU_TASK = Shape(time=240, cpus=8, gpus=1)
STEP = Shape(time=60, cpus=2, gpus=0)
"""Defaults where a profile sets nothing."""


@dataclass(frozen=True)
class Resources:
    """The resolved resources of one task. None: not requested, the cluster's default applies."""

    partition: str | None
    qos: str | None
    account: str | None
    constraint: str | None
    exclude: tuple[str, ...]
    """Nodes that it must not run on."""
    minutes: int
    """Time limit."""
    cpus: int
    memory: str | None
    """Host memory, in SLURM's notation: 64G."""
    gpus: int
    gpu_type: str | None
    """None: no GPUs, or any type."""


class Profile(Rules):
    """One cluster. Contradictions (a time limit too short for the signal, more tasks than GPUs) are refused when it is loaded."""

    name: str = Field(min_length=1, description="the cluster's name in messages")
    nodes: int = Field(ge=1, description="nodes that a run may use")
    gpus_per_node: int = Field(ge=1, description="GPUs of one node")
    gpu_type: Name | None = Field(default=None, description="SLURM's name of it, as a100; null: any")
    gpu_memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="of one GPU; trainings that are estimated to need more are refused. null: not known",
    )
    gpus_by: Literal["gpus-per-node", "gres"] = Field(
        default="gpus-per-node",
        description="the sbatch option that requests GPUs; gres for clusters that only support that one",
    )
    at_once: int | None = Field(
        default=None, ge=1, description="most array tasks at the same time; null: nodes * gpus_per_node"
    )
    clusters: tuple[Cluster, ...] = Field(
        default=(),
        description="where SLURM has several clusters: those that sbatch chooses from; []: those in SLURM_CLUSTERS, or the one you are on",
    )
    partition: Name | None = Field(default=None, description="for every job; null: the cluster's default")
    qos: Name | None = Field(
        default=None, description="quality of service of every job; null: the cluster's default"
    )
    account: Name | None = Field(
        default=None, description="the account charged for every job; null: the user's default"
    )
    constraint: Constraint | None = Field(
        default=None, description="features of a node, for every job, as a100&nvlink"
    )
    exclude: tuple[Node, ...] = Field(default=(), description="nodes that no job runs on")
    gpu: Shape = Field(
        default=Shape(),
        description="array tasks; null: 4 hours, 8 cores, as many GPUs as the recipe needs (1)",
    )
    cpu: Shape = Field(
        default=Shape(),
        description="steps, such as merge, and array tasks that call an endpoint; null: 1 hour, 2 cores",
    )
    phases: dict[str, Shape] = Field(default={}, description="what one phase requests instead")
    setup: tuple[Line, ...] = Field(default=(), description="lines of shell before Python, in every job")
    python: Line | None = Field(
        default=None, description="the Python command in jobs; null: the interpreter that submits"
    )
    container: Container | None = Field(
        default=None, description="the container that every task runs in; null: none"
    )
    sbatch: dict[str, str | Literal[True]] = Field(
        default={}, description="more options of sbatch, without the dashes; true: an option without a value"
    )
    srun: tuple[Line, ...] = Field(default=(), description="more arguments of srun")
    signal_seconds: int = Field(
        default=120, ge=1, description="how long before its time limit a task is signalled to stop (SIGUSR2)"
    )
    poll_seconds: float = Field(default=15.0, gt=0, description="how often squeue is asked")
    patience_minutes: float = Field(
        default=30.0, ge=0, description="how long SLURM's controller may not answer before the driver stops"
    )
    max_timeouts: int = Field(
        default=20, ge=0, description="how often a task may continue after its time limit"
    )
    assumed: Assumed = Field(
        default=Assumed(),
        description="of a new run with this profile: what its recipe does not say in cluster.assumed",
    )

    @field_validator("phases")
    @classmethod
    def _of_known_phases(cls, phases: dict[str, Shape]) -> dict[str, Shape]:
        known = sorted(chain(*sections()))
        for name in phases:
            if name not in known:
                raise ValueError(f"there is no phase {name}; {hint(name, known, 'phases')}")
        return phases

    @field_validator("sbatch", mode="before")
    @classmethod
    def _as_options(cls, given: Any) -> Any:
        return dict(_option(key, value) for key, value in given.items()) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _fits_the_cluster(self) -> Self:
        slots = self.nodes * self.gpus_per_node
        if self.at_once is not None and self.at_once > slots:
            raise ValueError(
                f"at_once is {self.at_once}, but {self.nodes} nodes of {self.gpus_per_node} GPUs can run {slots} tasks: lower at_once, or "
                "correct nodes and gpus_per_node"
            )
        for where, shape in self._sections():
            if shape.gpus is not None and shape.gpus > self.gpus_per_node:
                raise ValueError(
                    f"{where}.gpus is {shape.gpus}, but a task runs on one node and a node has {self.gpus_per_node}: lower it, or correct "
                    "gpus_per_node"
                )
        return self

    @model_validator(mode="after")
    def _time_enough(self) -> Self:
        """SLURM may send the signal up to a minute early: a time limit below both together would stop a task as it starts."""
        least = (self.signal_seconds + 60) // 60 + 1
        for where, shape in self._sections():
            whose = where.removeprefix("phases.")
            if where in ("gpu", "cpu"):
                arrays, steps = sections()
                names = arrays if where == "gpu" else steps
                inherit = [
                    name for name in names if (own := self.phases.get(name)) is None or own.time is None
                ]
                whose = ", ".join(inherit) or where
                shape = _over(GPU_TASK if where == "gpu" else STEP, shape)
            if shape.time is not None and shape.time < least:
                raise ValueError(
                    f"{whose}: a time limit of {shape.time} min does not leave signal_seconds ({self.signal_seconds} s) and a minute more: "
                    f"set {where}.time to {least} min or more, or lower signal_seconds"
                )
        return self

    @model_validator(mode="after")
    def _one_container(self) -> Self:
        if self.container is not None:
            if self.python is not None:
                raise ValueError(
                    "python is the command outside of a container: set container.python, and leave python out"
                )
            if given := [
                option for option in self.srun if option.startswith(("--container", "--no-container"))
            ]:
                raise ValueError(f"srun has {given[0]} besides the section container: move it there")
        return self

    def _sections(self) -> list[tuple[str, Shape]]:
        return [
            ("gpu", self.gpu),
            ("cpu", self.cpu),
            *((f"phases.{name}", shape) for name, shape in self.phases.items()),
        ]

    @property
    def width(self) -> int:
        """The most array tasks that run at the same time."""
        return self.at_once or self.nodes * self.gpus_per_node

    def shape(self, phase_name: str, device: Device, gpus: int = 1) -> Resources:
        """The resources of a task of `phase_name` on `device`. gpus: how many it asks for on a GPU if the profile does not say.

        The first that is set counts: the phase's own section, the section of the device, the profile, the default.
        """
        own = self.phases.get(phase_name, Shape())
        on_gpus = GPU_TASK.model_copy(update={"gpus": gpus})
        section, default = (self.gpu, on_gpus) if device == "gpu" else (self.cpu, STEP)
        common = Shape(
            partition=self.partition, qos=self.qos, account=self.account, constraint=self.constraint
        )
        asked = _over(_over(_over(default, common), section), own)
        assert asked.time is not None and asked.cpus is not None and asked.gpus is not None
        return Resources(
            partition=asked.partition,
            qos=asked.qos,
            account=asked.account,
            constraint=asked.constraint,
            exclude=self.exclude,
            minutes=asked.time,
            cpus=asked.cpus,
            memory=asked.memory,
            gpus=asked.gpus,
            gpu_type=self.gpu_type if asked.gpus else None,
        )


def load_profile(source: str | Path) -> Profile:
    """The profile `source`: a YAML file, or a name under slurm/profiles.

    Raises SpartaError naming the file and the key, or the available profiles.
    """
    path = find_profile(source)
    return validated(Profile, read_mapping(path, "profile", _Loader), f"profile {path}")


def minutes_of(text: str) -> int:
    """Minutes, rounded up, of a time in sbatch's notation: "90", "1:30:00", "2-12", "2-12:30", "1-06:30:00".

    Raises ValueError for anything else, including SLURM's minutes:seconds, which most people read as hours and minutes.
    """
    if found := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip(), re.ASCII):
        days, first, second, third = (int(part) if part else None for part in found.groups())
        assert first is not None
        if days is not None or third is not None:
            hours = (days or 0) * 24 + first
            return hours * 60 + (second or 0) + -(-(third or 0) // 60)
        if second is None:
            return first
        raise ValueError(
            f"SLURM reads {text!r} as minutes and seconds: write {first}:{second:02d}:00 for hours and minutes, or {first} for minutes"
        )
    raise ValueError(
        f"{text!r} is not a time: write minutes (90), hours:minutes:seconds (1:30:00), days-hours (2-12) or days-hours:minutes:seconds (1-06:30:00)"
    )


def _over(below: Shape, above: Shape) -> Shape:
    return below.model_copy(update=above.model_dump(exclude_none=True))


def _option(key: Any, value: Any) -> tuple[str, str | Literal[True]]:
    """An option of sbatch, normalized. Raises ValueError where a profile may not set it."""
    if not isinstance(key, str) or not re.fullmatch(r"[a-z][a-z0-9_-]+", key):
        raise ValueError(
            f"{key!r} is not an option of sbatch: write its long name, without the leading dashes"
        )
    name = key.replace("_", "-")
    if name in _HAS_A_KEY:
        raise ValueError(f"{name} has its own key in a profile, {_HAS_A_KEY[name]}: set it there")
    # sbatch accepts abbreviated option names.
    for option in (*_SET_BY_THE_SUITE, *_HAS_A_KEY):
        if option.startswith(name):
            raise ValueError(f"{option} is set by the suite itself: take {key} out")
    if value is True:
        return name, True
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        text = str(value)
        if text.strip() and not re.search(r"[\0\r\n]", text):
            return name, text
    raise ValueError(
        f"{key} takes one line of text or a number, or true for an option without a value, not {value!r}"
    )


def find_profile(source: str | Path) -> Path:
    """The file of a profile: one that exists, or a name under slurm/profiles. Raises SpartaError."""
    for path in (Path(source), *(folder / f"{source}.yaml" for folder in PROFILE_FOLDERS)):
        if path.is_file():
            return path.resolve()
    known = sorted({path.stem for folder in PROFILE_FOLDERS for path in folder.glob("*.yaml")})
    raise SpartaError(
        f"there is no profile {source}: neither a file nor a name under slurm/profiles; {hint(str(source), known, 'profiles')}"
    )


class _Loader(Loader):
    """YAML without sexagesimal and octal numbers: 1:30:00 is a time, not 5400, and 060 is not 48."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
