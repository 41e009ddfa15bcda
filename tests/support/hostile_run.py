"""A run whose prompts, responses and raw votes are what nobody wants in a page: HTML, scripts, control and direction characters, endless lines."""

import json
from pathlib import Path

from sparta.recipes.load import load
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Response, Vote
from sparta.store.run import Run
from sparta.store.shards import read_shards
from support.openings import begin_or_continue
from support.scripted_run import advance, write_recipe

HOSTILE = {
    "html": "</pre></main><h1>pwned</h1><img src=x onerror=alert(1)>",
    "script": "</script><script>alert(1)</script><!-- <style>*{display:none}</style>",
    "control": "a\x00b\x1b[31mc\x07\x9b",
    "direction": "\u202eright to left\u2066 \u200f",
    "arabic": "\u0645\u0631\u062d\u0628\u0627 hello",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1ea\U0001f1fa",
    "long": "x" * 100_000,
    "template": "{{ 7 * 7 }} {% raw %} ${page}",
}


def hostile(folder: Path) -> Run:
    """A merged iteration whose prompts, responses and raw votes are hostile."""
    texts = list(HOSTILE.values())
    path = write_recipe(folder, models=4, combats=16, name="<b>run</b>")
    prompts = (json.dumps({"id": f"q{n}", "prompt": texts[n % len(texts)] + str(n)}) for n in range(30))
    (folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    run = begin_or_continue(StateDir(folder / "state"), load(path))
    advance(run, 1, upto="judge")
    [responses] = run.iteration(1).responses.iterdir()
    rows = list(read_shards(run.iteration(1).responses, Response).values())
    files.write_rows(
        responses,
        [
            Response(
                row.combat_id,
                row.model,
                f"{n} {texts[n % len(texts)]}",
                row.token_ids,
                row.tokenizer,
                1,
                row.new_tokens,
                "stop",
            )
            for n, row in enumerate(rows)
        ],
    )
    [votes] = run.iteration(1).votes.iterdir()
    given = list(read_shards(run.iteration(1).votes, Vote).values())
    files.write_rows(
        votes,
        [
            Vote(row.combat_id, row.contestant, row.judge, row.score, texts[n % len(texts)], 1)
            for n, row in enumerate(given)
        ],
    )
    advance(run, 1)
    return run
