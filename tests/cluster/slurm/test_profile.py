"""Profiles: what is inherited from where, what is refused and how, and those that are shipped."""

import re
from itertools import chain
from pathlib import Path

import pytest
import yaml
from test_house import is_bounded

from sparta.arena.rules import Rules
from sparta.cluster.slurm.container import Container
from sparta.cluster.slurm.profile import (
    DEFAULT_PROFILE,
    Profile,
    Resources,
    Shape,
    load_profile,
    minutes_of,
)
from sparta.errors import SpartaError
from sparta.methods.registry import sections
from sparta.names import PROFILES

SMALL = {"name": "small", "nodes": 2, "gpus_per_node": 4}


def written(folder: Path, tree: object) -> Path:
    path = folder / "profile.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def small(folder: Path, text: str = "", **changes: object) -> Profile:
    """A profile of two nodes of four GPUs, from a file, with `changes` and lines of YAML after it."""
    return load_profile(written(folder, yaml.safe_dump({**SMALL, **changes}) + text))


# --- what a task asks for


def test_a_minimal_profile_leaves_settings_to_the_cluster(tmp_path: Path) -> None:
    nothing = {"partition": None, "qos": None, "account": None, "constraint": None, "exclude": ()}
    profile = small(tmp_path)
    assert profile.shape("generate", "gpu") == Resources(
        **nothing, minutes=240, cpus=8, memory=None, gpus=1, gpu_type=None
    )
    assert profile.shape("merge", "cpu") == Resources(
        **nothing, minutes=60, cpus=2, memory=None, gpus=0, gpu_type=None
    )


def test_a_phase_comes_before_its_device_and_the_device_before_the_profile(tmp_path: Path) -> None:
    profile = small(
        tmp_path,
        partition="all",
        qos="normal",
        account="mine",
        constraint="a100&nvlink",
        exclude=["node3", "node[7-9]"],
        gpu_type="a100",
        gpu={"partition": "gpu", "qos": "gpus", "memory": "64G", "time": 30},
        phases={"train": {"qos": "long", "cpus": 4}, "merge": {"memory": "2G"}},
    )
    assert profile.shape("train", "gpu") == Resources(
        partition="gpu",
        qos="long",
        account="mine",
        constraint="a100&nvlink",
        exclude=("node3", "node[7-9]"),
        minutes=30,
        cpus=4,
        memory="64G",
        gpus=1,
        gpu_type="a100",
    )
    merge = profile.shape("merge", "cpu")
    assert (merge.partition, merge.qos, merge.memory, merge.gpus) == ("all", "normal", "2G", 0)


def test_a_phase_is_named_by_what_stands_before_the_first_colon(tmp_path: Path) -> None:
    profile = small(tmp_path, phases={"evaluate": {"time": 77}})
    assert profile.shape("evaluate", "gpu").minutes == 77


def test_a_task_on_the_cpu_asks_for_no_gpu_unless_the_profile_says_so(tmp_path: Path) -> None:
    assert small(tmp_path).shape("generate", "cpu").gpus == 0
    profile = small(tmp_path, gpu_type="a100", cpu={"gpus": 1})
    assert profile.shape("merge", "cpu").gpus == 1
    assert profile.shape("merge", "cpu").gpu_type == "a100"
    assert small(tmp_path, gpu_type="a100").shape("merge", "cpu").gpu_type is None


def test_as_many_tasks_run_together_as_there_are_gpus_or_as_the_profile_allows(tmp_path: Path) -> None:
    assert small(tmp_path).width == 8
    assert small(tmp_path, at_once=3).width == 3


def test_every_phase_of_the_method_may_have_a_shape_of_its_own() -> None:
    arrays, steps = sections()
    assert set(arrays) == {
        *(
            "sft",
            "generate",
            "judge",
            "combat",
            "train",
            "evaluate",
            "grade",
            "evaluate_samples",
            "grade_sets",
        ),
        *("sample", "assess", "sample_assess", "compare", "prefer"),
    }
    assert set(steps) == {
        *("found", "plan", "merge", "commit"),
        *("draw", "rank", "meta_rank", "oppose", "win_rate_rank"),
    }


