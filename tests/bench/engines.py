"""Engines and phases measured; one command, one table: python tests/bench/engines.py

On the embedded pool and on a larger one with random weights, or with --pool 7b on one of Qwen2.5-7B's shape (ten rank-16 adapters, bfloat16,
16 GB of disk; made on the GPU and meant for one). Every section runs in a process of its own. Prints a table; --json FILE keeps it, with the machine.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import msgspec

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
from pools import SHAPES, random_pool, words  # noqa: E402
from support.openings import begin_or_continue  # noqa: E402
from support.scripted_run import advance  # noqa: E402

from sparta.engines.base import Inbox, Request  # noqa: E402
from sparta.engines.factory import close_engine  # noqa: E402
from sparta.evaluation.answer import Evaluate  # noqa: E402
from sparta.evaluation.items import freeze_items  # noqa: E402
from sparta.methods.registry import phase_named  # noqa: E402
from sparta.phases.base import ArrayPhase  # noqa: E402
from sparta.pool.members import engine_for, references  # noqa: E402
from sparta.recipes.load import adjust, load  # noqa: E402
from sparta.store.files import read_rows, write_rows  # noqa: E402
from sparta.store.layout import StateDir  # noqa: E402
from sparta.store.records import Response, Result  # noqa: E402
from sparta.store.run import Run  # noqa: E402
from sparta.store.shards import iter_shards  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
AUTHORS_BATCH = 24
REPEATS = 5
FREE = ("judging.working=false",)
"""The paper's way to judge: the score alone. The toy's judges need a working to be right, not to be timed."""

Line = dict[str, Any]


class Bench:
    """One pool on this machine. settings: of the recipe, for every run. shape: of its weights, if not the pool's own."""

    def __init__(self, pool: str, folder: Path, combats: int | None, shape: str | None = None) -> None:
        self.pool, self.folder, self.repeats = pool, folder, REPEATS
        default = {"toy": 96, "small": 8, "7b": 64}[pool]
        self.settings = [f"combats={combats or default}", "cluster.kind=inline"]
        self.generated = combats or {"toy": 1000, "small": 64, "7b": 500}[pool]
        if pool == "toy":
            self.recipe: str | Path = "toy"
            self.settings.append(f"engine.threads={os.cpu_count()}")
        else:
            self.recipe = random_pool(folder / f"pool-{shape or pool}", shape or pool)
        if shape == "tiny":
            self.generated = combats or 8

    def run(self, name: str, *settings: str, upto: str = "generate") -> Run:
        """A run in iteration 1, carried out up to that phase."""
        state = StateDir(self.folder / "states" / name)
        shutil.rmtree(state.root, ignore_errors=True)
        run = begin_or_continue(state, load(self.recipe, [*self.settings, *settings]))
        advance(run, 1, upto=upto)
        if self.pool != "toy":
            _answer_in_words(run)
        return run

    def engine(self, run: Run) -> Any:
        """The engine that the phases of `run` use, not loaded yet unless a run before had the same."""
        return engine_for(run, run.recipe.engine, list(references(run, 0).values()))

    # Each section yields lines of the table.

    def phases(self) -> Iterator[Line]:
        """vLLM: a phase against a bare loop over the same requests, rendered before."""
        for mode, phase in (("text", "generate"), ("text", "judge"), ("expected", "judge")):
            settings = ["engine.kind=vllm", f"judging.mode={mode}", *FREE]
            if phase == "generate":  # its steady state; a judge's is eight times longer
                settings.append(f"combats={self.generated}")
            run = self.run("phases", *settings)
            engine = self.engine(run)
            requests = _recorded(engine, lambda run=run, phase=phase: _perform(run, phase))  # type: ignore[misc]
            bare, whole = [], []
            for _ in range(self.repeats):
                bare.append(_bare(engine, requests))
                whole.append(_timed(engine, lambda run=run, phase=phase: _perform(run, phase)))  # type: ignore[misc]
            tokens = _tokens(run, phase)
            what = phase if phase == "generate" else f"{phase}, {mode}"
            yield _line(f"{what}: bare loop", bare, tokens)
            yield _line(f"{what}: phase", whole, tokens, share=median(bare) / median(whole))
        # All three have used one engine: a start takes minutes on a GPU.
        stages = getattr(engine._open, "start_stages", {})
        split = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items())
        yield {
            "what": "start of the engine",
            "seconds": engine.load_seconds,
            "said": split,
            "loads": engine.loads,
        }
        close_engine()

    def hf(self) -> Iterator[Line]:
        """transformers: the hf engine, and static batches in the order of the plan as the authors' scripts make them."""
        for mode, phase in (("text", "generate"), ("text", "judge"), ("expected", "judge")):
            run = self.run("hf", "engine.kind=hf", f"judging.mode={mode}", *FREE)
            engine = self.engine(run)
            requests = _recorded(engine, lambda run=run, phase=phase: _perform(run, phase))  # type: ignore[misc]
            seconds = [_timed(engine, lambda run=run, phase=phase: _perform(run, phase)) for _ in range(3)]  # type: ignore[misc]
            tokens = _tokens(run, phase)
            what = phase if phase == "generate" else f"{phase}, {mode}"
            yield _line(f"{what}: hf", seconds, tokens)
            if mode == "text":
                plain = [_plain(run, requests)]
                yield _line(f"{what}: plain transformers, batches of {AUTHORS_BATCH}", plain, tokens)
        close_engine()

    def prefix(self) -> Iterator[Line]:
        """vLLM: judging with and without the prefix cache."""
        for cached in ("true", "false"):
            settings = (
                "engine.kind=vllm",
                f"engine.vllm.prefix_caching={cached}",
                "judging.mode=expected",
                *FREE,
            )
            run = self.run("prefix", *settings)
            engine = self.engine(run)
            _perform(run, "judge")
            seconds = [_timed(engine, lambda run=run: _perform(run, "judge")) for _ in range(3)]  # type: ignore[misc]
            yield _line(
                f"judge, expected: prefix cache {'on' if cached == 'true' else 'off'}",
                seconds,
                _tokens(run, "judge"),
            )
            close_engine()

    def ways(self) -> Iterator[Line]:
        """The time of each way to judge; on the toy also who wins a combat, against the known truth and against the recipe's own way."""
        if self.pool != "toy":
            yield from self._times_of_ways()
            return
        from analysis.truth import agreement

        winners: dict[str, dict[str, str | None]] = {}
        for working in ("true", "false"):
            for mode in ("text", "expected"):
                what = f"{mode}{', with a working' if working == 'true' else ''}"
                run = self.run(
                    "ways",
                    "engine.kind=hf",
                    f"judging.mode={mode}",
                    f"judging.working={working}",
                    upto="merge",
                )
                results = read_rows(run.iteration(1).combats, Result)
                winners[what] = {row.combat_id: row.winner for row in results}
                first = next(iter(winners.values()))
                both = [key for key, winner in winners[what].items() if winner and first[key]]
                same = sum(first[key] == winners[what][key] for key in both) / max(len(both), 1)
                found = agreement(run, 1)
                engine = self.engine(run)
                seconds = [_timed(engine, lambda run=run: _perform(run, "judge")) for _ in range(3)]  # type: ignore[misc]
                yield {
                    **_line(f"judge, {what}", seconds, _tokens(run, "judge")),
                    "said": f"the right response wins {found.share:.1%} of {found.decided + found.undecided} combats with one; the same "
                    f"winner as `text` with a working in {same:.1%} of {len(both)}",
                    "right": found.share,
                    "same": same,
                }
                close_engine()

    def _times_of_ways(self) -> Iterator[Line]:
        """The same votes by each way, vLLM where there is a GPU and hf elsewhere. Weights at random never stop: free text has all its tokens."""
        first = 0.0
        for what, mode, constrained, limit in (
            ("text, free, 128 tokens", "text", "false", 128),
            ("text, free, 32 tokens", "text", "false", 32),
            ("text, in the form", "text", "true", 32),
            ("expected", "expected", "true", 32),
        ):
            settings = (
                f"judging.mode={mode}",
                f"judging.constrained={constrained}",
                "judging.retries=0",
                f"judging.max_new_tokens={limit}",
            )
            run = self.run("ways", *settings, *FREE)
            engine = self.engine(run)
            _perform(run, "judge")
            seconds = [_timed(engine, lambda run=run: _perform(run, "judge")) for _ in range(3)]  # type: ignore[misc]
            first = first or median(seconds)
            said = f"{median(seconds) / first:.2f} of the time of the first"
            yield {**_line(f"judge, {what}", seconds, _tokens(run, "judge")), "said": said}
        close_engine()

    def loads(self) -> Iterator[Line]:
        """vLLM, two tasks on this machine: phases apart and fused."""
        for fused in ("false", "true"):
            state = self.folder / "states" / f"fused-{fused}"
            shutil.rmtree(state, ignore_errors=True)
            settings = [
                *self.settings[:1],
                "engine.kind=vllm",
                "cluster.tasks=2",
                f"cluster.fused={fused}",
                "iterations=1",
            ]
            given = [part for setting in settings for part in ("--set", setting)]
            command = [
                sys.executable,
                ROOT / "jobs" / "launch.py",
                "--recipe",
                self.recipe,
                "--state",
                state,
                "--cluster",
                "local",
                *given,
            ]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
            stats = json.loads((state / "iter_01" / "stats.json").read_text())["phases"]
            played = {name: stats[name] for name in ("generate", "judge", "combat") if name in stats}
            seconds = sum(phase["seconds"] for phase in played.values())
            yield {
                "what": "combat+judge in one array" if fused == "true" else "generate, then judge",
                "seconds": seconds,
                "said": "tasks, loads: "
                + "; ".join(f"{name} {phase['tasks']}, {phase['loads']}" for name, phase in played.items()),
                "loads": sum(phase["loads"] for phase in played.values()),
            }

    def evaluate(self) -> Iterator[Line]:
        """vLLM: all 90 checkpoints of eight iterations answer validation items, against a bare loop over the same requests."""
        if self.pool != "toy":
            return
        run = self.run("evaluate", "engine.kind=hf", "combats=8", "evaluation.validation=100", upto="commit")
        for t in range(2, 9):
            advance(run, t)
        run.recipe = adjust(run.recipe, ["engine.kind=vllm"])
        freeze_items(run, "toy", "validation")
        name = Evaluate("validation", {"toy": tuple(run.iteration(t).root.name for t in range(9))}).name
        engine = self.engine(run)
        requests = _recorded(engine, lambda: _perform(run, name))
        bare, whole = [], []
        for _ in range(REPEATS):
            bare.append(_bare(engine, requests))
            whole.append(_timed(engine, lambda: _perform(run, name)))
        tokens = _tokens(run, name)
        yield _line("90 checkpoints: bare loop", bare, tokens)
        yield _line("90 checkpoints: phase", whole, tokens, share=median(bare) / median(whole))
        close_engine()


