"""What a person requests of a study, and how the study is found: a file, a name, or the folder of a study that has begun."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sparta.cluster.registry import at_rates_of
from sparta.errors import SpartaError
from sparta.names import DEFAULT_STATE, ClusterKind
from sparta.store import files
from sparta.store.disk import present
from sparta.studies.estimate import Where
from sparta.studies.grid import Grid, expanded
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import read_manifest
from sparta.studies.study_file import find_study, load_study

FOLDER = DEFAULT_STATE / "studies"


@dataclass(frozen=True)
class StudyRequest:
    """What a person typed. None: not given. cell: run this cell alone, in this process; share: GPUs or cores that it has."""

    study: str
    state: Path | None = None
    cluster: ClusterKind | None = None
    profile: str | None = None
    limit: int | None = None
    dry_run: bool = False
    status: bool = False
    table: bool = False
    json: bool = False
    cancel: bool = False
    detach: bool = False
    fetch: bool = False
    cell: str | None = None
    share: int = 1

    @property
    def where(self) -> Where:
        return Where(self.cluster, self.profile)


@dataclass(frozen=True)
class OpenStudy:
    """A study with its folder. text: the study file, byte for byte."""

    place: StudyDir
    grid: Grid
    text: bytes


def is_study(folder: Path) -> bool:
    """Whether a study has begun in `folder`."""
    return present(StudyDir(folder).manifest)


def opened_study(request: StudyRequest) -> OpenStudy:
    """The requested study. Writes nothing. Raises SpartaError for a study file that cannot be expanded."""
    given = Path(request.study)
    if given.is_dir() and is_study(given):
        if request.state is not None and request.state.resolve() != given.resolve():
            raise SpartaError(f"{given} is the folder of a study itself: leave --state out")
        place = StudyDir(given.resolve())
        path, source = place.study_yaml, Path(read_manifest(place).source)
    else:
        path = source = find_study(request.study)
        place = StudyDir((request.state or FOLDER / load_study(path).name).resolve())
    study = load_study(path)
    if request.limit is not None:
        if request.limit < 1:
            raise SpartaError(
                f"--limit is {request.limit}, and {request.limit} GPUs run nothing: give 1 or more"
            )
        study = study.model_copy(update={"limit": request.limit})
    # Before recipes are stored, which then say every rate.
    grid = expanded(study, source, place).with_recipes(partial(at_rates_of, request.profile))
    return OpenStudy(place, grid, files.read_bytes(path))
