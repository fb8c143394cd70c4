"""A policy that begins with a stored adapter is what plain PEFT makes of it, and all of it learns.

One short row of tokens is read by PEFT's own forward before anything else is done to the model, and
by the policy afterwards.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lora_detox.errors import SettingsError
from lora_detox.policy.policy import LoraPolicy
from lora_detox.types import Sampling

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""How far logprobs of the same weights may differ between two ways through a model, nats."""
_QUERY, _RESPONSE = 6, 5


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """Token ids of one query and of one response to it, without padding."""

    query_ids: Int[Tensor, "1 Q"]
    response_ids: Int[Tensor, "1 R"]


def probe_row(model: Any) -> ProbeRow:
    """A row whose tokens are spread over the vocabulary and are none of its special ones."""
    config = model.config
    special: set[Any] = set()
    for name in ("pad", "bos", "eos"):
        ids = getattr(config, f"{name}_token_id", None)
        special |= set(ids) if isinstance(ids, list | tuple) else {ids}
    size = model.get_input_embeddings().weight.shape[0]
    usual = [token for token in range(size) if token not in special]
    step = max(1, len(usual) // (_QUERY + _RESPONSE))
    row = torch.tensor(usual[::step] * 2, device=model.device)[None, : _QUERY + _RESPONSE]
    return ProbeRow(query_ids=row[:, :_QUERY], response_ids=row[:, _QUERY:])


@torch.no_grad()
def plain_logprobs(model: Any, row: ProbeRow) -> Float[Tensor, "R"]:
    """Logprobs of the response by the forward pass of the model itself, PEFT's included.

    Args:
        model: a PEFT model as it was loaded.
        row: of `probe_row`.

    Returns:
        Nats.
    """
    training = model.training
    model.eval()
    if model.config.is_encoder_decoder:
        start = torch.full_like(row.response_ids[:, :1], model.config.decoder_start_token_id)
        written = torch.cat([start, row.response_ids[:, :-1]], dim=1)
        logits = model(input_ids=row.query_ids, decoder_input_ids=written).logits
    else:
        ids = torch.cat([row.query_ids, row.response_ids], dim=1)
        logits = model(input_ids=ids[:, :-1]).logits[:, row.query_ids.shape[1] - 1 :]
    model.train(training)
    log_p: Tensor = logits.float().log_softmax(dim=-1)
    return log_p.gather(-1, row.response_ids[..., None])[0, :, 0]


def check_start(policy: LoraPolicy, path: str, row: ProbeRow, plain: Float[Tensor, "R"]) -> None:
    """Compare the start with plain PEFT, and see that a gradient reaches whatever learns.

    Args:
        policy: with the stored adapter.
        path: of the adapter, as the settings name it.
        row: that was read.
        plain: logprobs of `plain_logprobs`.

    Raises:
        SettingsError: another start than plain PEFT's, or a parameter that would never learn.
    """
    masks = [torch.ones_like(ids, dtype=torch.bool) for ids in (row.query_ids, row.response_ids)]
    batch = (row.query_ids, masks[0], row.response_ids, masks[1], Sampling())
    with torch.enable_grad():  # a program may load within no_grad
        own = policy.respond(*batch).logprobs[0]
        own.sum().backward()
    names = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    still = [name for name, parameter in names.items() if parameter.grad is None]
    for parameter in names.values():
        parameter.grad = None
    if still:
        raise SettingsError(
            f"policy.adapter: {path} trains {_short(still[0])}"
            f"{f' and {len(still) - 1} more' if len(still) > 1 else ''}, which this model does not "
            "use in a forward pass, so that it would never learn; train the adapter without it"
        )
    gap, most = float((own - plain).detach().abs().max()), TOLERANCE[policy.backbone.dtype]
    if not gap <= most:
        raise SettingsError(
            f"policy.adapter: with {path} the policy's logprobs differ by {gap:.3g} nats from "
            f"plain PEFT's, want at most {most:g}: this adapter is not computed rightly here; "
            "merge it into the base and give that as policy.path"
        )


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".default", "")
