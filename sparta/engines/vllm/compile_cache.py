"""Where vLLM keeps what it has compiled: its own folder below the home directory, which all nodes of a cluster usually share."""

import os
import tempfile
from pathlib import Path

from sparta.errors import note


def cache_root(spare: Path) -> Path:
    """The folder for `VLLM_CACHE_ROOT`: the one that the environment names, or vLLM's own. `spare`, with a note, if that cannot be written.

    vLLM would stop at such a folder. With `spare`, which is empty, it compiles everything again, which takes a minute or two.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get("VLLM_CACHE_ROOT") or Path(home) / "vllm").expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        note(
            f"vLLM cannot keep what it compiles in {root} ({error.strerror or error}), so every start compiles it again: set VLLM_CACHE_ROOT to a "
            "folder that all nodes can write, for example in the profile's setup"
        )
        return spare
    return root
