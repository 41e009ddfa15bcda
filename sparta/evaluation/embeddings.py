"""Sentence embeddings by a model in a folder, with sentence-transformers (appendix C.8: BAAI/bge-large-en-v1.5). Nothing is downloaded here."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sparta.errors import SpartaError
from sparta.names import installed_by, suggested
from sparta.pool.members import locate
from sparta.recipes.pool import HUB

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""From n texts to their embeddings [n, d]."""

MODEL_FILES = ("modules.json", "config.json", "model.safetensors")


def load_embedder(reference: str, folder: str | None = None) -> Embed:
    """The model that `reference` names: a folder, or hub:OWNER/NAME[@REVISION] that was fetched. folder: pool.folder of the recipe.

    Only safetensors weights are loaded, and no code of the model. Texts are cut at the model's own limit (512 tokens for bge). Raises SpartaError if
    the model or sentence-transformers is not there.
    """
    path = Path(locate(reference, folder))
    if not path.is_dir():
        setting = f"evaluation.embeddings={reference}"
        fetch = suggested("init_pool", "--recipe", "R", "--set", setting, "--fetch")
        remedy = f"fetch it with {fetch}" if reference.startswith(HUB) else "give the folder of a model"
        raise SpartaError(f"the embedding model {reference} is not in {path}: {remedy}")
    if missing := [name for name in MODEL_FILES if not (path / name).is_file()]:
        raise SpartaError(
            f"{path} has no {' and no '.join(missing)}, so it is not a sentence-transformers model with safetensors weights: name another"
        )
    if find_spec("sentence_transformers") is None:
        raise SpartaError(
            f"embeddings need sentence-transformers, which is not installed: {installed_by('embeddings')}"
        )
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(path),
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )

    def embed(texts: Sequence[str]) -> "NDArray[np.float32]":
        import numpy as np

        found = model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    return embed
