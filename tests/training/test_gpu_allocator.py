"""The allocator's setting is there while training is, and a user's own is left alone."""

import os

import pytest

from sparta.training.gpu_allocator import SETTING, expandable_segments

BOTH = (SETTING, "PYTORCH_ALLOC_CONF")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BOTH:
        monkeypatch.delenv(name, raising=False)


def test_segments_grow_while_training_and_engines_that_start_later_do_not_inherit_it() -> None:
    with pytest.raises(KeyboardInterrupt), expandable_segments():
        assert os.environ[SETTING] == "expandable_segments:True"
        raise KeyboardInterrupt
    assert SETTING not in os.environ


@pytest.mark.parametrize("name", BOTH)
def test_what_the_user_has_set_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:64")
    with expandable_segments():
        assert {key: os.environ.get(key) for key in BOTH} == dict.fromkeys(BOTH) | {
            name: "max_split_size_mb:64"
        }
    assert os.environ[name] == "max_split_size_mb:64"
