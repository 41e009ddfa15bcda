"""GradeSets: the evaluation judge scores how diverse sets of sampled answers are, from 1 to 10 ("LLM Diversity Score", appendix C.8).

One set for each item: of an iteration, the first answer of each model, as the paper's ten models answer once; of a checkpoint, all its samples. An
iteration whose pool is one model counts as that checkpoint.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sparta.arena.votes import parse_score
from sparta.chat import judge_prompts
from sparta.chat.renderer import Prompt
from sparta.errors import SpartaError
from sparta.evaluation.answer import TaskRows, checkpoint_name
from sparta.evaluation.judge_requests import EvaluationJudge
from sparta.evaluation.sample_sets import (
    AnswerSet,
    Texts,
    by_checkpoint,
    is_of_pool,
    sets_of_model,
    sets_of_pool,
)
from sparta.evaluation.sampled import SampledPhase, Samples
from sparta.phases import token_costs
from sparta.phases.base import SampleSettings, Sink, WorkItem
from sparta.phases.judge_dialog import Pending, Reading, reply_fields
from sparta.pool.checks import check_judge
from sparta.pool.members import judge_engine, judge_named, judge_reference
from sparta.recipes import engine as recipe_engine
from sparta.recipes.schema import Recipe
from sparta.store.layout import parse_checkpoint
from sparta.store.records import SampledAnswer, SetGrade, set_grade_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.tasks.base import Item, Split


class GradeSets(SampledPhase):
    """The judge grades the sets of sampled answers of the entries in `requested`, after EvaluateBySampling."""

    name = "grade_sets"
    verb = "grade sets of"
    engine_key = "evaluation.judge.engine"

    @property
    def parts(self) -> "Sequence[SetGrades]":
        return [
            SetGrades(task, self.split, entries, self.settings) for task, entries in self.requested.items()
        ]

    def place(self, t: int) -> str:
        return f"evals/{self.split}-set-grades"

    def engine(self, recipe: Recipe) -> recipe_engine.EngineSettings:
        return judge_named(recipe).engine

    def check(self, run: Run) -> None:
        """Raises SpartaError, before anything starts, if the judge cannot work, or if an entry makes no sets."""
        check_judge(run.recipe)
        for part in self.parts:
            part.require_sets(run)

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        model = judge_reference(run.recipe)
        grader = SetGrader(run, judge_engine(run, self.engine(run.recipe), model), model)
        sink_of = dict(zip(self.requested, sinks, strict=True))
        keys = {item.key for item in items}
        questions = [one for part in self.parts for one in part.questions(run) if one.key in keys]
        # A set with fewer than two texts has no diversity; the judge is not asked.
        for one in questions:
            if len(one.answers.texts) < 2:
                sink_of[one.task].write(grader.ungraded(one))
        asked = (one for one in questions if len(one.answers.texts) > 1)
        grader.ask_all(asked, lambda row: sink_of[row.task].write(row))


@dataclass(frozen=True)
class SetQuestion:
    """One set for the judge to grade."""

    task: str
    item: Item
    answers: AnswerSet

    @property
    def key(self) -> str:
        return set_grade_key(self.task, self.answers.entry, self.answers.size, self.answers.item_id)


class SetGrades(TaskRows):
    """The grades of sets of sampled answers to one task's split."""

    rows = SetGrade

    def __init__(self, task: str, split: Split, entries: tuple[str, ...], settings: SampleSettings) -> None:
        super().__init__(task, split, entries)
        self.samples = Samples(task, split, entries, settings)

    def folder(self, run: Run, t: int = 0) -> Path:
        return set_grades_folder(run, self.samples.folder(run))

    def sizes(self, run: Run) -> dict[str, int]:
        """How many answers the sets of each entry have, by entry; of a pool of one model, its checkpoint is the entry."""
        found = {}
        for entry in self.entries:
            models = list(run.pool(parse_checkpoint(entry)[0]))
            if is_of_pool(entry) and len(models) > 1:
                found[entry] = len(models)
            else:
                alone = (
                    checkpoint_name(run, parse_checkpoint(entry)[0], models[0])
                    if is_of_pool(entry)
                    else entry
                )
                found[alone] = self.samples.settings.samples
        return found

    def require_sets(self, run: Run) -> None:
        """Raises SpartaError for an entry whose sets would have one answer."""
        for entry, size in self.sizes(run).items():
            if size < 2:
                raise SpartaError(
                    f"one sample of {entry} makes no set whose diversity could be graded: ask for at least two samples"
                )

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        base = judge_named(run.recipe).base
        return [
            WorkItem(set_grade_key(self.task, entry, size, item.item_id), cost=1.0, group="judge", base=base)
            for entry, size in self.sizes(run).items()
            for item in self.samples.items(run)
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        frame = "".join((judge_prompts.SET_INTRODUCTION, judge_prompts.SET_GRADING))
        read = {
            one.key: (
                "\n".join((frame, judge_prompts.question_text(one.item.messages), *one.answers.texts)),
                0.0,
            )
            for one in self.questions(run)
        }
        return token_costs.of_grades(run, items, read, judge_named(run.recipe).max_new_tokens)

    def questions(self, run: Run) -> list[SetQuestion]:
        """All sets to grade. Raises SpartaError if a sampled answer is missing."""
        folder = self.samples.folder(run)
        texts = by_checkpoint(iter_shards(folder, SampledAnswer))
        items = {item.item_id: item for item in self.samples.items(run)}
        found = [
            SetQuestion(self.task, items[one.item_id], one)
            for entry, size in self.sizes(run).items()
            for one in graded_sets(run, texts, entry, size)
            if one.item_id in items
        ]
        if missing := {item.key for item in self.work(run, 0)} - {one.key for one in found}:
            raise SpartaError(
                f"{folder} lacks sampled answers of {len(missing)} sets, {min(missing)} the first: run the same command again to complete them"
            )
        return found


def graded_sets(run: Run, texts: Texts, entry: str, size: int) -> list[AnswerSet]:
    """The sets of `entry` that a judge grades: one for each item."""
    if not is_of_pool(entry):
        return list(sets_of_model(texts, entry, size))
    return list(sets_of_pool(texts, entry, list(run.pool(parse_checkpoint(entry)[0])), numbers=1))


def set_grades_folder(run: Run, samples: Path) -> Path:
    """Where the grades by the recipe's judge of sets of the answers in the folder `samples` are."""
    judge = judge_named(run.recipe).identity(judge_reference(run.recipe).version)
    what = (judge, samples.name, judge_prompts.SET_INTRODUCTION, judge_prompts.SET_GRADING)
    digest = hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:12]
    return run.state.evaluation(samples.parent.parent.name, samples.parent.name).set_grades(digest)


