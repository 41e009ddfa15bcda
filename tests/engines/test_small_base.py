"""`auto` on a GPU machine, for bases of which a GPU start costs more than the work."""

from pathlib import Path

import pytest
from support.engine_contract import settings

from sparta import toy
from sparta.engines import small_base
from sparta.engines.small_base import is_small, settled
from sparta.errors import SpartaError

EMBEDDED = Path(toy.__file__).parent / "weights" / "base"


@pytest.mark.parametrize("kind", ["auto", "hf"])
def test_a_small_base_works_on_the_cpu(kind: str) -> None:
    chosen = settled(settings(kind=kind, device="auto"), [str(EMBEDDED)])
    assert (chosen.kind, chosen.device) == ("hf", "cpu")


@pytest.mark.parametrize(
    "named", [{"kind": "vllm"}, {"kind": "auto", "device": "cuda"}, {"kind": "scripted"}], ids=str
)
def test_what_the_recipe_names_stays(named: dict[str, str]) -> None:
    given = settings(**{"device": "auto", **named})
    assert settled(given, [str(EMBEDDED)]) == given


def test_one_large_base_is_enough_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    with (large / "model.safetensors").open("wb") as file:
        file.truncate(small_base.SMALL_BYTES)
    given = settings(kind="auto", device="auto")
    assert settled(given, [str(EMBEDDED), str(large)]) == given
    assert not is_small(str(large))


def test_a_base_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="has no model.safetensors"):
        is_small(str(tmp_path))
