"""The embedded toy pool: ten small experts on one tiny base, and a task family with exact answers.

The weights are part of the package, so the whole algorithm runs on a laptop within minutes and without a download.
`family` is the task, `tokenizer` the base's tokenizer, `build` rebuilds the weights; `weights/README.md` is the model card.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
BASE = WEIGHTS / "base"

# Expert -> the skill of `family.SKILLS` that it is good at, in the order of the pool.
EXPERTS: dict[str, str] = {
    "adder": "add",
    "taker": "subtract",
    "halver": "halve",
    "picker": "larger",
    "sorter": "sort",
    "turner": "reverse",
    "roller": "rotate",
    "shifter": "shift",
    "mirror": "mirror",
    "swapper": "swap",
}
ADAPTERS: dict[str, Path] = {name: WEIGHTS / "adapters" / name for name in EXPERTS}
