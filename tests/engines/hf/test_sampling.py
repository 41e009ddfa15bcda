"""The Gumbel-max sampler against the distributions that transformers' own warpers define."""

import math
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from sparta.engines.base import Sampling
from sparta.engines.hf.sampling import Sampler, gumbel
from sparta.rng import seed_of

DRAWS = 20_000


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    scores = TemperatureLogitsWarper(sampling.temperature)(None, logits[None].clone())
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    probabilities: torch.Tensor = scores[0].softmax(-1).double()
    return probabilities


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, 1.0, 0, 1),
        Sampling(0.7, 0.95, 50, 1),
        Sampling(2.0, 1.0, 5, 1),
        Sampling(1.3, 0.6, 0, 1),
        Sampling(1.0, 0.01, 0, 1),
        Sampling(1.0, 0.9, 1000, 1),
    ],
)
@pytest.mark.parametrize("step", [0, 3])
def test_samples_follow_the_warped_distribution(sampling: Sampling, step: int) -> None:
    logits = torch.randn(80, generator=torch.Generator().manual_seed(4)) * 2
    sampler = Sampler(sampling, [seed_of("draw", row) for row in range(DRAWS)], 2, "cpu")
    scores = sampler(torch.zeros(DRAWS, 2 + step, dtype=torch.int64), logits.repeat(DRAWS, 1))
    counts = Counter(scores.argmax(-1).tolist())
    expected = warped(logits, sampling)
    assert all(expected[token] > 0 for token in counts)
    common = (expected * DRAWS >= 5).nonzero().flatten().tolist()
    observed = [counts[token] for token in common]
    theory = [float(expected[token]) * DRAWS for token in common]
    observed.append(DRAWS - sum(observed))
    theory.append(DRAWS - sum(theory))
    if theory[-1] < 1:
        assert observed.pop() <= 5
        theory.pop()
        theory = [value * sum(observed) / sum(theory) for value in theory]
    if len(theory) > 1:
        assert chisquare(observed, theory).pvalue > 1e-3


def test_temperature_zero_leaves_the_scores_alone() -> None:
    scores = torch.randn(3, 9)
    assert torch.equal(
        Sampler(Sampling(0.0, 0.5, 2, 1), [1, 2, 3], 0, "cpu")(torch.zeros(3, 1), scores.clone()), scores
    )


def test_noise_is_gumbel_and_independent_of_neighbours() -> None:
    seeds = torch.tensor([seed_of(row) for row in range(50)])
    tokens = torch.arange(200).repeat(50, 1)
    noise = gumbel(seeds, 0, tokens)
    assert kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 1e-3
    shuffled = torch.randperm(200)
    assert torch.equal(gumbel(seeds[7:9], 0, tokens[7:9, shuffled]), noise[7:9, shuffled])
    assert (
        abs(torch.corrcoef(torch.stack([noise.flatten(), gumbel(seeds, 1, tokens).flatten()]))[0, 1]) < 0.05
    )
    assert abs(torch.corrcoef(torch.stack([noise[:-1].flatten(), noise[1:].flatten()]))[0, 1]) < 0.05
    assert abs(torch.corrcoef(torch.stack([noise[:, :-1].flatten(), noise[:, 1:].flatten()]))[0, 1]) < 0.05


def test_nearby_seeds_give_unrelated_noise() -> None:
    noise = gumbel(torch.arange(200), 0, torch.arange(100).repeat(200, 1))
    assert kstest(noise[:, 0].numpy(), "gumbel_r").pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([noise[:-1].flatten(), noise[1:].flatten()]))[0, 1]) < 0.05


def splitmix64(x: int) -> int:
    """The finaliser of Steele, Lea and Flood's generator, on Python's integers."""
    mask = 2**64 - 1
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return x ^ (x >> 31)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("token", [0, 151_935])
def test_noise_matches_reference_splitmix64(seed: int, token: int) -> None:
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    for step in (0, 511):
        state = splitmix64((seed + golden * (step + 1)) & mask)
        bits = splitmix64((state + golden * (token + 1)) & mask)
        expected = -math.log(-math.log(((bits >> 11) + 0.5) / 2**53))
        noise = gumbel(torch.tensor([seed]), step, torch.tensor([[token]]))
        assert noise.item() == pytest.approx(expected, rel=1e-12)