# --- times


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("090", 90),
        ("1:30:00", 90),
        ("01:30:01", 91),
        ("0:00:01", 1),
        ("24:00:00", 1440),
        ("2-12", 3600),
        ("2-12:30", 3630),
        ("1-06:30:00", 1830),
        ("1-06:30:59", 1831),
        ("0-1", 60),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it_and_rounded_up(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("written_as", ["{}", "'{}'"])
@pytest.mark.parametrize(
    ("text", "minutes"), [("90", 90), ("060", 60), ("1:30:00", 90), ("10:00:00", 600), ("2-12", 3600)]
)
def test_a_time_in_a_file_needs_no_quotes(text: str, minutes: int, written_as: str, tmp_path: Path) -> None:
    profile = small(tmp_path, f"gpu: {{time: {written_as.format(text)}}}\n")
    assert profile.gpu.time == minutes


def test_other_numbers_in_a_file_are_numbers(tmp_path: Path) -> None:
    profile = small(tmp_path, "poll_seconds: 0.5\npatience_minutes: 1.0e+1\nmax_timeouts: 0\n")
    assert (profile.poll_seconds, profile.patience_minutes, profile.max_timeouts) == (0.5, 10.0, 0)


@pytest.mark.parametrize(
    ("signal", "minutes", "enough"), [(120, 3, False), (120, 4, True), (119, 3, True), (30, 2, True)]
)
def test_a_time_limit_leaves_more_than_the_signal_and_a_minute(
    signal: int, minutes: int, enough: bool, tmp_path: Path
) -> None:
    changes = {"signal_seconds": signal, "gpu": {"time": minutes}}
    if enough:
        assert small(tmp_path, **changes).shape("train", "gpu").minutes == minutes
    else:
        with pytest.raises(SpartaError, match=rf"set gpu.time to {minutes + 1} min or more"):
            small(tmp_path, **changes)


# --- options


def test_options_of_sbatch_are_kept_as_text_and_true_means_no_value(tmp_path: Path) -> None:
    given = {"mail-user": "me@example.org", "mail_type": "END", "nice": 100, "exclusive": True}
    assert small(tmp_path, sbatch=given).sbatch == {
        "mail-user": "me@example.org",
        "mail-type": "END",
        "nice": "100",
        "exclusive": True,
    }


# --- what is refused


SHORT = "does not leave signal_seconds (120 s) and a minute more: set "


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"partion": "gpu"}, "unknown key partion; did you mean partition?"),
        ({"zzz": 1}, "unknown key zzz; known keys: account, assumed, at_once, "),
        ({"gpu": {"mem": "64G"}}, "unknown key gpu.mem; did you mean memory?"),
        ({"phases": {"train": {"tme": 90}}}, "unknown key phases.train.tme; did you mean time?"),
        ({"phases": {"time": {"tme": 90}}}, "unknown key phases.time.tme; did you mean time?"),
        ({"phases": {"generat": {}}}, "phases: there is no phase generat; did you mean generate?"),
        (
            {"phases": {"zzz": {}}},
            f"phases: there is no phase zzz; known phases: {', '.join(sorted(chain(*sections())))}",
        ),
        (
            {"phases": {"judge": {"time": 3}}},
            f"judge: a time limit of 3 min {SHORT}phases.judge.time to 4 min or more, or lower signal_seconds",
        ),
        (
            {"gpu": {"time": 2}, "phases": {"train": {"time": 60}}},
            f"{', '.join(name for name in sections()[0] if name != 'train')}: a time limit of 2 min {SHORT}gpu.time to 4 min or more",
        ),
        (
            {"cpu": {"time": 1}},
            f"{', '.join(sections()[1])}: a time limit of 1 min {SHORT}cpu.time to 4 min",
        ),
        ({"signal_seconds": 3600}, f"{', '.join(sections()[1])}: a time limit of 60 min does not leave"),
        ({"gpu": {"time": "2h"}}, "gpu.time: '2h' is not a time: write minutes (90), "),
        ({"gpu": {"time": "-5"}}, "gpu.time: '-5' is not a time: "),
        ({"gpu": {"time": "1:2:3:4"}}, "gpu.time: '1:2:3:4' is not a time: "),
        ({"gpu": {"time": "UNLIMITED"}}, "gpu.time: 'UNLIMITED' is not a time: "),
        (
            {"gpu": {"time": "24:00"}},
            "gpu.time: SLURM reads '24:00' as minutes and seconds: write 24:00:00 for hours and minutes, or 24 for minutes",
        ),
        ({"gpu": {"time": 0}}, "gpu.time: input should be greater than or equal to 1, not 0"),
        ({"gpu": {"time": 1.5}}, "gpu.time: input should be a valid integer"),
        ({"gpu": {"memory": "64 GB"}}, "gpu.memory: '64 GB' is not an amount of memory: "),
        ({"gpu": {"memory": "64"}}, "gpu.memory: '64' is not an amount of memory: "),
        ({"gpu": {"memory": "0G"}}, "gpu.memory: '0G' is not an amount of memory: "),
        ({"gpu": {"memory": 64}}, "gpu.memory: input should be a valid string, not 64"),
        ({"gpu": {"cpus": 0}}, "gpu.cpus: input should be greater than or equal to 1, not 0"),
        ({"gpu": {"gpus": -1}}, "gpu.gpus: input should be greater than or equal to 0, not -1"),
        ({"phases": {"train": {"gpus": 8}}}, "phases.train.gpus is 8, but a task runs on one node"),
        ({"gpu": 3}, "gpu: input should be a valid dictionary"),
        ({"at_once": 9}, "at_once is 9, but 2 nodes of 4 GPUs can run 8 tasks"),
        ({"at_once": 0}, "at_once: input should be greater than or equal to 1, not 0"),
        ({"nodes": 0}, "nodes: input should be greater than or equal to 1, not 0"),
        ({"gpus_per_node": None}, "gpus_per_node: input should be a valid integer"),
        ({"name": ""}, "name: string should have at least 1 character"),
        ({"partition": "gpu; rm -rf"}, "partition: 'gpu; rm -rf' is not a name SLURM knows"),
        ({"partition": ""}, "partition: '' is not a name SLURM knows"),
        ({"gpu": {"qos": "a b"}}, "gpu.qos: 'a b' is not a name SLURM knows"),
        ({"account": "$HOME"}, "account: '$HOME' is not a name SLURM knows"),
        ({"gpu_type": "a100\n"}, "gpu_type: 'a100\\n' is not a name SLURM knows"),
        ({"constraint": "a100 nvlink"}, "constraint: 'a100 nvlink' is not a constraint"),
        ({"exclude": ["node 7"]}, "exclude.0: 'node 7' is not a node name"),
        ({"exclude": ["node7", "`id`"]}, "exclude.1: '`id`' is not a node name"),
        ({"exclude": "node7"}, "exclude: input should be a valid tuple, not 'node7'"),
        (
            {"setup": ["module load cuda\nexit 1"]},
            "setup.0: 'module load cuda\\nexit 1' is not one line of text",
        ),
        ({"setup": ["a\0b"]}, "setup.0: 'a\\x00b' is not one line of text"),
        ({"python": " "}, "python: ' ' is not one line of text"),
        ({"srun": [""]}, "srun.0: '' is not one line of text"),
        ({"sbatch": {"array": "0-3"}}, "sbatch: array is set by the suite itself: take array out"),
        ({"sbatch": {"job_name": "x"}}, "sbatch: job-name is set by the suite itself: take job_name out"),
        (
            {"sbatch": {"depend": "singleton"}},
            "sbatch: dependency is set by the suite itself: take depend out",
        ),
        ({"sbatch": {"time": 90}}, "sbatch: time has its own key in a profile, time: set it there"),
        ({"sbatch": {"mem": "64G"}}, "sbatch: mem has its own key in a profile, memory: set it there"),
        ({"sbatch": {"--nice": 1}}, "sbatch: '--nice' is not an option of sbatch: write its long name"),
        ({"sbatch": {"J": "x"}}, "sbatch: 'J' is not an option of sbatch: write its long name"),
        ({"sbatch": {"nice": False}}, "sbatch: nice takes one line of text or a number"),
        ({"sbatch": {"nice": None}}, "sbatch: nice takes one line of text or a number"),
        ({"sbatch": {"comment": "a\nb"}}, "sbatch: comment takes one line of text or a number"),
        ({"sbatch": ["nice"]}, "sbatch: input should be a valid dictionary"),
        ({"signal_seconds": 0}, "signal_seconds: input should be greater than or equal to 1, not 0"),
        ({"poll_seconds": 0}, "poll_seconds: input should be greater than 0, not 0"),
        ({"patience_minutes": -1}, "patience_minutes: input should be greater than or equal to 0, not -1"),
        ({"max_timeouts": -1}, "max_timeouts: input should be greater than or equal to 0, not -1"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_place(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpartaError) as error:
        small(tmp_path, **changes)
    assert said in str(error.value)
    assert str(error.value).startswith(f"profile {tmp_path / 'profile.yaml'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "option",
    [
        "array",
        "chdir",
        "output",
        "error",
        "job-name",
        "dependency",
        "signal",
        "open-mode",
        "requeue",
        "no-requeue",
        "kill-on-invalid-dep",
        "wrap",
        "parsable",
        "hold",
    ],
)
def test_options_that_the_suite_sets_are_refused_in_a_profile(option: str, tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match=f"{option} is set by the suite itself"):
        small(tmp_path, sbatch={option: "x"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not YAML"),
        ("- 1\n- 2\n", "must be a mapping of keys to values, found list"),
        ("", "must be a mapping of keys to values, found NoneType"),
        ("name: x\ngpus_per_node: 4\n", "nodes is missing"),
    ],
)
def test_a_file_that_is_no_profile_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SpartaError, match=said) as error:
        load_profile(path)
    assert str(error.value).startswith(f"profile {path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a100-61", "did you mean a100-16?"),
        ("elsewhere/zzz.yaml", "known profiles: a100-16, "),
    ],
)
def test_a_missing_profile_lists_the_available_ones(source: str, said: str) -> None:
    with pytest.raises(SpartaError) as error:
        load_profile(source)
    assert str(error.value).startswith(
        f"there is no profile {source}: neither a file nor a name under slurm/profiles; "
    )
    assert said in str(error.value)


