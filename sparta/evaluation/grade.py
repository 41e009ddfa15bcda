"""Grade: the evaluation judge, a model outside the pool, scores answers by the metrics that need one (section C.5)."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sparta.chat import judge_prompts
from sparta.chat.renderer import Prompt
from sparta.errors import SpartaError
from sparta.evaluation.answer import Answers, EvaluationPhase, TaskRows, checkpoints
from sparta.evaluation.items import items_of
from sparta.evaluation.judge_requests import EvaluationJudge
from sparta.grading.rubrics import Rubric, parse_grade
from sparta.phases import token_costs
from sparta.phases.base import Sink, WorkItem
from sparta.phases.judge_dialog import Pending, Reading, verdict_fields
from sparta.pool.checks import check_judge
from sparta.pool.members import judge_engine, judge_named, judge_reference
from sparta.recipes import engine as recipe_engine
from sparta.recipes.schema import Recipe
from sparta.store.records import Answer, Grade, answer_key, grade_key
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.registry import task_named


class GradeAnswers(EvaluationPhase):
    """The judge grades the answers of the checkpoints in `requested`, after Evaluate. All tasks must have metrics that need a judge."""

    name = "grade"
    verb = "grade"
    engine_key = "evaluation.judge.engine"

    @property
    def parts(self) -> "Sequence[Grades]":
        return [Grades(task, self.split, entries) for task, entries in self.requested.items()]

    def place(self, t: int) -> str:
        return f"evals/{self.split}-grades"

    def engine(self, recipe: Recipe) -> recipe_engine.EngineSettings:
        return judge_named(recipe).engine

    def check(self, run: Run) -> None:
        """Raises SpartaError, before anything starts, if the judge cannot work or a task needs none."""
        check_judge(run.recipe)
        for part in self.parts:
            part.metrics(run)

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        model = judge_reference(run.recipe)
        grader = Grader(run, judge_engine(run, self.engine(run.recipe), model), model)
        sink_of = dict(zip(self.requested, sinks, strict=True))
        keys = {item.key for item in items}
        requests = (request for part in self.parts for request in part.requests(run) if request.key in keys)
        grader.ask_all(requests, lambda row: sink_of[row.task].write(row))


@dataclass(frozen=True)
class GradingRequest:
    """One answer for the judge to grade by one metric."""

    task: str
    checkpoint: str
    item: Item
    metric: str
    rubric: Rubric
    answer: Answer

    @property
    def key(self) -> str:
        return grade_key(self.task, self.checkpoint, self.item.item_id, self.metric)

    @property
    def reference(self) -> str | None:
        return self.item.reference if self.rubric.reference else None


class Grades(TaskRows):
    """The grades of the answers to one task's split."""

    rows = Grade

    def __init__(self, task: str, split: Split, entries: tuple[str, ...]) -> None:
        super().__init__(task, split, entries)
        self.answers = Answers(task, split, entries)

    def metrics(self, run: Run) -> dict[str, Rubric]:
        """The rubrics of the metrics that need a judge, by metric name. Raises SpartaError if there are none."""
        metrics: Iterable[Metric] = task_named(self.task, run.recipe.data).metrics
        found = {metric.name: metric.rubric for metric in metrics if metric.rubric is not None}
        if not found:
            raise SpartaError(f"{self.task} has no metric that needs a judge: leave it out of the grading")
        return found

    def folder(self, run: Run, t: int = 0) -> Path:
        judge = judge_named(run.recipe).identity(judge_reference(run.recipe).version)
        rubrics = {name: rubric.identity() for name, rubric in self.metrics(run).items()}
        what = (judge, self.answers.folder(run).name, rubrics, judge_prompts.GRADING)
        digest = hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:12]
        return run.state.evaluation(self.task, self.split).grades(digest)

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        base = judge_named(run.recipe).base
        return [
            WorkItem(
                request.key,
                cost=1.0,
                group="judge",
                base=base,
                # Prompts for one item share a prefix.
                bundle=f"{request.task}/{request.metric}/{request.item.item_id}",
            )
            for request in self.requests(run)
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        read = {
            request.key: (
                f"{request.rubric.introduction}\n{judge_prompts.question_text(request.item.messages)}\n{request.reference or ''}",
                token_costs.tokens_of_answer(request.answer),
            )
            for request in self.requests(run)
        }
        return token_costs.of_grades(run, items, read, judge_named(run.recipe).max_new_tokens)

    def requests(self, run: Run) -> Iterator[GradingRequest]:
        """All answers to grade, ordered so that prompts share prefixes. Skips answers whose prompt was too long or whose thinking never ended.

        Raises SpartaError if an answer is missing.
        """
        names, folder = checkpoints(run, self.entries), self.answers.folder(run)
        answers = read_shards(folder, Answer)
        for metric, rubric in self.metrics(run).items():
            for item in items_of(run, self.task, self.split):
                for name in names:
                    answer = answers.get(answer_key(self.task, name, item.item_id))
                    if answer is None:
                        raise SpartaError(
                            f"{name} has no answer to {item.item_id} in {folder}: run the evaluation again to complete it"
                        )
                    if has_answer(answer):
                        yield GradingRequest(self.task, name, item, metric, rubric, answer)


def has_answer(answer: Answer) -> bool:
    """Whether there is an answer to grade."""
    return answer.answered and answer.finish_reason != "prompt_too_long"


class Grader(EvaluationJudge[GradingRequest, Grade]):
    """Turns grading requests into requests to the engine, and completions into grades or follow-up requests."""

    stream = "grade"

    def _prompt(self, question: GradingRequest) -> Prompt:
        return self._engine.renderer(self._model).grading(
            question.rubric.introduction,
            question.item.messages,
            question.reference,
            question.answer.text,
            question.rubric.instruction,
            self._sampling.max_new_tokens,
        )

    def _pattern(self, question: GradingRequest) -> str:
        return judge_prompts.grading_pattern(question.rubric.instruction)

    def _parse(self, text: str, cut: bool) -> float | None:
        return parse_grade(text, cut=cut)

    def _row(self, pending: Pending[GradingRequest], verdict: Reading, prompt_tokens: int) -> Grade:
        request = pending.question
        return Grade(
            task=request.task,
            checkpoint=request.checkpoint,
            item_id=request.item.item_id,
            metric=request.metric,
            **verdict_fields(pending, verdict, prompt_tokens),
        )