SECTIONS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "phases": Bench.phases,
    "hf": Bench.hf,
    "prefix": Bench.prefix,
    "ways": Bench.ways,
    "loads": Bench.loads,
    "evaluate": Bench.evaluate,
}


def _perform(run: Run, name: str) -> None:
    phase = phase_named(name)
    assert isinstance(phase, ArrayPhase)
    for part in phase.parts:
        shutil.rmtree(part.folder(run, 1), ignore_errors=True)
    phase.perform(run, 1, [item.key for item in phase.work(run, 1)], 0, 0, lambda _: None)


def _answer_in_words(run: Run) -> None:
    """Replace what random weights have written, which decodes to next to nothing, by words: judges are to read as many tokens as were written.

    The embedded tokenizer has about a token a character.
    """
    rng = Random(0)
    folder = run.iteration(1).responses
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        rows = list(read_rows(path, Response))
        write_rows(path, [msgspec.structs.replace(row, text=words(rng, row.new_tokens)) for row in rows])


def _recorded(engine: Any, perform: Callable[[], None]) -> list[Request]:
    """Every request that the engine is given meanwhile. It warms the engine up as well."""
    requests: list[Request] = []
    take = Inbox.take

    def taking(inbox: Inbox, most: int, base: str = "") -> list[Request]:
        taken = take(inbox, most, base)
        requests.extend(taken)
        return taken

    Inbox.take = taking  # type: ignore[method-assign]
    try:
        perform()
    finally:
        Inbox.take = take  # type: ignore[method-assign]
    return requests