# --- the profiles that are shipped


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_a_shipped_profile_loads_under_its_own_name_and_as_a_file(name: str) -> None:
    assert load_profile(name) == load_profile(PROFILES / f"{name}.yaml")
    assert load_profile(name).name == name


def test_the_default_profile_is_sixteen_gpus() -> None:
    profile = load_profile(DEFAULT_PROFILE)
    assert profile.width == 16
    assert profile.shape("train", "gpu") == Resources(
        partition=None,
        qos=None,
        account=None,
        constraint=None,
        exclude=(),
        minutes=240,
        cpus=8,
        memory="64G",
        gpus=1,
        gpu_type="a100",
    )


def test_the_development_cluster_limits_tasks_to_what_its_host_can_run() -> None:
    profile = load_profile("devcluster")
    assert (profile.width, profile.nodes * profile.gpus_per_node) == (4, 16)
    assert (profile.shape("judge", "gpu").partition, profile.shape("merge", "cpu").partition) == (
        "gpu",
        "cpu",
    )
    changed = {**profile.model_dump(), "gpu": {"time": 2}}
    assert Profile.model_validate(changed).shape("judge", "gpu").minutes == 2


def test_the_examples_are_three_kinds_of_cluster() -> None:
    university, dgx, centre = map(load_profile, ("university-conda", "dgx-pyxis", "centre-apptainer"))
    assert university.container is None and any("conda activate" in line for line in university.setup)
    assert dgx.container is not None and dgx.container.kind == "pyxis"
    assert centre.container is not None and centre.container.kind == "apptainer"
    assert (centre.gpus_by, university.width, dgx.shape("train", "gpu").gpus) == ("gres", 8, 1)


