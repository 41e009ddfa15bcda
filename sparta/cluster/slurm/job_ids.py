"""The SLURM jobs of an attempt. Their names contain run, phase and attempt, and are on disk before submission, so every job can be found."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.cli import QueueEntry, cluster_of, job_on, number_of
from sparta.store import files
from sparta.store.disk import present
from sparta.store.driver_jobs import same_folder
from sparta.store.run import Run


class ArrayPart(msgspec.Struct, frozen=True):
    """One array of an attempt: shards first to first + count - 1. job: its id (`cli.job_on`), None until sbatch has returned it.

    clusters: those that may have it; empty: the default cluster of SLURM's commands.
    """

    name: str
    first: int
    count: int
    job: str | None = None
    clusters: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str | None, ...]:
        """The clusters to ask about it: the one that has it, or all that may have it."""
        return (cluster_of(self.job),) if self.job is not None else self.clusters or (None,)


class Jobs(msgspec.Struct, frozen=True):
    """jobs/<place>/aN-jobs.json. aN.json may not exist yet: a detached launch assigns keys once the work that they depend on is done."""

    parts: list[ArrayPart]

    @property
    def names(self) -> list[str]:
        return [part.name for part in self.parts]

    @property
    def ids(self) -> list[str]:
        return [part.job for part in self.parts if part.job is not None]

    def id_of(self, shard: int) -> str | None:
        """The job or array task of `shard`, in SLURM's notation."""
        for part in self.parts:
            if part.job is not None and part.first <= shard < part.first + part.count:
                element = f"_{shard - part.first}" if part.count > 1 else ""
                return job_on(f"{number_of(part.job)}{element}", cluster_of(part.job))
        return None

    def by_shard(self, tasks: Iterable[QueueEntry]) -> dict[int, QueueEntry]:
        """The entries of `tasks` that belong to these jobs, by shard. After a rollback two jobs may have one name: the noted or live one counts."""
        parts = {part.name: part for part in self.parts}
        found = {}
        for task in sorted(tasks, key=lambda task: task.live):
            part = parts.get(task.name)
            if part is not None and part.job in (None, task.whole):
                found[part.first + task.element] = task
        return found


def names_and_places(known: Iterable[Jobs]) -> tuple[frozenset[str], frozenset[str | None]]:
    """The names of these jobs, and the clusters to ask about them."""
    parts = [part for jobs in known for part in jobs.parts]
    return frozenset(part.name for part in parts), frozenset(place for part in parts for place in part.places)


def noted_jobs(run: Run) -> list[Jobs]:
    """The jobs of every attempt of `run`."""
    return [read_jobs(path) for path in sorted(run.state.jobs.rglob("a*-jobs.json"))]


def of_this_state(code: Path, tasks: Iterable[QueueEntry]) -> list[QueueEntry]:
    """The entries of `tasks` that run a copy of the package below `code`, a state's jobs/code.

    A copied state has the same run id, job names and notes of jobs as the original. Only a job's working directory tells the two apart.
    """
    found = list(tasks)
    here = {folder for folder in {task.folder for task in found} if same_folder(Path(folder).parent, code)}
    return [task for task in found if task.folder in here]


def jobs_file(attempts: AttemptDir, number: int) -> Path:
    """The file with the jobs of attempt `number`."""
    return attempts.folder / f"a{number}-jobs.json"


def note_jobs(places: Sequence[tuple[AttemptDir, int]], jobs: Jobs) -> None:
    """Write `jobs` as the jobs of these attempts."""
    for attempts, number in places:
        files.write_json(jobs_file(attempts, number), jobs)


def jobs_of(attempts: AttemptDir, number: int) -> Jobs | None:
    """The jobs of attempt `number`; None where none were submitted for it."""
    path = jobs_file(attempts, number)
    return read_jobs(path) if present(path) else None


def all_jobs(attempts: AttemptDir) -> dict[int, Jobs]:
    """The jobs of all attempts by number, including attempts whose keys are not assigned yet."""
    paths = {
        int(path.name[1:].partition("-")[0]): path for path in sorted(attempts.folder.glob("a*-jobs.json"))
    }
    return {number: read_jobs(path) for number, path in sorted(paths.items())}


def read_jobs(path: Path) -> Jobs:
    """What a `jobs_file` says. Raises SpartaError where it is damaged: jobs that nobody knows of would do their work a second time."""
    remedy = "end the jobs of this attempt if SLURM still has any (squeue --me), remove the file and run the same command again"
    return files.read_json(path, Jobs, remedy)


def parts_of(name: str, shards: int, largest: int, width: int) -> list[ArrayPart]:
    """Split `shards` into arrays of at most `largest` tasks, so that with `width` tasks at once they take no longer than one array would.

    Uses the fewest arrays with that property; each gets tasks in proportion to its share of `width`. Where even the fewest are more than `width`,
    they are about equal (`sparta.cluster.slurm.submit.throttles` refuses them).
    """
    fewest = -(-shards // largest)
    sizes = _cut(shards, fewest)
    for count in range(fewest, min(width, shards) + 1):
        together = min(width, shards)
        ends = [shards * end // together for end in accumulate(_cut(together, count))]
        sizes = [end - first for first, end in pairwise([0, *ends])]
        if max(sizes) <= largest:
            break
    return [
        ArrayPart(f"{name}.{part}" if len(sizes) > 1 else name, first, end - first)
        for part, (first, end) in enumerate(pairwise([0, *accumulate(sizes)]))
    ]


def _cut(whole: int, count: int) -> list[int]:
    """Split `whole` into `count` about equal parts, the larger ones first."""
    return [whole // count + (part < whole % count) for part in range(count)]


def prefix(run: Run) -> str:
    """The prefix of all job names of `run`, and of no other run."""
    return f"sparta-{run.info.run_id}-"


def job_name(run: Run, attempts: AttemptDir, number: int) -> str:
    """The name of the jobs of attempt `number`."""
    place = attempts.phase.place(attempts.t).replace("/", "-")
    return f"{prefix(run)}{place}-a{number}"
