"""The stages of vLLM's start, as its processes write them down."""

import json
from pathlib import Path

import pytest

from sparta.engines.vllm.start_stages import stages_in


@pytest.mark.parametrize(
    ("noted", "stages"),
    [
        (
            {
                "__init__": 12,
                "determine_available_memory": 50,
                "compile_or_warm_up_model": 25,
                "compilation": 40,
            },
            {"start weights": 12, "start compile": 40, "start graphs": 25},
        ),
        # The warm-up compiled what the first pass had no time for.
        (
            {
                "__init__": 12,
                "determine_available_memory": 30,
                "compile_or_warm_up_model": 25,
                "compilation": 40,
            },
            {"start weights": 12, "start compile": 40, "start graphs": 15},
        ),
        # Neither compiled nor captured.
        (
            {"__init__": 2, "determine_available_memory": 1, "compile_or_warm_up_model": 0, "compilation": 0},
            {"start weights": 2},
        ),
        # It failed after the weights were there.
        ({"__init__": 2, "compilation": 0}, {"start weights": 2}),
    ],
)
def test_compilation_and_graphs_are_told_apart(
    noted: dict[str, float], stages: dict[str, float], tmp_path: Path
) -> None:
    (tmp_path / "stages").write_text(json.dumps(noted))
    assert stages_in(tmp_path / "stages") == stages
    assert sum(stages.values()) <= sum(noted.values())


def test_a_start_that_wrote_nothing_has_no_stages(tmp_path: Path) -> None:
    assert stages_in(tmp_path / "stages") == {}
