"""Requests and expected results for the tests of all engines."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sparta.chat.template import Message
from sparta.engines.base import Completion, Engine, Inbox, Label, ModelRef, Request, Sampling
from sparta.recipes import engine as recipe_engine

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=12)
SAMPLED = Sampling(temperature=0.7, top_p=0.95, top_k=50, max_new_tokens=12)
QUESTIONS = ("add 4 7", "What is the weather like in the mountains?", "abc " * 12, "1")


def settings(**values: object) -> recipe_engine.EngineSettings:
    return recipe_engine.EngineSettings.model_validate({"device": "cpu", "threads": 1, **values})


def ref(name: str, base: Path, adapter: Path | None, version: str = "0") -> ModelRef:
    return ModelRef(name, str(base), adapter, version)


def request(
    engine: Engine, model: ModelRef, question: str, sampling: Sampling = GREEDY, seed: int = 0
) -> Request:
    prompt = engine.renderer(model).combat([Message("user", question)])
    return Request(f"{model.name}/{question}/{seed}", model, prompt, sampling, seed)


def answers(engine: Engine, requests: Iterable[Request]) -> dict[str, Completion]:
    """Completions by key, without measurements."""
    return {done.key: replace(done, seconds=0.0) for done in engine.run(Inbox(requests))}


def labels(*tokens: int) -> tuple[Label, ...]:
    """Labels for these token ids, whatever they spell."""
    return tuple(Label(str(token), token) for token in tokens)


def weighing(engine: Engine, model: ModelRef, question: str, text: str, plain: bool) -> Request:
    """A request for the log-likelihood of `text` after the question, in the chat template or, if `plain`, after the bare question."""
    renderer = engine.renderer(model)
    messages = [Message("user", question)]
    prompt = renderer.plain(messages) if plain else renderer.combat(messages)
    key = f"{model.name}/{question}/{text}/{plain}"
    return Request(key, model, prompt, GREEDY, 0, continuation=renderer.encode(text))


def reference_logs(asked: Sequence[Request]) -> dict[str, float]:
    """Log-likelihoods by key from plain transformers and PEFT, one request at a time and without padding."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    logs = {}
    for model in dict.fromkeys(one.model for one in asked):
        module = AutoModelForCausalLM.from_pretrained(model.base, dtype=torch.float32)
        if model.adapter is not None:
            module = PeftModel.from_pretrained(module, str(model.adapter))
        module.eval()
        for one in (one for one in asked if one.model == model):
            before = [*(one.prompt.token_ids or ()), *one.prefix]
            with torch.inference_mode():
                whole = module(input_ids=torch.tensor([[*before, *one.continuation]])).logits[0].double()
            shares = torch.log_softmax(whole, dim=-1)
            logs[one.key] = sum(
                float(shares[len(before) + at - 1, token]) for at, token in enumerate(one.continuation)
            )
    return logs


def everyone(base: Path, adapters: dict[str, Path]) -> Sequence[ModelRef]:
    """The three adapted models, and the bare base as a fourth."""
    return [*(ref(name, base, folder) for name, folder in adapters.items()), ref("bare", base, None)]
