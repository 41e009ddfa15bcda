"""Whether the rows of a step lie one behind the other in one sequence (packed), or beneath each other, each filled to the longest (padded).

Either way every row sees itself alone, and the numbers are the same up to rounding.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from sparta.errors import SpartaError
from sparta.training.job import SftExample, SftJob


def is_packed(job: SftJob, rows: Sequence[SftExample], order: Sequence[int], model: Any) -> bool:
    """Whether `job` packs: as `pool.sft.packing` says, or where it pays and the base can.

    It depends on the rows, their order and the base alone, so that a job goes on elsewhere as it began. Raises SpartaError where packing
    is asked for and rows would see each other.
    """
    wanted = job.settings.packing
    base = model.get_base_model()
    size = job.settings.batch_size
    steps = [[rows[i].length for i in order[at : at + size]] for at in range(0, len(order), size)]
    if wanted is False or (wanted is None and not pays(steps, *_costs(base))):
        return False
    if keeps_rows_apart(base):
        return True
    if wanted:
        raise SpartaError(
            f"The base of {job.model}, {job.base}, mixes rows that lie one behind the other: set pool.sft.packing to false or null."
        )
    return False


def pays(steps: Sequence[Sequence[int]], token: float, pair: float) -> bool:
    """Whether packed rows cost less arithmetic than padded ones; steps: the lengths of the rows of each.

    token: multiplications for a token outside of attention. pair: those in attention for a token that looks at another. Padding costs
    `token` for every filling token; packing costs `pair` for every two tokens of different rows, which are masked and computed all the same.
    So a large base packs nearly always: at 7B, four rows of up to 2,048 tokens, attention is a tenth of the work at most and filling a third. A small
    one packs short rows and pads where many long ones make a step.
    """

    def cost(sequences: int, length: int) -> float:
        return sequences * length * (token + pair * length)

    padded = sum(cost(len(lengths), max(lengths)) for lengths in steps)
    packed = sum(cost(1, sum(lengths)) for lengths in steps)
    return packed < padded


def _costs(base: Any) -> tuple[float, float]:
    """`token` and `pair` of `pays`: a token is multiplied with every parameter, two tokens meet twice in every layer (query and key, weight
    and value), which counts as once.

    So it agrees with what was measured: seconds packed over padded, on one core with Code Alpaca's rows (two fifths of a step filling), for
    64 to 512 wide bases of two and four layers and 4 to 32 rows a step, were 0.73 to 1.06 where this says 0.72 to 1.13; with every pair
    counted twice it says 0.86 to 1.51.
    """
    config = base.config.get_text_config()
    return float(base.num_parameters()), float(config.hidden_size * config.num_hidden_layers)


def keeps_rows_apart(base: Any) -> bool:
    """Whether what stands in one row leaves the rows behind it in the same sequence untouched, bit for bit; tried out on the base.

    A mask hides other rows entirely, or not at all. Some architectures carry a state along or take no positions, and see them.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    parameters = inspect.signature(base.forward).parameters.values()
    if "position_ids" not in {parameter.name for parameter in parameters} or not any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters
    ):
        return False
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    row, training = [0, 1, 2, 3, 4, 5, 6, 7], base.training
    base.eval()
    try:
        with torch.no_grad():
            seen = []
            for first in (row, row[::-1]):
                given = collate([{"input_ids": first}, {"input_ids": row}])
                del given["labels"]
                given = {
                    name: value.to(base.device) if torch.is_tensor(value) else value
                    for name, value in given.items()
                }
                seen.append(base(**given, use_cache=False).logits[0, len(row) :])
    finally:
        base.train(training)
    return torch.equal(*seen)
