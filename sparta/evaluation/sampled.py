"""EvaluateBySampling: checkpoints answer the items of one split of several tasks several times, by sampling, to see how diverse they are (section 5).

The rows are apart from those of an evaluation, and no score is made of them. As there, work is sharded and resumed by key: more samples, items,
checkpoints or tasks only add keys.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from sparta import rng
from sparta.chat.renderer import Prompt
from sparta.engines.base import Completion, Engine, Inbox, ModelRef, Request, Sampling
from sparta.errors import SpartaError
from sparta.evaluation.answer import Answers, EntriesByTask, EvaluationPhase, TaskRows, checkpoints
from sparta.evaluation.answer_requests import EvalItem, PromptFormat, before_stop, prompt_format_of, prompt_of
from sparta.evaluation.items import items_of
from sparta.phases import token_costs
from sparta.phases.base import PhaseSpec, SampleSettings, Sink, WorkItem
from sparta.pool.members import engine_for
from sparta.recipes.engine import VLLM_HOTTEST
from sparta.store.records import SampledAnswer, answer_key, sampled_key
from sparta.store.run import Run
from sparta.tasks.base import Item, Split
from sparta.tasks.registry import task_named

NOTHING = SampleSettings(samples=0, temperature=1.0, top_p=1.0, top_k=0)


class SampledPhase(EvaluationPhase):
    """A phase about sampled answers. settings: how they are sampled."""

    def __init__(self, split: Split, asked: EntriesByTask, settings: SampleSettings) -> None:
        super().__init__(split, asked)
        self.settings = settings
        self.spec = PhaseSpec(split, tuple(self.requested.items()), settings)

    @classmethod
    def of(cls, spec: PhaseSpec) -> Self:
        return cls(spec.split, dict(spec.asked), spec.sampled or NOTHING)


class EvaluateBySampling(SampledPhase):
    """The checkpoints in `requested` answer `split` by sampling. Each task of the array starts one engine."""

    name = "evaluate_samples"
    verb: ClassVar[str] = "sample"

    @property
    def parts(self) -> "Sequence[Samples]":
        return [Samples(task, self.split, entries, self.settings) for task, entries in self.requested.items()]

    def place(self, t: int) -> str:
        return f"evals/{self.split}-samples"

    def check(self, run: Run) -> None:
        """Raises SpartaError, before anything starts, if the run's models cannot sample answers to a task."""
        hottest = VLLM_HOTTEST if self.engine(run.recipe).kind == "vllm" else None
        if hottest is not None and self.settings.temperature > hottest:
            raise SpartaError(
                f"vLLM takes a temperature of at most {hottest:g}, and {self.settings.temperature:g} was asked for: lower it"
            )
        for part in self.parts:
            part.check(run)

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        asked, keys = {item.group for item in items}, {item.key for item in items}
        every = checkpoints(run, [entry for part in self.parts for entry in part.entries])
        # Adapters of checkpoints that lack no answer may have been removed.
        models = {name: model for name, model in every.items() if name in asked}
        engine = engine_for(run, self.engine(run.recipe), models.values())
        requests = SampleRequests(engine, run.recipe.seed, self.settings)
        sink_of = dict(zip(self.requested, sinks, strict=True))
        wanted = (one for one in _questions(run, self.parts, models) if one.key in keys)
        for done in engine.run(Inbox(requests.requests(wanted))):
            row = requests.on_reply(done)
            sink_of[row.task].write(row)


