"""What the tests of the engines ask for."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sparta import recipe
from sparta.engines.base import Completion, Engine, Inbox, Label, ModelRef, Request, Sampling
from sparta.prompts import Message

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=12)
SAMPLED = Sampling(temperature=0.7, top_p=0.95, top_k=50, max_new_tokens=12)
QUESTIONS = ("add 4 7", "What is the weather like in the mountains?", "abc " * 12, "1")


def settings(**values: object) -> recipe.Engine:
    return recipe.Engine.model_validate({"device": "cpu", "threads": 1, **values})


def ref(name: str, base: Path, adapter: Path | None, version: str = "0") -> ModelRef:
    return ModelRef(name, str(base), adapter, version)


def request(
    engine: Engine, model: ModelRef, question: str, sampling: Sampling = GREEDY, seed: int = 0
) -> Request:
    prompt = engine.renderer(model).combat([Message("user", question)])
    return Request(f"{model.name}/{question}/{seed}", model, prompt, sampling, seed)


def answers(engine: Engine, requests: Iterable[Request]) -> dict[str, Completion]:
    """What came back, by key, without the measurements."""
    return {done.key: replace(done, seconds=0.0) for done in engine.run(Inbox(requests))}


def labels(*tokens: int) -> tuple[Label, ...]:
    """Labels for these token ids, whatever they spell."""
    return tuple(Label(str(token), token) for token in tokens)


def everyone(base: Path, adapters: dict[str, Path]) -> Sequence[ModelRef]:
    """The three adapted models and the bare base as a fourth."""
    return [*(ref(name, base, folder) for name, folder in adapters.items()), ref("bare", base, None)]
