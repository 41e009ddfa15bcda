"""Scores given tokens without decoding: probabilities of labels, log-likelihoods of continuations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparta.engines.base import Completion
from sparta.engines.hf.batching import Batch, BatchRow
from sparta.engines.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

_LOGITS_A_TOKEN = 8192


def logits_in_tokens(kept: int, vocabulary: int) -> int:
    """The cost of `kept` rows of logits in a batch, in tokens, so that `batch_tokens` bounds their memory too.

    8,192 logits count as one token: with a vocabulary of 152,000, each scored token counts as 19, and the logits of a batch of 32,768
    tokens take half a GiB in bfloat16.
    """
    return -(-kept * vocabulary // _LOGITS_A_TOKEN)


def scored(
    batch: Batch, module: Any, weights: Weights, input_ids: "Tensor", mask: "Tensor"
) -> list[Completion]:
    """Completions of a batch of label requests, or of requests with a continuation, in one forward pass.

    input_ids, mask: [rows, width], padded on the left.
    """
    continuations = [row.request.continuation for row in batch.rows]
    kept = max(1, *map(len, continuations))
    logits = _last_logits(module, weights, input_ids, mask, kept)
    if continuations[0]:
        logs = _log_likelihoods(logits, continuations)
        return [replace(_scored(row), log_likelihood=log) for row, log in zip(batch.rows, logs, strict=True)]
    labels = [label.token for label in batch.rows[0].request.labels]
    shares = logits[:, -1, labels].float().softmax(-1).tolist()
    return [
        replace(_scored(row), label_probs=tuple(share)) for row, share in zip(batch.rows, shares, strict=True)
    ]


def _scored(row: BatchRow) -> Completion:
    prompt_tokens = len(row.request.prompt.token_ids or ())
    return Completion(row.request.key, "", (), prompt_tokens, "stop", 0.0)


def _last_logits(module: Any, weights: Weights, input_ids: "Tensor", mask: "Tensor", kept: int) -> "Tensor":
    """Logits after each of the last `kept` tokens, [rows, kept, vocabulary], in the model's own type."""
    arguments: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask}
    if weights.forward_takes("position_ids"):
        arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    if weights.forward_takes("logits_to_keep"):
        arguments["logits_to_keep"] = kept
    logits: Tensor = module(**arguments, use_cache=False).logits
    return logits[:, -kept:]


def _log_likelihoods(logits: "Tensor", continuations: Sequence[Sequence[int]]) -> list[float]:
    """Log-likelihood of each continuation, in nats.

    logits: [rows, kept, vocabulary]; the last n positions of a row predict its continuation of n tokens. Rows are converted to float32
    one by one: all at once would take at least twice the memory of the model's output.
    """
    import torch

    sums = []
    for row, continuation in zip(logits, continuations, strict=True):
        values = row[-len(continuation) :].float()
        tokens = torch.tensor(continuation, device=values.device)
        logs = values.gather(-1, tokens[:, None]).squeeze(-1) - values.logsumexp(-1)
        sums.append(logs.double().sum())
    return list(torch.stack(sums).tolist())