class SetGrader(EvaluationJudge[SetQuestion, SetGrade]):
    """Turns sets into requests to the engine, and completions into grades or follow-up requests."""

    stream = "grade sets"

    def ungraded(self, question: SetQuestion) -> SetGrade:
        """The row of a set that the judge is not asked about."""
        return self._row(Pending(question, Prompt(question.item.messages, None)), Reading(None, ""), 0)

    def _prompt(self, question: SetQuestion) -> Prompt:
        return self._engine.renderer(self._model).grading_set(
            question.item.messages, question.answers.texts, self._sampling.max_new_tokens
        )

    def _pattern(self, question: SetQuestion) -> str:
        return judge_prompts.judging_pattern(reasoning=False)

    def _parse(self, text: str, cut: bool) -> float | None:
        return parse_score(text, cut=cut)

    def _row(self, pending: Pending[SetQuestion], verdict: Reading, prompt_tokens: int) -> SetGrade:
        one = pending.question
        return SetGrade(
            task=one.task,
            entry=one.answers.entry,
            item_id=one.answers.item_id,
            size=one.answers.size,
            score=verdict.score,
            # JudgeDialog gives a prompt that does not fit no messages.
            too_long=not pending.prompt.messages,
            **reply_fields(pending, verdict, prompt_tokens),
        )
