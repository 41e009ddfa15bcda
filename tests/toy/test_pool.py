"""The committed weights: small, safe to load, each expert best in its own skill, most judges worth listening to."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sparta.toy import ADAPTERS, BASE, EXPERTS, WEIGHTS
from sparta.toy.family import SKILLS, items
from sparta.toy.measure import ToyPool, accuracy, judging_of


@pytest.fixture(scope="module")
def pool():
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, threads))
    yield ToyPool(BASE, ADAPTERS)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def answers(pool):
    sample = items("validation", 200, seed=11)
    return {name: accuracy(pool, name, sample) for name in pool.names}


@pytest.fixture(scope="module")
def votes(pool):
    sample = items("validation", 60, seed=12)
    return {name: judging_of(pool, name, sample, seed=12) for name in pool.names}


def test_there_is_one_expert_a_skill():
    assert tuple(EXPERTS.values()) == SKILLS
    assert tuple(ADAPTERS) == tuple(EXPERTS)


def test_the_pool_is_small():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 8_000_000
    assert sum(tensor.numel() for tensor in load_file(BASE / "model.safetensors").values()) <= 3_000_000


def test_weights_are_safetensors_and_everything_else_is_text():
    suffixes = {path.suffix for path in WEIGHTS.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".md"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_name_their_base_by_its_relative_place(name):
    config = json.loads((ADAPTERS[name] / "adapter_config.json").read_text())
    assert (ADAPTERS[name] / config["base_model_name_or_path"]).resolve() == BASE.resolve()


def test_every_expert_is_good_at_its_own_skill_and_none_is_better_there(answers):
    for name, skill in EXPERTS.items():
        assert answers[name][skill] >= 0.9, name
        assert answers[name][skill] >= max(row[skill] for row in answers.values()), name


def test_every_expert_is_middling_over_all_skills(answers):
    for name, row in answers.items():
        assert 0.35 <= sum(row.values()) / len(row) <= 0.75, name


def test_most_judges_vote_higher_on_right_answers_than_on_wrong_ones(votes):
    useful = [name for name, row in votes.items() if row.right >= row.wrong + 2 and row.separated >= 0.75]
    assert len(useful) >= 8, votes


def test_votes_can_be_read(votes):
    assert max(row.unreadable for row in votes.values()) <= 0.03