def test_the_template_names_every_key_and_gives_the_defaults(tmp_path: Path) -> None:
    text = (PROFILES / "template.yaml").read_text()
    tree = yaml.safe_load(text)
    assert list(tree) == list(Profile.model_fields)
    assert list(tree["gpu"]) == list(tree["cpu"]) == list(Shape.model_fields)
    for name in chain(*sections()):
        assert f" {name}" in text
    shown = re.findall(r"^#     (\w+): ", text, re.MULTILINE)
    assert shown == list(Container.model_fields)

    template, bare = load_profile("template"), small(tmp_path, name="template", nodes=4)
    changed = {"gpu", "cpu"}
    assert template.model_dump(exclude=changed) == bare.model_dump(exclude=changed)
    assert template.shape("train", "gpu") == bare.shape("train", "gpu")
    assert template.shape("merge", "cpu") == bare.shape("merge", "cpu")


@pytest.mark.parametrize("section", [Profile, Shape, Container])
def test_every_number_is_bounded_and_every_section_closed(section: type[Rules]) -> None:
    assert section.model_config.get("extra") == "forbid"
    assert section.model_config.get("frozen") is True
    for name, field in section.model_fields.items():
        assert is_bounded(field.annotation, field.metadata), f"{section.__name__}.{name} takes any number"


def test_clusters_are_named_by_a_key_of_their_own(tmp_path: Path) -> None:
    assert small(tmp_path, clusters=["alpha", "beta-2"]).clusters == ("alpha", "beta-2")
    for option in ("clusters", "cluster"):
        with pytest.raises(
            SpartaError, match=f"{option} has its own key in a profile, clusters: set it there"
        ):
            small(tmp_path, sbatch={option: "alpha"})
    with pytest.raises(SpartaError, match="'a b' is not the name of a cluster, or all"):
        small(tmp_path, clusters=["a b"])
