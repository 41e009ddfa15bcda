"""What vLLM can do beside the usual: bases that others have quantised, and guessing several tokens at a time."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.engine_contract import GREEDY, SAMPLED, answers, ref, request, settings, weighing
from support.quantised_bases import make_awq, make_gptq

from sparta import toy
from sparta.chat.judge_prompts import judging_pattern
from sparta.engines.base import Completion
from sparta.engines.hf.engine import HfEngine
from sparta.engines.vllm.engine import VllmEngine
from sparta.engines.vllm.quantisation import quantisation
from sparta.errors import SpartaError
from sparta.toy.family import items

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)

ADAPTERS = list(toy.ADAPTERS.items())[:3]
QUESTIONS = [item.question for item in items("validation", 12, 0)]


def vllm(**values: object) -> VllmEngine:
    small = {"own_process": False, "cpu_cache_gib": 0.25, "sequences": 16, **values}
    return VllmEngine(settings(context_length=256, vllm=small))


def greedy(engine: HfEngine | VllmEngine, base: Path) -> dict[str, Completion]:
    pool = [ref(name, base, folder) for name, folder in ADAPTERS]
    engine.expect(pool)
    return answers(engine, [request(engine, model, question) for model in pool for question in QUESTIONS])


@pytest.mark.long
@pytest.mark.parametrize("make", [make_awq, make_gptq])
def test_a_quantised_base_answers_with_adapters_nearly_as_the_model_it_was_made_from(
    make: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    """Of sixteen values a weight, of layers 128 wide, some answers change; noise would leave none."""
    base, other, engine = make(tmp_path / "base", toy.BASE), HfEngine(settings(context_length=256)), vllm()
    mine, theirs = greedy(engine, base), greedy(other, toy.BASE)
    engine.close()
    other.close()
    assert sum(mine[key].text == theirs[key].text for key in theirs) >= 0.7 * len(theirs)


@pytest.mark.long
def test_guessed_tokens_change_no_greedy_answer_no_likelihood_and_no_limit() -> None:
    engine, other = vllm(speculative={"tokens": 3}), HfEngine(settings(context_length=256))
    mine, theirs = greedy(engine, toy.BASE), greedy(other, toy.BASE)
    assert sum(mine[key] == theirs[key] for key in theirs) >= 0.99 * len(theirs)
    assert engine._open is not None
    guessing = engine._open.engine.vllm_config.speculative_config
    assert guessing is not None and (guessing.method, guessing.num_speculative_tokens) == ("ngram", 3)
    model = ref(*ADAPTERS[0][:1], toy.BASE, ADAPTERS[0][1])
    weighed = [weighing(engine, model, question, "007", True) for question in QUESTIONS[:4]]
    logs, expected = answers(engine, weighed), answers(other, weighed)
    for key, done in expected.items():
        assert logs[key].log_likelihood == pytest.approx(done.log_likelihood, abs=1e-4)
    asked = request(engine, model, QUESTIONS[0])
    # Some pattern that the model would not write of itself.
    guided = replace(asked, key="guided", pattern=judging_pattern(reasoning=False))
    ours, theirs = answers(engine, [guided]), answers(other, [guided])
    assert ours["guided"] == theirs["guided"] and ours["guided"].text != mine[asked.key].text
    sampled = [request(engine, model, question, SAMPLED, 1) for question in QUESTIONS]
    assert answers(engine, sampled) == answers(engine, sampled[::-1])
    assert all(len(done.token_ids) <= GREEDY.max_new_tokens for done in mine.values())
    engine.close()
    other.close()


def test_a_base_in_4_bits_needs_the_plug_in_and_says_so(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"bitsandbytes"}
    for module in ("load_options", "vllm.quantisation"):
        monkeypatch.setattr(f"sparta.engines.{module}.find_spec", lambda name: name in there or None)
    asked = settings(kind="vllm", quantize="nf4")
    with pytest.raises(
        SpartaError, match=r"vllm-bnb-plugin, and that is not installed here: pip install .* kind to hf"
    ):
        quantisation(str(tiny_base), asked, gpu=True)
    there.clear()
    with pytest.raises(
        SpartaError, match=r"4 bits, which needs bitsandbytes, and that is not installed here: pip"
    ):
        quantisation(str(tiny_base), asked, gpu=True)


def test_the_type_of_a_quantised_base_is_its_own_unless_the_recipe_names_one(
    tiny_base: Path, tmp_path: Path
) -> None:
    awq = str(make_awq(tmp_path / "awq", toy.BASE))
    assert quantisation(awq, settings(), gpu=True) == {"dtype": "auto"}
    assert quantisation(awq, settings(dtype="float16"), gpu=True) == {"dtype": "float16"}
    assert quantisation(str(tiny_base), settings(), gpu=True) == {"dtype": "bfloat16"}
    assert quantisation(str(tiny_base), settings(), gpu=False) == {"dtype": "float32"}
