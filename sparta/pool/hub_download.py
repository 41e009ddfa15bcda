"""Downloads a recipe's models and data sets from the Hugging Face hub to where the recipe expects them, atomically.

That is sparta.recipes.pool.hub_folder, and sparta.recipes.data.hub_data_folder. What the hub's own cache has is linked, also without a network. Of models only safetensors weights are downloaded, no pickles, and code only if pool.trust_remote_code is set; of data sets only files of rows, and no code. An interrupted download resumes.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from pathlib import Path
from typing import Literal

import msgspec

from sparta.errors import SpartaError, first_line
from sparta.pool.hub_cache import Snapshot, require_whole, snapshot_of
from sparta.recipes.data import hub_data_folder
from sparta.recipes.pool import HUB, hub_folder, on_hub
from sparta.recipes.schema import Recipe
from sparta.screen import Screen
from sparta.store import files

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt")
"""Files of a repository's top folder: weights, configurations, chat template, tokenizer. `MODULES` are below it."""
MODULES = re.compile(r"[0-9]+_[A-Za-z]+/(?:config\.json|model\.safetensors)")
"""Files of a sentence-embedding model's further modules, such as 1_Pooling/config.json; the first module is the top folder."""
CODE = "*.py"
DUPLICATES = "consolidated*.safetensors"
"""A second copy of the weights, which some publishers add for another program."""
ROWS = (
    *("*.parquet", "*.arrow", "*.jsonl", "*.json", "*.csv", "*.tsv"),
    *("*.jsonl.gz", "*.json.gz", "*.csv.gz", "*.tsv.gz", "README.md"),
)
"""Files of a data set, in any folder: rows, and the page that says which of them are which split."""
CONFIGURATIONS = ("config.json", "adapter_config.json")
RECORD = "source.json"
"""Our own record in the folder. A file of that name in the repository is not downloaded."""
RECORD_OF_DATA = ".source.json"
"""That of a data set: files whose names begin with a dot are not rows to `datasets`."""


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """source.json of a downloaded model, .source.json of a data set.

    revision: as in the recipe; None for the newest. commit: of that revision. code: whether code files were included. files: bytes by name.
    """

    repository: str
    revision: str | None
    commit: str
    code: bool
    files: dict[str, int]


@dataclass(frozen=True)
class Wanted:
    """A repository to download to `folder`. code: whether code files are included; never for data sets."""

    kind: Literal["model", "dataset"]
    reference: str
    folder: Path
    code: bool = False

    @property
    def record(self) -> Path:
        return self.folder / (RECORD_OF_DATA if self.kind == "dataset" else RECORD)

    @property
    def page(self) -> str:
        return f"huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{on_hub(self.reference)[0]}"

    @property
    def folder_key(self) -> str:
        """The recipe key that puts the folder elsewhere."""
        return "data.folder" if self.kind == "dataset" else "pool.folder"


def wanted_by(recipe: Recipe) -> list[Wanted]:
    """The distinct models and data sets that `recipe` names as hub:OWNER/NAME[@REVISION]."""
    pool, data = recipe.pool, recipe.data
    models = [
        Wanted("model", reference, hub_folder(reference, pool.folder), pool.trust_remote_code)
        for reference in recipe.of_the_hub
    ]
    sets = [
        Wanted("dataset", reference, hub_data_folder(reference, data.folder)) for reference in data.of_the_hub
    ]
    return [*models, *sets]


def fetch(recipe: Recipe, update: bool, screen: Screen) -> None:
    """Download every base, adapter and data set that `recipe` names as hub:OWNER/NAME[@REVISION], unless it exists.

    update: also look for newer commits of existing ones. Raises SpartaError naming the first that fails; earlier downloads stay.
    """
    repositories = wanted_by(recipe)
    for number, wanted in enumerate(repositories, start=1):
        outcome = _fetch(wanted, update, screen)
        name = wanted.reference.removeprefix(HUB)
        screen.say(f"[{number}/{len(repositories)}] {name}: {outcome} {wanted.folder}")


