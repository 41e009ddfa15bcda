"""Which requests share a forward pass."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.engine_contract import SAMPLED, ref

from sparta.chat.renderer import Prompt
from sparta.engines.base import Request
from sparta.engines.hf.batching import BatchRow, batches

MODELS = [ref("a", Path("one"), None), ref("b", Path("one"), Path("b")), ref("c", Path("two"), None)]


def row(number: int, model: int = 0, length: int = 3, limit: int = 4, temperature: float = 0.7) -> BatchRow:
    ids = tuple(range(length))
    sampling = replace(SAMPLED, temperature=temperature)
    return BatchRow(Request(str(number), MODELS[model], Prompt((), ids), sampling, number), ids, limit)


def weighed(number: int, model: int = 0, length: int = 3, logits: int = 4, continuation: int = 2) -> BatchRow:
    asked = row(number, model, length).request
    return BatchRow(replace(asked, continuation=(1,) * continuation), asked.prompt.token_ids or (), 0, logits)


rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(1, 20), st.sampled_from([0.0, 0.7])),
    max_size=40,
).map(lambda drawn: [row(number, *values) for number, values in enumerate(drawn)])


@given(rows, st.integers(1, 400))
def test_every_row_is_in_one_batch_within_the_budget(given_rows: list[BatchRow], budget: int) -> None:
    made = list(batches(given_rows, budget))
    assert sorted(int(r.request.key) for batch in made for r in batch.rows) == list(range(len(given_rows)))
    for batch in made:
        assert len(batch.rows) == 1 or len(batch.rows) * (batch.width + batch.limit) <= budget
        assert {r.request.model for r in batch.rows} == {batch.model}
        assert {r.request.sampling.temperature for r in batch.rows} == {batch.sampling.temperature}


weighed_rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(1, 60), st.integers(1, 5)), max_size=40
).map(lambda drawn: [weighed(1000 + number, *values) for number, values in enumerate(drawn)])


@given(rows, weighed_rows, st.integers(1, 400))
def test_logits_count_and_continuations_have_batches_of_their_own(
    decoded: list[BatchRow], given_rows: list[BatchRow], budget: int
) -> None:
    made = list(batches([*decoded, *given_rows], budget))
    assert sum(len(batch.rows) for batch in made) == len(decoded) + len(given_rows)
    for batch in made:
        assert len({bool(r.request.continuation) for r in batch.rows}) == 1
        logits = max(r.logits for r in batch.rows)
        assert len(batch.rows) == 1 or len(batch.rows) * (batch.width + batch.limit + logits) <= budget


@given(rows, st.integers(1, 400))
def test_each_model_comes_once(given_rows: list[BatchRow], budget: int) -> None:
    made = [batch.model for batch in batches(given_rows, budget)]
    turns = [model for i, model in enumerate(made) if i == 0 or made[i - 1] != model]
    assert len(turns) == len(set(turns))


def test_members_with_the_same_weights_share_a_batch() -> None:
    copies = [replace(MODELS[1], name=name) for name in ("b", "b-2", "b-3")]
    learned = replace(copies[2], version="1")
    given_rows = [row(number) for number in range(6)]
    asked = zip(given_rows, [*copies, learned] * 2, strict=False)
    copied = [replace(one, request=replace(one.request, model=model)) for one, model in asked]
    made = list(batches(copied, 1000))
    assert [{r.request.model.name for r in batch.rows} for batch in made] == [{"b", "b-2", "b-3"}, {"b-3"}]
    assert [len(batch.rows) for batch in made] == [5, 1]
