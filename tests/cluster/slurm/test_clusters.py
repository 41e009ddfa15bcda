"""Several clusters: a job is queried, released and cancelled on its own cluster, even if another cluster uses its number."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.fake_slurm import FakeSlurm
from support.scripted_run import ROOT, advance, begin

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.sharding import shard_items
from sparta.cluster.slurm import cli, detached, queue
from sparta.cluster.slurm.cli import cluster_of, job_on, number_of
from sparta.cluster.slurm.job_ids import ArrayPart, Jobs, jobs_file, jobs_of, note_jobs
from sparta.cluster.slurm.launcher import Slurm
from sparta.commands import cancel
from sparta.errors import SpartaError
from sparta.phases.generate import Generate
from sparta.recipes.load import adjust
from sparta.store import files
from sparta.store.driver_jobs import DriverJob, DriverJobs, driver_jobs, drivers_file
from sparta.store.run import Run

Begun = Callable[..., Run]


def forget() -> None:
    """What a process has learned of its cluster."""
    for known in (cli.known_clusters, cli.largest_array, cli._keeps_accounts):
        known.cache_clear()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    forget()
    yield FakeSlurm(tmp_path, monkeypatch)
    forget()


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    """A run with an iteration that is planned, and a profile that names these clusters."""

    def make(*clusters: str, **profile: object) -> Run:
        run = begin(tmp_path, combats=4)
        advance(run, 1, upto="plan")
        told = yaml.safe_load((ROOT / "slurm" / "profiles" / "devcluster.yaml").read_text())
        path = tmp_path / "profile.yaml"
        told |= {"clusters": list(clusters), "poll_seconds": 0.01, **profile}
        path.write_text(yaml.safe_dump(told))
        run.recipe = adjust(run.recipe, ["cluster.kind=slurm", f"cluster.profile={path}", "cluster.tasks=4"])
        return run

    return make


def submitted(run: Run, tasks: int = 4) -> tuple[Slurm, AttemptDir]:
    launcher, attempts = Slurm(run), AttemptDir(run, Generate(), 1)
    attempt = attempts.assign(shard_items(Generate().missing(run, 1), tasks), "slurm")
    launcher.start(attempts, attempt, lambda *_: None)
    return launcher, attempts


def test_a_job_is_its_number_and_where_it_is() -> None:
    assert [job_on("12_3", None), job_on("12_3", "alpha")] == ["12_3", "12_3@alpha"]
    assert (number_of("12_3@alpha"), cluster_of("12_3@alpha"), cluster_of("12_3")) == ("12_3", "alpha", None)
    entry = cli.QueueEntry("name", "12_3@alpha", 3, "RUNNING", "", "", "")
    assert entry.whole == "12@alpha"


# --- the choice


def test_the_clusters_of_the_profile_are_those_that_sbatch_chooses_from(
    slurm: FakeSlurm, begun: Begun
) -> None:
    _, attempts = submitted(begun("alpha", "beta"))
    script = (attempts.logs / "100_submission.sh").read_text()
    assert "#SBATCH --clusters=alpha,beta\n" in script
    assert jobs_of(attempts, 0) == Jobs(
        [ArrayPart(slurm.jobs[0]["name"], 0, 4, "100@beta", ("alpha", "beta"))]
    )


@pytest.mark.parametrize("variable", ["SLURM_CLUSTERS", "SBATCH_CLUSTERS"])
def test_a_persons_own_choice_is_kept_and_no_task_inherits_it(
    variable: str, slurm: FakeSlurm, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "beta, alpha")
    _, attempts = submitted(begun())
    assert "#SBATCH --clusters=beta,alpha\n" in (attempts.logs / "100_submission.sh").read_text()
    [asked] = slurm.asked("sbatch")
    assert variable not in asked


def test_the_profile_comes_before_the_environment(
    slurm: FakeSlurm, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CLUSTERS", "beta")
    submitted(begun("alpha"))
    assert {job["cluster"] for job in slurm.jobs} == {"alpha"}


def test_a_single_cluster_is_never_named(slurm: FakeSlurm, begun: Begun) -> None:
    slurm.set(clusters=["alpha"])
    launcher, attempts = submitted(begun())
    launcher.check([Generate()])
    assert launcher.running(attempts, attempts.all()[0]) == [0, 1, 2, 3]
    assert "clusters" not in (attempts.logs / "100_submission.sh").read_text()
    for command in ("sbatch", "squeue", "scontrol", "sinfo"):
        assert not any("clusters" in word for call in slurm.asked(command) for word in call)


def test_all_means_the_clusters_that_accounting_knows(slurm: FakeSlurm, begun: Begun) -> None:
    _, attempts = submitted(begun("all"))
    assert jobs_of(attempts, 0) == Jobs(
        [ArrayPart(slurm.jobs[0]["name"], 0, 4, "100@beta", ("alpha", "beta"))]
    )


def test_an_array_fits_the_smallest_of_the_clusters(slurm: FakeSlurm, begun: Begun) -> None:
    slurm.set(largest={"alpha": 1001, "beta": 3})
    _, attempts = submitted(begun("alpha", "beta"))
    noted = jobs_of(attempts, 0)
    assert noted is not None and [part.count for part in noted.parts] == [2, 2]


def test_a_partition_may_be_on_one_of_the_clusters_alone(slurm: FakeSlurm, begun: Begun) -> None:
    slurm.set(partitions={"alpha": {"cpu": "1:00:00"}, "beta": {"gpu": "1:00"}})
    with pytest.raises(SpartaError, match="asks for 10 min for generate, and partition gpu allows 1"):
        Slurm(begun("alpha", "beta")).check([Generate()])
    with pytest.raises(SpartaError, match="to partition gpu, which no chosen cluster has .on alpha: cpu"):
        Slurm(begun("alpha")).check([Generate()])
    slurm.set(partitions={"alpha": {"cpu": "1:00:00"}, "beta": {"gpu": "10:00"}})
    Slurm(begun("alpha", "beta")).check([Generate()])


# --- what sbatch says


@pytest.mark.parametrize(
    ("answer", "clusters", "job"),
    [
        ("Submitted batch job {number} on cluster {cluster}", ["alpha", "beta"], "100@beta"),
        ("{number};{cluster}", ["alpha", "beta"], "100@beta"),
        ("{number}", [], "100@alpha"),
        ("Submitted batch job {number}", [], "100@alpha"),
        # Said although no cluster was asked for: where clusters are federated.
        ("Submitted batch job {number} on cluster beta", [], "100@beta"),
        ("Submitted batch job {number}", ["beta"], "100@beta"),
        # Where is not said: squeue knows.
        ("Submitted batch job {number}", ["alpha", "beta"], "100@beta"),
        ("Thank you.", ["alpha", "beta"], "100@beta"),
    ],
)
def test_the_cluster_is_read_from_sbatchs_answer_or_found(
    answer: str, clusters: list[str], job: str, slurm: FakeSlurm, begun: Begun
) -> None:
    slurm.set(answer=answer)
    _, attempts = submitted(begun(*clusters))
    noted = jobs_of(attempts, 0)
    assert noted is not None and noted.ids == [job]
    assert (attempts.logs / f"{number_of(job)}_0_submitted.pkl").is_file()


def test_one_job_number_on_two_clusters_is_refused_before_tasks_swap_their_work(
    slurm: FakeSlurm, begun: Begun
) -> None:
    """Arrays of one attempt on two clusters, which count for themselves: their files have one name."""
    slurm.set(largest={"alpha": 2, "beta": 2}, turns=["beta", "alpha"])
    with pytest.raises(
        SpartaError, match="job 100@alpha has the same number as a job .* run the same command"
    ):
        submitted(begun("alpha", "beta"))
    assert {job["cluster"]: job["state"] for job in slurm.jobs} == {"beta": "PENDING", "alpha": "CANCELLED"}


# --- what becomes of jobs


def test_a_job_is_asked_about_and_cancelled_on_its_cluster_alone(slurm: FakeSlurm, begun: Begun) -> None:
    run = begun("alpha", "beta")
    launcher, attempts = submitted(run)
    # Somebody's job on the other cluster has its number and, by a copy of the state, its name.
    slurm.set(jobs=[*slurm.jobs, *({**job, "cluster": "alpha"} for job in slurm.jobs)])
    slurm.asked("squeue")
    assert launcher.running(attempts, attempts.all()[0]) == [0, 1, 2, 3]
    assert cancel.cancel_all(run) == 4
    assert {call[0] for call in slurm.asked("squeue")} == {"--clusters=beta"}
    assert slurm.asked("scancel") == [["--clusters=beta", "100_0", "100_1", "100_2", "100_3"]]
    assert {(job["cluster"], job["state"]) for job in slurm.jobs} == {
        ("beta", "CANCELLED"),
        ("alpha", "PENDING"),
    }


def test_a_job_whose_cluster_is_unknown_is_searched_on_all_that_may_have_it(
    slurm: FakeSlurm, begun: Begun
) -> None:
    """The driver was killed before it had noted the job."""
    run = begun("alpha", "beta")
    _, attempts = submitted(run)
    noted = jobs_of(attempts, 0)
    assert noted is not None
    [part] = noted.parts
    note_jobs([(attempts, 0)], Jobs([ArrayPart(part.name, 0, 4, None, part.clusters)]))
    (attempts.logs / "100_0_submitted.pkl").unlink()
    slurm.asked("squeue")
    found = queue.ask(run, set()).of(attempts, 0)
    assert [task.job for task in found.values()] == [f"100_{shard}@beta" for shard in range(4)]
    assert [call[0] for call in slurm.asked("squeue")] == ["--clusters=alpha", "--clusters=beta"]
    # One that got no work is withdrawn where it is.
    assert Slurm(run).running(attempts, attempts.all()[0]) == [1, 2, 3]
    assert slurm.asked("scancel") == [["--clusters=beta", "100_0"]]


def test_a_cluster_that_does_not_answer_is_an_error_and_not_an_empty_queue(
    slurm: FakeSlurm, begun: Begun
) -> None:
    run = begun("alpha", "beta")
    launcher, attempts = submitted(run)
    slurm.set(down=["beta"])
    assert queue.ask(run, set()).silence == "Unable to contact slurm controller (connect failure)"
    with pytest.raises(SpartaError, match="SLURM does not answer .Unable to contact"):
        cancel.cancel_all(run)
    # The other one's silence is none of its business.
    slurm.set(down=["alpha"])
    assert launcher.running(attempts, attempts.all()[0]) == [0, 1, 2, 3]


def test_a_state_of_an_earlier_version_that_notes_no_cluster_stays_readable(
    slurm: FakeSlurm, begun: Begun
) -> None:
    run = begun("alpha", "beta")
    attempts = AttemptDir(run, Generate(), 1)
    attempt = attempts.assign(shard_items(Generate().missing(run, 1), 4), "slurm")
    old = {"parts": [{"name": "n", "first": 0, "count": 4, "job": "7"}]}
    jobs_file(attempts, 0).write_text(json.dumps(old))
    assert jobs_of(attempts, 0) == Jobs([ArrayPart("n", 0, 4, "7")])
    chain = {"links": [["generate 1", ["7"]]], "names": ["n"], "whole": True, "last": 1, "submitted": 1.0}
    detached.chain_file(run.state).write_text(json.dumps(chain))
    assert detached.latest_chain(run) is not None
    code = str(run.state.jobs / "code" / "x")
    (run.state.jobs / "code").mkdir()
    job = {
        "cluster": "alpha",
        "job": 7,
        "array": True,
        "name": "n",
        "folder": code,
        "state": "RUNNING",
        "reason": "None",
    }
    slurm.set(jobs=[{**job, "element": element} for element in range(4)])
    assert Slurm(run).running(attempts, attempt) == [0, 1, 2, 3]
    assert {call[0] for call in slurm.asked("squeue")} == {"--all"}


def test_a_state_looked_at_from_another_cluster_still_asks_where_its_jobs_are(
    slurm: FakeSlurm, begun: Begun
) -> None:
    """Submitted without a choice, where alpha is the cluster that commands ask by themselves."""
    run = begun()
    _, attempts = submitted(run)
    assert "clusters" not in (attempts.logs / "100_submission.sh").read_text()
    forget()
    slurm.set(own="beta")
    assert Slurm(run).running(attempts, attempts.all()[0]) == [0, 1, 2, 3]
    assert cancel.cancel_all(run) == 4
    assert slurm.asked("scancel")[0][0] == "--clusters=alpha"


# --- detached


def test_a_detached_launch_is_on_one_cluster_as_its_jobs_depend_on_each_other(
    slurm: FakeSlurm, begun: Begun
) -> None:
    run = begun("alpha", "beta")
    launcher = Slurm(run)
    links = detached.links_from(run, 1, 2, lambda phase: 4)
    slurm.set(turns=["beta"])
    chain = detached.submit_chain(run, launcher, links, 2)
    ids = [job for _, found in chain.links for job in found]
    assert len(ids) == len(links) > 5 and {cluster_of(job) for job in ids} == {"beta"}
    dependencies = [job["dependency"] for job in slurm.jobs if job["element"] == 0]
    assert dependencies == [None, *(f"afterok:{number_of(job)}" for job in ids[:-1])]
    assert slurm.asked("scontrol")[-1] == ["--clusters=beta", "release", number_of(ids[0])]
    assert detached.is_intact(chain, detached.jobs_in_slurm(run))


def test_an_unfinished_submission_is_cancelled_on_all_its_clusters(slurm: FakeSlurm, begun: Begun) -> None:
    run = begun("alpha", "beta")
    launcher = Slurm(run)
    links = detached.links_from(run, 1, 1, lambda phase: 4)
    chain = detached.submit_chain(run, launcher, links, 1)
    files.write_json(
        detached.chain_file(run.state),
        detached.Chain(chain.links, chain.names, False, 1, chain.submitted, chain.clusters),
    )
    detached.cancel_unfinished(run)
    assert {job["state"] for job in slurm.jobs} == {"CANCELLED"}


# --- drivers


def test_a_driver_job_is_ended_on_its_cluster(slurm: FakeSlurm, begun: Begun) -> None:
    run = begun()
    noted = DriverJobs(str(run.state.root.absolute()), [DriverJob("100", "sparta-driver", "beta")])
    files.write_json(drivers_file(run.state), noted)
    job = {"job": 100, "element": 0, "array": False, "folder": "/", "state": "RUNNING", "reason": "None"}
    slurm.set(
        jobs=[
            {**job, "cluster": "alpha", "name": "sparta-driver"},
            {**job, "cluster": "beta", "name": "sparta-driver"},
        ]
    )
    said: list[str] = []
    cancel.end_drivers(run.state, said.append)
    assert said == ["Ending job 100@beta (sparta-driver), which was queued to continue this run."]
    assert {job["cluster"]: job["state"] for job in slurm.jobs} == {"alpha": "RUNNING", "beta": "CANCELLED"}


def test_a_driver_job_on_a_single_cluster_is_queried_without_naming_it(
    slurm: FakeSlurm, begun: Begun
) -> None:
    run = begun()
    drivers = [DriverJob("100", "sparta-driver", "alpha"), DriverJob("101", "sparta-driver")]
    files.write_json(drivers_file(run.state), DriverJobs(str(run.state.root.absolute()), drivers))
    assert driver_jobs(run.state) == drivers
    slurm.set(clusters=["alpha"])
    cancel.end_drivers(run.state, print)
    assert all("--clusters" not in word for call in slurm.asked("squeue") for word in call)