def _fetch(wanted: Wanted, update: bool, screen: Screen) -> str:
    """Download one repository if necessary. Returns the outcome in words."""
    reference, folder, code = wanted.reference, wanted.folder, wanted.code
    known = _downloaded(wanted)
    if known is not None and not update and known.code >= code:
        return "is there already,"
    if known is None and folder.exists() and not wanted.record.is_file():
        by_hand = CONFIGURATIONS if wanted.kind == "model" else ROWS
        if not update and any(next(folder.glob(f"**/{name}"), None) for name in by_hand):
            return "is there already, put by hand, in"
        raise SpartaError(
            f"{folder} exists but was not fetched by this command: move it away to fetch {reference}"
        )
    repository, revision = on_hub(reference)
    from huggingface_hub import HfApi

    try:
        ask = HfApi().model_info if wanted.kind == "model" else HfApi().dataset_info
        try:
            info = ask(repository, revision=revision, files_metadata=True, timeout=30)
        except Exception as error:
            cached = (
                None if update or not _unreachable(error) else snapshot_of(wanted.kind, *on_hub(reference))
            )
            if cached is None:
                raise
            _link(cached, wanted, screen)
            return "linked from the hub's cache to"
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        fetched = Fetched(repository, revision, info.sha or "", code, _chosen(wanted, sizes))
        if known == fetched:
            return "is there already, and the newest,"
        _download(fetched, wanted, screen)
    except SpartaError:
        raise
    # The library raises a dozen types, which change between versions; unknown ones are shown in its own words.
    except Exception as error:
        raise _explained(error, wanted) from error
    return "fetched to"


def _downloaded(wanted: Wanted) -> Fetched | None:
    """The record of a complete download; None if there is none, or a file is missing."""
    if not wanted.record.is_file():
        return None
    known = files.read_json(wanted.record, Fetched)
    return known if all(_whole(wanted.folder / name, size) for name, size in known.files.items()) else None


def _whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _of_use(wanted: Wanted, sizes: Mapping[str, int]) -> dict[str, int]:
    """Those of the repository's files that are downloaded."""
    if wanted.kind == "dataset":
        return {
            name: size
            for name, size in sorted(sizes.items())
            if any(fnmatch(name, pattern) for pattern in ROWS) and name != RECORD_OF_DATA
        }
    patterns = (*PATTERNS, *([CODE] if wanted.code else []))
    return {
        name: size
        for name, size in sorted(sizes.items())
        if (
            ("/" not in name and any(fnmatch(name, pattern) for pattern in patterns))
            or MODULES.fullmatch(name)
        )
        and not fnmatch(name, DUPLICATES)
        and name != RECORD
    }