class Samples(TaskRows):
    """The sampled answers to one task's split."""

    rows = SampledAnswer

    def __init__(self, task: str, split: Split, entries: tuple[str, ...], settings: SampleSettings) -> None:
        super().__init__(task, split, entries)
        self.settings = settings

    def folder(self, run: Run, t: int = 0) -> Path:
        given = self.settings
        way = f"{self.prompt_format(run)}-t{float(given.temperature)}-p{float(given.top_p)}-k{given.top_k}"
        return run.state.evaluation(self.task, self.split).samples(way)

    def prompt_format(self, run: Run) -> PromptFormat:
        """How the items are prompted: as in an evaluation."""
        return prompt_format_of(run.recipe, task_named(self.task, run.recipe.data))

    def items(self, run: Run) -> Sequence[Item]:
        """The items that are answered: the first ones of the frozen split."""
        return items_of(run, self.task, self.split)[: self.settings.items]

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        items = self.items(run)
        return [
            WorkItem(
                sampled_key(self.task, name, number, item.item_id),
                cost=1.0,
                group=name,
                base=model.base,
                # Samples of one prompt share its prefix.
                bundle=f"{self.task}/{name}/{item.item_id}",
            )
            for name, model in checkpoints(run, self.entries).items()
            for item in items
            for number in range(self.settings.samples)
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        questions = {item.item_id: item for item in self.items(run)}
        limit = _limit(self.task, self.prompt_format(run))
        answers = [replace(item, key=_answer_of(item.key)) for item in items]
        costs = token_costs.of_answers(run, answers, questions, self.folder(run, t), limit, of=SampledAnswer)
        return [replace(item, cost=each.cost) for item, each in zip(items, costs, strict=True)]

    def check(self, run: Run) -> None:
        """Raises SpartaError if the run's models cannot sample answers to the task."""
        _limit(self.task, self.prompt_format(run))
        Answers(self.task, self.split, self.entries).check(run)


def _limit(task: str, prompt_format: PromptFormat) -> int:
    """Most new tokens of an answer. Raises SpartaError for a task that no model writes answers to."""
    if prompt_format.limit is None:
        raise SpartaError(
            f"{task} scores choices by their log-likelihood and no model writes an answer to it, so there is nothing to sample: leave it out"
        )
    return prompt_format.limit


def _answer_of(key: str) -> str:
    """The key of the answer to the same item as the sampled answer `key`."""
    task, checkpoint, _, item_id = key.split("/", maxsplit=3)
    return answer_key(task, checkpoint, item_id)


@dataclass(frozen=True)
class SampledItem:
    """One item for one checkpoint to answer. number: of the sample."""

    asked: EvalItem
    number: int

    @property
    def key(self) -> str:
        asked = self.asked
        return sampled_key(asked.task.name, asked.checkpoint, self.number, asked.item.item_id)


def _questions(run: Run, parts: Sequence[Samples], models: Mapping[str, ModelRef]) -> Iterator[SampledItem]:
    """All questions of `parts` to `models`, ordered by base and model, so that adapters stay together. Equal weights are asked apart."""
    by_task = []
    for part in parts:
        task = task_named(part.task, run.recipe.data)
        by_task.append((task, prompt_format_of(run.recipe, task), part.items(run)))
    for name in sorted(models, key=lambda name: models[name].base):
        for (task, prompt_format, items), part in zip(by_task, parts, strict=True):
            for item in items:
                asked = EvalItem(task, prompt_format, name, models[name], item)
                yield from (SampledItem(asked, number) for number in range(part.settings.samples))


class SampleRequests:
    """Turns questions into requests, and completions into rows. Each sample has a random stream of its own, named by its key."""

    def __init__(self, engine: Engine, seed: int, settings: SampleSettings) -> None:
        self._engine = engine
        self._seed = seed
        self._settings = settings
        self._pending: dict[str, tuple[SampledItem, Prompt]] = {}

    def requests(self, questions: Iterable[SampledItem]) -> Iterator[Request]:
        """The requests, in the order of `questions`."""
        given = self._settings
        for one in questions:
            renderer, prompt = self._engine.renderer(one.asked.model), prompt_of(self._engine, one.asked)
            self._pending[one.key] = one, prompt
            limit = renderer.limit(prompt, _limit(one.asked.task.name, one.asked.prompt_format))
            sampling = Sampling(given.temperature, given.top_p, given.top_k, limit, one.asked.stop)
            seed = rng.seed_of(self._seed, "sampled answers", one.key)
            yield Request(one.key, one.asked.model, prompt, sampling, seed=seed)

    def on_reply(self, done: Completion) -> SampledAnswer:
        """The row that `done` completes."""
        one, prompt = self._pending.pop(done.key)
        said = self._engine.renderer(one.asked.model).split_reply(prompt, done.text)
        return SampledAnswer(
            task=one.asked.task.name,
            checkpoint=one.asked.checkpoint,
            item_id=one.asked.item.item_id,
            number=one.number,
            text=before_stop(said.answer, one.asked.stop),
            prompt_tokens=done.prompt_tokens,
            new_tokens=done.new_tokens,
            finish_reason=done.finish_reason,
            seconds=done.seconds,
            thinking=said.thinking,
            answered=said.ended,
        )
