"""Uploads a model's folder to the Hugging Face hub: all its files in one commit, so that a repository never holds half a model."""

from pathlib import Path

from sparta.errors import SpartaError
from sparta.names import quoted
from sparta.pool.hub_download import in_its_words
from sparta.recipes.pool import names_one_of_hub
from sparta.screen import Screen

OF_THE_HUB = {".gitattributes"}
"""Files that the hub itself puts into a new repository."""


def require_token(repository: str) -> None:
    """Raises SpartaError where `repository` is not OWNER/NAME, or no token is set. The hub is not asked."""
    from huggingface_hub import get_token

    option = quoted("--push", repository)
    if not names_one_of_hub(repository) or "@" in repository:
        raise SpartaError(f"{option}: write it as OWNER/NAME")
    if get_token() is None:
        raise SpartaError(
            f"{option} needs a token of the hub that may write: set HF_TOKEN, or run `hf auth login`"
        )


def prepare_upload(repository: str) -> None:
    """Create the empty private repository OWNER/NAME, unless it exists. Nothing else is written anywhere.

    Raises SpartaError where the token may not write, where the repository exists and is not empty, and where the hub cannot be reached.
    """
    from huggingface_hub import HfApi, errors

    option, hub = quoted("--push", repository), HfApi()
    try:
        try:
            found = hub.model_info(repository, timeout=30)
        except errors.RepositoryNotFoundError:
            hub.create_repo(repository, private=True)
            return
        if {file.rfilename for file in found.siblings or ()} <= OF_THE_HUB:
            hub.auth_check(repository, write=True)
            return
    # The library raises a dozen types, which change between versions; unknown ones are shown in its own words.
    except Exception as error:
        raise SpartaError(f"{option}: {_why(error)}, and try again") from error
    raise SpartaError(
        f"{option}: {_page(repository)} exists and is not empty: name a new repository, or empty that one"
    )


def upload(folder: Path, repository: str, screen: Screen) -> str:
    """Upload all files of `folder` to `repository`, which `prepare_upload` has prepared. Returns the address of its page.

    Raises SpartaError with a command that uploads them later; then the repository stays empty.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not screen.console.is_terminal:
        disable_progress_bars()
    additions = [
        CommitOperationAdd(path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    try:
        # `upload_folder` would make several commits of a large folder.
        HfApi().create_commit(repository, additions, commit_message="Model of a Sparta Alignment run")
    # As above.
    except Exception as error:
        raise SpartaError(
            f"{folder} is complete, but was not uploaded to {_page(repository)}, which is still empty: {_why(error)}, and type "
            f"{quoted('hf', 'upload', repository, folder)}"
        ) from error
    return _page(repository)


def _page(repository: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


def _why(error: Exception) -> str:
    """Why the hub was not reached or refused, and what to do about it."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if status == 401:
        return "the hub does not know the token (401): set HF_TOKEN to a token of yours"
    if status == 403:
        return "the token may not write there (403): set HF_TOKEN to one with write access to this owner"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids it: unset that"
    return f"the hub could not be reached, or broke off ({in_its_words(error)}): check the network"