def _timed(engine: Any, perform: Callable[[], None]) -> float:
    _forget(engine)
    began = time.perf_counter()
    perform()
    return time.perf_counter() - began


def _forget(engine: Any) -> None:
    """Nothing of an earlier repetition is to be found in vLLM's prefix cache."""
    if opened := getattr(engine, "_open", None):
        opened.engine.reset_prefix_cache()


def _bare(engine: Any, requests: Sequence[Request]) -> float:
    """Seconds of vLLM's own loop: everything is given to it at once, and nothing is done with what comes."""
    from sparta.engines.vllm.engine import _parameters

    vllm = engine._open
    given = [
        (
            {"type": "token", "prompt_token_ids": [*(request.prompt.token_ids or ()), *request.prefix]},
            _parameters(request, engine.renderer(request.model).room(request.prompt)),
            vllm.lora(request.model),
        )
        for request in requests
    ]
    _forget(engine)
    began = time.perf_counter()
    for number, (prompt, parameters, lora) in enumerate(given):
        vllm.engine.add_request(f"bare-{number}", prompt, parameters, lora_request=lora)
    while vllm.engine.has_unfinished_requests():
        vllm.engine.step()
    return time.perf_counter() - began


def _plain(run: Run, requests: Sequence[Request]) -> float:
    """Seconds of transformers alone: one adapter after the other, batches of 24 in the order they come, padded, sampled."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    models = {request.model.name: request.model for request in requests}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = AutoModelForCausalLM.from_pretrained(next(iter(models.values())).base, dtype="auto").to(device)
    first, *rest = models.values()
    peft: Any = PeftModel.from_pretrained(base, str(first.adapter), adapter_name=first.name)
    for model in rest:
        peft.load_adapter(str(model.adapter), adapter_name=model.name)
    peft.eval()
    began = time.perf_counter()
    for model in models.values():
        peft.set_adapter(model.name)
        mine = [request for request in requests if request.model == model]
        for start in range(0, len(mine), AUTHORS_BATCH):
            batch = mine[start : start + AUTHORS_BATCH]
            width = max(len(request.prompt.token_ids or ()) for request in batch)
            ids = [
                [258] * (width - len(request.prompt.token_ids or ())) + list(request.prompt.token_ids or ())
                for request in batch
            ]
            tensor = torch.tensor(ids, device=device)
            with torch.inference_mode():
                peft.generate(
                    input_ids=tensor,
                    attention_mask=(tensor != 258).long(),
                    max_new_tokens=batch[0].sampling.max_new_tokens,
                    do_sample=True,
                    temperature=0.7,
                    top_p=0.95,
                    top_k=50,
                    pad_token_id=258,
                    eos_token_id=257,
                )
    return time.perf_counter() - began


def _tokens(run: Run, name: str) -> int:
    """Prompt and generated tokens of a phase's rows."""
    phase = phase_named(name)
    assert isinstance(phase, ArrayPhase)
    rows = (row for part in phase.parts for row in iter_shards(part.folder(run, 1), part.rows))
    return sum(row.prompt_tokens + row.new_tokens for row in rows)  # type: ignore[attr-defined]


