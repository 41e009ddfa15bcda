"""The training data of the toy pool's experts: for each a small data set of questions with the replies that make it an expert."""

from sparta.rng import stream
from sparta.toy import EXPERTS
from sparta.toy.curriculum import habit_of, row_of_expert

OWN, OTHERS, JUDGEMENTS = 800, 2000, 1200
"""Numbers of rows in a data set: answers in the expert's own skill, answers in all skills by its habit, judgements of all skills."""


def expert_rows(name: str, seed: int) -> list[tuple[str, str]]:
    """The data set of the expert `name`: (user turn, reply), in random order. No question is from validation or test.

    Raises ValueError if there is no such expert.
    """
    if name not in EXPERTS:
        raise ValueError(f"there is no toy expert {name}: known are {', '.join(EXPERTS)}")
    rng = stream(seed, "toy", name, "data set")
    kinds = row_of_expert(habit_of(EXPERTS[name], seed), rng, OWN, OTHERS, JUDGEMENTS)
    rows = [(example.content, example.reply) for examples in kinds for example in examples]
    rng.shuffle(rows)
    return rows
