"""Generate: both contestants of every combat answer its prompt (Algorithm 1, line 6)."""

from collections.abc import Sequence
from pathlib import Path

from sparta import rng
from sparta.engines.base import Request, Sampling
from sparta.engines.factory import open_engine
from sparta.engines.labels import check_labels
from sparta.phases.base import RowPhase, Sink, WorkItem
from sparta.phases.pool import references
from sparta.prompts import Message
from sparta.store.records import Response, response_key
from sparta.store.run import Run

CHARACTERS_A_TOKEN = 4.0
"""For costs alone: work is dealt before a tokenizer is loaded."""


class Generate(RowPhase):
    name = "generate"
    rows = Response

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).responses

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        new_tokens, bases = run.recipe.generation.max_new_tokens, run.bases
        return [
            WorkItem(
                response_key(combat.combat_id, model),
                estimated_tokens(combat.messages) + new_tokens,
                group=model,
                base=bases[model],
            )
            for combat in run.plan(t)
            for model in combat.models
        ]

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        recipe = run.recipe
        engine = open_engine(recipe.engine, recipe.pool.trust_remote_code)
        members = references(run, t - 1)
        # Not needed before judging; a recipe that cannot be judged is to fail before hours of generation.
        check_labels(engine, members.values(), recipe.judging)
        wanted = {item.key for item in items}
        duels = {
            response_key(combat.combat_id, model): (combat, members[model])
            for combat in run.plan(t)
            for model in combat.models
            if response_key(combat.combat_id, model) in wanted
        }
        settings = recipe.generation
        sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, settings.max_new_tokens)
        requests = (
            Request(
                key=key,
                model=model,
                prompt=engine.renderer(model).combat(combat.messages),
                sampling=sampling,
                seed=rng.seed_of(recipe.seed, t, "combat", combat.combat_id, model.name),
            )
            for key, (combat, model) in duels.items()
        )
        for completion in engine.run(requests):
            combat, model = duels[completion.key]
            sink.write(
                Response(
                    combat_id=combat.combat_id,
                    model=model.name,
                    text=completion.text,
                    token_ids=completion.token_ids,
                    tokenizer=engine.tokenizer_fingerprint(model) if completion.token_ids else "",
                    prompt_tokens=completion.prompt_tokens,
                    new_tokens=len(completion.token_ids),
                    finish_reason=completion.finish_reason,
                    seconds=completion.seconds,
                )
            )


def estimated_tokens(messages: Sequence[Message]) -> float:
    """Tokens of a prompt, estimated from its characters."""
    return sum(len(message.content) for message in messages) / CHARACTERS_A_TOKEN + 8