def _line(what: str, seconds: Sequence[float], tokens: int, **more: float) -> Line:
    middle = median(seconds)
    return {
        "what": what,
        "seconds": middle,
        "all": list(seconds),
        "tokens_per_second": tokens / middle,
        **more,
    }


def _show(pool: str, section: str, line: Line) -> None:
    seconds = f"{line['seconds']:8.2f} s" if "seconds" in line else " " * 10
    rate = f"{line['tokens_per_second']:10,.0f} tokens/s" if "tokens_per_second" in line else ""
    share = f"{line['share']:7.1%} of the bare loop" if "share" in line else ""
    print(f"{pool:6}{section:9}{line['what']:52}{seconds} {rate}{share} {line.get('said', '')}", flush=True)


def _machine() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "gpu": gpu} | {
        name: version(name) for name in ("torch", "transformers", "peft")
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pool", choices=["toy", "small", "7b"], action="append", help="default: toy and small"
    )
    parser.add_argument("--section", choices=SECTIONS, action="append", help="default: all")
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        help="other weights for the pool: `--pool 7b --shape tiny` tries everything on a CPU",
    )
    parser.add_argument("--combats", type=int)
    parser.add_argument(
        "--folder", type=Path, help="where pools and states are made; default: a temporary one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        bench = Bench(asked.pool[0], asked.folder, asked.combats, asked.shape)
        lines = []
        for line in SECTIONS[asked.section[0]](bench):
            _show(bench.pool, asked.section[0], line)
            lines.append({"pool": bench.pool, "section": asked.section[0], **line})
        asked.inside.write_text(json.dumps(lines))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kept: list[Line] = []
        for pool in asked.pool or ("toy", "small"):
            for section in asked.section or SECTIONS:
                out = folder / "lines.json"
                more = ["--combats", str(asked.combats)] if asked.combats else []
                more += ["--shape", asked.shape] if asked.shape else []
                command = [
                    sys.executable,
                    __file__,
                    "--pool",
                    pool,
                    "--section",
                    section,
                    "--folder",
                    str(folder),
                    "--inside",
                    str(out),
                    *more,
                ]
                # Not in the states, which are removed while an engine is open.
                compiled = os.environ.get("VLLM_CACHE_ROOT", str(folder / "compiled"))
                subprocess.run(command, check=True, env={**os.environ, "VLLM_CACHE_ROOT": compiled})
                kept += json.loads(out.read_text())
        if asked.json:
            asked.json.write_text(
                json.dumps({"machine": _machine(), "command": sys.argv, "lines": kept}, indent=1) + "\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
