"""Responses of training sampled by a vLLM server that loads the adapter anew each time.

The server's own interface is used (vLLM 0.10 and later): /v1/load_lora_adapter makes a LoRARequest
of a folder, /v1/completions takes token ids and gives token ids and their logprobs back. Each load
has a name of its own, so that no cached prefix of an earlier adapter can be used.
"""

import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_detox.errors import RolloutError
from lora_detox.rollout.generation import Responses
from lora_detox.rollout.vllm_server import VllmServer
from lora_detox.signals import end_if_asked
from lora_detox.types import Policy, PromptBatch, Sampling

_UNLIKELIEST = -9999.0
"""What vLLM writes for a logprob of minus infinity."""


class VllmRollouts:
    """Answers prompts as `generate_responses` does, by a server.

    Args:
        server: of the policy's base model.
        base: name under which it serves that.
        save_adapter: writes the adapter as it is now into a folder.
        folder: for adapters, which the server sees under the same path.
        requests: at a time.
    """

    def __init__(
        self,
        server: VllmServer,
        base: str,
        save_adapter: Callable[[Path], None],
        folder: Path,
        *,
        requests: int,
    ) -> None:
        self._server, self.base, self._save = server, base, save_adapter
        self._folder, self._requests = folder.absolute(), requests
        self._tag, self._loads = f"lora_detox-{uuid.uuid4().hex[:8]}", 0

    def __call__(
        self,
        policy: Policy,
        prompts: PromptBatch,
        sampling: Sampling,
        *,
        response_tokens: tuple[int, int],
        batch_size: int,
        seed: int,
    ) -> Responses:
        """One response to each prompt, in their order.

        Args:
            policy: whose adapter the server loads; decodes the texts.
            prompts: B prompts, as ids.
            sampling: temperature and fewest tokens; not greedy, no top-k and top-p.
            response_tokens: each row's bound on new tokens is drawn from this inclusive range, as
                in `generate_responses`.
            batch_size: not read; the server batches itself.
            seed: of bounds and draws. The server's draws differ from ours.

        Returns:
            Responses with the logprobs that the server drew with.

        Raises:
            RolloutError: the server is gone, refuses the adapter, or answers what cannot be used.
        """
        count, (low, high) = len(prompts.texts), response_tokens
        generator = torch.Generator().manual_seed(seed)
        bounds = torch.randint(low, high + 1, (count,), generator=generator).tolist()
        seeds = torch.randint(0, 2**31 - 1, (count,), generator=generator).tolist()
        queries = [
            ids[mask].tolist()
            for ids, mask in zip(prompts.query_ids, prompts.query_mask, strict=True)
        ]
        ends = policy.eos_token_ids
        name = self._load()
        try:
            bodies = [
                _body(name, query, bound, sampling, ends, row_seed)
                for query, bound, row_seed in zip(queries, bounds, seeds, strict=True)
            ]
            with ThreadPoolExecutor(self._requests) as pool:
                choices = list(pool.map(self._complete, bodies))
        finally:
            self._forget(name)
        rows = [_row(*both, ends) for both in zip(choices, bodies, strict=True)]
        return _responses(rows, policy, prompts.query_ids.device)

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._server.complete(body)

    def _load(self) -> str:
        """Write the adapter and have the server load it; its name there."""
        end_if_asked()
        self._loads += 1
        name = f"{self._tag}-{self._loads}"
        self._save(self._folder / name)
        try:
            self._server.load(name, self._folder / name)
        except RolloutError:
            shutil.rmtree(self._folder / name, ignore_errors=True)
            raise
        return name

    def _forget(self, name: str) -> None:
        with suppress(RolloutError):  # it has done its work; a server that is gone shows next time
            self._server.unload(name)
        shutil.rmtree(self._folder / name, ignore_errors=True)


def _body(
    model: str, query: list[int], bound: int, sampling: Sampling, ends: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """A request for one response; what a model's own defaults could change is said."""
    return {
        "model": model,
        "prompt": query,
        "max_tokens": bound,
        "min_tokens": min(sampling.min_new_tokens, bound),
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": list(ends),
        "seed": seed,
        "n": 1,
        "logprobs": 1,
        "return_token_ids": True,
        "add_special_tokens": False,
        "skip_special_tokens": False,
    }


def _row(
    choice: dict[str, Any], body: dict[str, Any], ends: tuple[int, ...]
) -> tuple[list[int], list[float]]:
    """Ids and logprobs of one response, checked.

    Args:
        choice: of the server.
        body: of its request.
        ends: ids that end a response.

    Returns:
        Both, of one length.

    Raises:
        RolloutError: the answer is not what was asked for.
    """
    try:
        ids = [int(one) for one in choice["token_ids"]]
        logprobs = [float(one) for one in choice["logprobs"]["token_logprobs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RolloutError(
            "rollout.url: the server gives no token ids with logprobs (return_token_ids); want "
            "vLLM 0.10.2 or later"
        ) from error
    sent = choice.get("prompt_token_ids")
    if sent is not None and list(sent) != body["prompt"]:
        raise RolloutError(
            f"rollout.url: the server read another prompt than was sent ({len(sent)} tokens for "
            f"{len(body['prompt'])}); its model or tokenizer is not the policy's"
        )
    if not 0 < len(ids) <= body["max_tokens"] or len(ids) != len(logprobs):
        raise RolloutError(
            f"rollout.url: got {len(ids)} tokens and {len(logprobs)} logprobs for a response of at "
            f"most {body['max_tokens']}; its model is not the policy's"
        )
    ended = choice.get("finish_reason") == "stop"
    if ended and ids[-1] not in ends:
        raise RolloutError(
            f"rollout.url: the server ended a response at token {ids[-1]}, which is none of the "
            f"policy's ends {list(ends)}; start it with --generation-config vllm"
        )
    if any(one in ends for one in ids[:-1]):
        raise RolloutError("rollout.url: the server wrote on behind an end token")
    return ids, [one if one > _UNLIKELIEST else float("-inf") for one in logprobs]


def _responses(
    rows: list[tuple[list[int], list[float]]], policy: Policy, device: torch.device
) -> Responses:
    """Rows as padded tensors."""
    lengths = [len(ids) for ids, _ in rows]
    width = max(lengths)
    ids = torch.full((len(rows), width), policy.pad_token_id)
    logprobs = torch.zeros((len(rows), width))
    for row, (tokens, numbers) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        logprobs[row, : len(tokens)] = torch.tensor(numbers)
    mask: Tensor = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    ids, mask, logprobs = ids.to(device), mask.to(device), logprobs.to(device)
    texts = policy.decode_texts(ids, mask)
    return Responses(ids=ids, mask=mask, logprobs=logprobs, texts=texts)
