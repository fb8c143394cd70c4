"""One policy on fixed prompts with fixed seeds: toxicity, quality and distance together."""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lora_detox.clock import Clock
from lora_detox.fitting import PASSES, fitted
from lora_detox.metrics import kl, names
from lora_detox.metrics.agreement import with_agreement
from lora_detox.metrics.bleu import bleu
from lora_detox.metrics.diversity import copied
from lora_detox.metrics.measure import measure_responses
from lora_detox.metrics.rewriting import rewrite_columns
from lora_detox.processes import processes
from lora_detox.progress import advance, phase
from lora_detox.rollout import Generate, Responses, generate_responses
from lora_detox.scores import Encoder, score_prompts
from lora_detox.signals import end_if_asked
from lora_detox.types import Evaluation, Policy, PromptBatch, Sampling, Scorer


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Fixed scorers, sampling and seeds; call it before, during and after training.

    Attributes:
        policy: what is evaluated, with its reference.
        reward: the scorer of training.
        judge: a scorer that training never sees, or None.
        sampling: how tokens are drawn, or greedy.
        generation: further arguments of `generate_responses`.
        batch_size: rows per forward pass of the KL and perplexity.
        seed: of the draws, the same in each call.
        perplexity: whether responses are measured under the reference policy.
        clock: where the time is counted, as "evaluate".
        encoder: what measures the relevance of responses to their prompts, or None.
        generate: how responses are made; plain sampling, or a decoding.
        word_list: a scorer of another kind than the classifiers, or None.
        rewrites: whether responses say anew what their prompts say, so that BLEU is measured.
        quantized: whether weights are stored in 8 or 4 bits; tokens are then drawn with other
            logprobs than those of a forward pass over the responses.
    """

    policy: Policy
    reward: Scorer
    judge: Scorer | None
    sampling: Sampling
    generation: dict[str, Any]
    batch_size: int
    seed: int
    perplexity: bool
    clock: Clock
    encoder: Encoder | None = None
    generate: Generate = generate_responses
    rewrites: bool = False
    word_list: Scorer | None = None
    quantized: bool = False

    def __call__(self, prompts: PromptBatch, what: str = "evaluating") -> Evaluation:
        """Answer every prompt once and measure the responses, never the prompts.

        Args:
            prompts: B prompts.
            what: is done, as the progress shows it.

        Returns:
            The evaluation, with the KL to the reference (nats per response, k1 and k3).
        """
        passes = 3 + (self.judge is not None) + (self.encoder is not None)
        count = len(prompts.texts)
        with self.clock("evaluate"), phase(what, count, "responses", passes=passes) as shown:
            begin = time.monotonic()
            responses = self.generate(
                self.policy, prompts, self.sampling, **self.generation, seed=self.seed
            )
            cost = _cost(responses, time.monotonic() - begin)
            shown.finish_pass(1)
            logprobs, ref_logprobs = self._logprobs(prompts, responses)
            shown.finish_pass(2)
            scores = score_prompts(self.reward, prompts, responses.texts)
            shown.finish_pass(3)
            judged = self.judge.score(prompts.texts, responses.texts) if self.judge else None
            if self.judge is not None:
                shown.finish_pass(4)
            relevance = self._relevance(prompts, responses)
            nll = (-ref_logprobs).sum(dim=1).tolist() if self.perplexity else None
            evaluation = measure_responses(
                prompts=prompts.texts,
                responses=responses.texts,
                references=prompts.references,
                toxicity=scores.toxicity.tolist(),
                judge_toxicity=None if judged is None else judged.toxicity.tolist(),
                scores=scores.score.tolist(),
                response_tokens=responses.mask.sum(dim=1).tolist(),
                reference_nll=nll,
            )
        further = self._further(prompts, responses, (logprobs, ref_logprobs))
        if relevance is not None:
            further[names.RELEVANCE] = relevance
        further |= rewrite_columns(
            scores.factors, scores.toxicity, None if judged is None else judged.toxicity
        )
        corpus = dict(evaluation.corpus)
        if self.rewrites and any(prompts.references):
            corpus[names.BLEU] = bleu(responses.texts, prompts.references)
        per_response = {**evaluation.per_response, **further}
        return with_agreement(
            replace(
                evaluation,
                per_response=per_response,
                corpus=corpus,
                cost=cost,
                columns=prompts.columns,
            )
        )

    def _further(
        self, prompts: PromptBatch, responses: Responses, logprobs: tuple[Tensor, Tensor]
    ) -> dict[str, list[float]]:
        """Distance from the reference, copies and listed words, each [B]."""
        mask = responses.mask.cpu()
        further = {
            names.REF_KL: kl.response_sums(kl.k1(*logprobs), mask).tolist(),
            names.REF_KL_K3: kl.response_sums(kl.k3(*logprobs), mask).tolist(),
            names.COPIED: list(map(copied, prompts.sources or prompts.texts, responses.texts)),
        }
        if self.word_list is not None:
            listed = self.word_list.score(prompts.texts, responses.texts)
            further[names.LISTED_WORDS] = listed.toxicity.tolist()
        return further

    def _relevance(self, prompts: PromptBatch, responses: Responses) -> list[float] | None:
        if self.encoder is None:
            return None
        cosine = self.encoder.relevance(prompts.texts, responses.texts, keep_prompts=True)
        return cosine.tolist()

    @torch.no_grad()
    def _logprobs(self, prompts: PromptBatch, responses: Responses) -> tuple[Tensor, Tensor]:
        """Logprobs under policy and reference [B, R], on the CPU, at temperature 1.

        Plain sampling at temperature 1 has drawn with the policy's own, so that only the reference
        reads the responses. Before training both are one model.
        """
        own = responses.logprobs.float().cpu()
        plain = self.generate is generate_responses and self.sampling == Sampling()
        drawn_is_own = plain and not self.quantized
        readings = 1 if drawn_is_own or self.policy.is_reference else 2
        if not drawn_is_own:
            own = self._read(prompts, responses, readings)
        if self.policy.is_reference:
            return own, own
        with self.policy.reference():
            return own, self._read(prompts, responses, readings)

    def _read(self, prompts: PromptBatch, responses: Responses, readings: int) -> Tensor:
        """Logprobs [B, R] by forward passes over the responses, on the CPU.

        The progress counts `readings` of them as one.
        """
        logprobs = torch.zeros(responses.mask.shape)
        lengths = prompts.query_mask.sum(dim=1) + responses.mask.sum(dim=1)

        def read(rows: Tensor) -> None:
            end_if_asked()
            queries = prompts.query_ids[rows], prompts.query_mask[rows]
            batch = (*queries, responses.ids[rows], responses.mask[rows], Sampling())
            outputs = self.policy.respond(*batch, with_entropy=False)
            logprobs[rows.cpu()] = outputs.logprobs.cpu()
            advance(len(rows) / readings)

        own = processes().share(lengths.argsort(descending=True, stable=True))
        for rows in filter(len, own.split(self.batch_size)):
            fitted(PASSES, rows, read)
        processes().fill(own, logprobs)
        return logprobs


def _cost(responses: Responses, seconds: float) -> dict[str, float]:
    tokens = int(responses.mask.sum()) + responses.discarded_tokens
    return {names.GENERATED_TOKENS: tokens, names.GENERATION_SECONDS: seconds}