def _chosen(wanted: Wanted, sizes: Mapping[str, int]) -> dict[str, int]:
    """The repository's files to download. Raises SpartaError if they are not what is wanted."""
    reference, chosen = wanted.reference, _of_use(wanted, sizes)
    if wanted.kind == "dataset":
        if not set(chosen) - {"README.md"}:
            raise SpartaError(
                f"{reference} has no files of rows ({', '.join(ROWS[:6])}): name a revision that has them, or write the rows to a file and name it"
            )
        return chosen
    if not any(name.endswith(".safetensors") for name in chosen):
        others = [name for name in sizes if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt", ".gguf"))]
        has = f"its weights are {', '.join(sorted(others)[:3])}" if others else "it has no weights"
        raise SpartaError(
            f"{reference} has no safetensors ({has}): name a repository or a revision that has them, or convert the weights and name the folder"
        )
    if not set(CONFIGURATIONS) & set(chosen):
        raise SpartaError(
            f"{reference} has neither {' nor '.join(CONFIGURATIONS)}: it is neither a transformers model nor a PEFT adapter, name another"
        )
    return chosen


def _download(fetched: Fetched, wanted: Wanted, screen: Screen) -> None:
    """Download the files to a folder beside `folder`, which the next attempt resumes, and replace `folder` once they are complete."""
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    folder = wanted.folder
    part = _part(folder, fetched.commit)
    part.mkdir(parents=True, exist_ok=True)
    total = sum(fetched.files.values())
    if cached := snapshot_of(wanted.kind, fetched.repository, fetched.commit):
        _take(cached, fetched, part)
    absent = {name: size for name, size in fetched.files.items() if not _whole(part / name, size)}
    missing = sum(absent.values())
    if missing > (free := shutil.disk_usage(part).free):
        raise SpartaError(
            f"{fetched.repository} needs {_size(missing)} more, but the disk of {folder.parent} has {_size(free)} free: free space, or set "
            f"{wanted.folder_key} to a folder on a larger disk"
        )
    here = f", of which {_size(total - missing)} are here already" if missing < total else ""
    screen.say(
        f"{fetched.repository} at {fetched.commit[:12]}: {_size(total)} in {len(fetched.files)} files{here}"
    )
    if not screen.console.is_terminal:
        disable_progress_bars()
    if absent:
        huggingface_hub.snapshot_download(
            fetched.repository,
            repo_type=wanted.kind,
            revision=fetched.commit,
            local_dir=part,
            # Otherwise the library copies what we refused, from the cache that we looked into.
            cache_dir=part / ".cache",
            allow_patterns=[escape(name) for name in absent],
        )
    # If the hub fails, the library may accept an incomplete folder.
    for name, size in fetched.files.items():
        if not _whole(part / name, size):
            raise SpartaError(
                f"{fetched.repository}: the download of {name} is incomplete: type the same command again"
            )
    files.write_json(part / wanted.record.name, fetched)
    _put(part, folder)


def _link(cached: Snapshot, wanted: Wanted, screen: Screen) -> None:
    """Make `folder` from the hub's cache alone. Raises SpartaError if a file is missing there, or damaged."""
    repository, revision = on_hub(wanted.reference)
    known = cached.listing or cached.sizes
    # Of a part, the remedies for a repository without weights would be wrong.
    require_whole(cached, wanted.reference, _of_use(wanted, known), wanted.code)
    chosen = _chosen(wanted, known)
    fetched = Fetched(repository, revision, cached.commit, wanted.code, chosen)
    part = _part(wanted.folder, cached.commit)
    part.mkdir(parents=True, exist_ok=True)
    screen.say(f"{repository} at {cached.commit[:12]}: the hub cannot be reached, its cache has this commit")
    _take(cached, fetched, part)
    for name, size in chosen.items():
        if not _whole(part / name, size):
            path = cached.folder / name
            why = (
                f"cannot be taken from the hub's cache ({path} is a copy and no link, so no hash says whether it is whole)"
                if cached.hash_of(name) is None
                else f"is damaged in the hub's cache ({path} has another content than its hash says)"
            )
            raise SpartaError(f"{wanted.reference} {why}: fetch it where there is a network")
    files.write_json(part / wanted.record.name, fetched)
    _put(part, wanted.folder)


def _take(cached: Snapshot, fetched: Fetched, part: Path) -> None:
    """Put into `part` what the cache has of the files, sound and whole, and `part` has not."""
    for name, size in fetched.files.items():
        if cached.sizes.get(name) == size and not _whole(part / name, size):
            (part / name).unlink(missing_ok=True)
            cached.take(name, part / name)


def _unreachable(error: Exception) -> bool:
    """Whether the hub gave no answer, or none that says anything about the repository."""
    from huggingface_hub import errors

    return not isinstance(error, errors.HfHubHTTPError) or error.response.status_code >= 500


def _put(part: Path, folder: Path) -> None:
    """Replace `folder` by `part`. If killed in between, `part` is complete, and the next attempt only moves it."""
    old = _part(folder, "old")
    if folder.exists():
        files.remove(old)
        folder.rename(old)
    files.move_tree(part, folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for rest in folder.parent.glob(f"{escape(_part(folder, '').name)}*"):
        shutil.rmtree(rest, ignore_errors=True)


def _part(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.part-{what}")


def _explained(error: Exception, wanted: Wanted) -> SpartaError:
    """The error for a failed download, in one sentence."""
    from huggingface_hub import errors

    reference, folder, page = wanted.reference, wanted.folder, wanted.page
    _, revision = on_hub(reference)
    match error:
        case errors.GatedRepoError():
            return SpartaError(
                f"{reference} is gated: accept its terms at {page}, set HF_TOKEN to a token of that account, and type the same command again"
            )
        case errors.RepositoryNotFoundError():
            return SpartaError(
                f"{reference} is not on the hub, or is private: check the name at {page}; for a private one set HF_TOKEN"
            )
        case errors.RevisionNotFoundError():
            return SpartaError(
                f"{reference}: the repository has no revision {revision}: name a branch, tag or commit of {page}, or none for the newest"
            )
        case errors.OfflineModeIsEnabled():
            return SpartaError(
                f"{reference} is not in {folder}, and HF_HUB_OFFLINE forbids fetching it: unset that, or copy the folder there from a "
                "machine with a network"
            )
        case errors.HfHubHTTPError() if error.response is not None and error.response.status_code in (
            401,
            403,
        ):
            return SpartaError(
                f"the hub denies access to {reference} ({error.response.status_code}): set HF_TOKEN to a token that may read it"
            )
        case OSError() if error.errno is not None and not isinstance(error, errors.HfHubHTTPError):
            return files.explain(error, folder)
    return SpartaError(
        f"{reference} could not be fetched ({in_its_words(error)}): try again from a machine that can reach the hub (the download resumes), or copy the folder "
        f"to {folder} from such a machine"
    )


def in_its_words(error: Exception) -> str:
    """The first line of an error of the hub's library, without queries of addresses, which may contain signatures."""
    return re.sub(r"\?\S+", "", first_line(error))


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
