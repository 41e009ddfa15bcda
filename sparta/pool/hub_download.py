"""Downloads a recipe's models from the Hugging Face hub to where the pool expects them (sparta.recipes.pool.hub_folder), atomically.

Only safetensors weights are downloaded, no pickles, and code only if pool.trust_remote_code is set. An interrupted download resumes.
"""

import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
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
CONFIGURATIONS = ("config.json", "adapter_config.json")
RECORD = "source.json"
"""Our own record in the folder. A file of that name in the repository is not downloaded."""


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """source.json of a downloaded folder.

    revision: as in the recipe; None for the newest. commit: of that revision. code: whether code files were included. files: bytes by name.
    """

    repository: str
    revision: str | None
    commit: str
    code: bool
    files: dict[str, int]


def fetch(recipe: Recipe, update: bool, screen: Screen) -> None:
    """Download every base and adapter that pool or evaluation judge name as hub:OWNER/NAME[@REVISION], unless it exists.

    update: also look for newer commits of existing ones. Raises SpartaError naming the first that fails; earlier downloads stay.
    """
    references = recipe.of_the_hub
    for number, reference in enumerate(references, start=1):
        folder = hub_folder(reference, recipe.pool.folder)
        outcome = _fetch(reference, folder, recipe.pool.trust_remote_code, update, screen)
        screen.say(f"[{number}/{len(references)}] {reference.removeprefix(HUB)}: {outcome} {folder}")


def _fetch(reference: str, folder: Path, code: bool, update: bool, screen: Screen) -> str:
    """Download one model if necessary. Returns the outcome in words."""
    known = _downloaded(folder)
    if known is not None and not update and known.code >= code:
        return "is there already,"
    if known is None and folder.exists() and not (folder / RECORD).is_file():
        if not update and any((folder / name).is_file() for name in CONFIGURATIONS):
            return "is there already, put by hand, in"
        raise SpartaError(
            f"{folder} exists but was not fetched by this command: move it away to fetch {reference}"
        )
    repository, revision = on_hub(reference)
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=30)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        fetched = Fetched(repository, revision, info.sha or "", code, _chosen(reference, sizes, code))
        if known == fetched:
            return "is there already, and the newest,"
        _download(fetched, folder, screen)
    except SpartaError:
        raise
    # The library raises a dozen types, which change between versions; unknown ones are shown in its own words.
    except Exception as error:
        raise _explained(error, reference, folder) from error
    return "fetched to"


def _downloaded(folder: Path) -> Fetched | None:
    """The record of a complete download in `folder`; None if there is none, or a file is missing."""
    if not (folder / RECORD).is_file():
        return None
    known = files.read_json(folder / RECORD, Fetched)
    return known if all(_whole(folder / name, size) for name, size in known.files.items()) else None


def _whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _chosen(reference: str, sizes: Mapping[str, int], code: bool) -> dict[str, int]:
    """The repository's files to download. Raises SpartaError if they are neither a model nor an adapter."""
    patterns = (*PATTERNS, *([CODE] if code else []))
    chosen = {
        name: size
        for name, size in sorted(sizes.items())
        if (
            ("/" not in name and any(fnmatch(name, pattern) for pattern in patterns))
            or MODULES.fullmatch(name)
        )
        and not fnmatch(name, DUPLICATES)
        and name != RECORD
    }
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


def _download(fetched: Fetched, folder: Path, screen: Screen) -> None:
    """Download the files to a folder beside `folder`, which the next attempt resumes, and replace `folder` once they are complete."""
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    part = _part(folder, fetched.commit)
    part.mkdir(parents=True, exist_ok=True)
    total = sum(fetched.files.values())
    missing = sum(size for name, size in fetched.files.items() if not _whole(part / name, size))
    if missing > (free := shutil.disk_usage(part).free):
        raise SpartaError(
            f"{fetched.repository} needs {_size(missing)} more, but the disk of {folder.parent} has {_size(free)} free: free space, or set "
            "pool.folder to a folder on a larger disk"
        )
    screen.say(f"{fetched.repository} at {fetched.commit[:12]}: {_size(total)} in {len(fetched.files)} files")
    if not screen.console.is_terminal:
        disable_progress_bars()
    huggingface_hub.snapshot_download(
        fetched.repository,
        revision=fetched.commit,
        local_dir=part,
        allow_patterns=[escape(name) for name in fetched.files],
    )
    # If the hub fails, the library may accept an incomplete folder.
    for name, size in fetched.files.items():
        if not _whole(part / name, size):
            raise SpartaError(
                f"{fetched.repository}: the download of {name} is incomplete: type the same command again"
            )
    files.write_json(part / RECORD, fetched)
    _put(part, folder)


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


def _explained(error: Exception, reference: str, folder: Path) -> SpartaError:
    """The error for a failed download of `reference`, in one sentence."""
    from huggingface_hub import errors

    repository, revision = on_hub(reference)
    page = f"huggingface.co/{repository}"
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
    # A URL's query may contain a signature.
    first = re.sub(r"\?\S+", "", (str(error).strip().splitlines() or [type(error).__name__])[0])
    return SpartaError(
        f"{reference} could not be fetched ({first}): try again from a machine that can reach the hub (the download resumes), or copy the folder "
        f"to {folder} from such a machine"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
