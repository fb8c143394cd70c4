"""Settings -> how a model of stage=evaluate writes: what is read before weights load, and after."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lora_detox.builders.toxic_examples import ToxicExamples
from lora_detox.chat import ChatFormat
from lora_detox.choices import DecodingKind
from lora_detox.decoding.anti_expert import TOXIC, AntiExpert, apart
from lora_detox.decoding.best_of_n import BestOfN
from lora_detox.decoding.contexts import ContextDecoding, edited
from lora_detox.decoding.direction import mean_difference, moved
from lora_detox.decoding.prefix import CivilPrefix
from lora_detox.decoding.projection import mlp_output, projected, toxic_directions
from lora_detox.decoding.states import text_states
from lora_detox.decoding.word_ban import BannedWords, WordBan
from lora_detox.policy.anatomy import decoder_layers
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.token_bytes import token_bytes
from lora_detox.rollout import Generate, generate_responses
from lora_detox.settings import DecodingSettings, TaskSettings, parameters
from lora_detox.types import PromptBatch, Scorer


@dataclass(frozen=True, kw_only=True)
class DecodingPlan:
    """A decoding with everything that was read for it.

    Attributes:
        settings: its keys.
        task: of the call, for chats.
        words: banned ones.
        examples: texts that it learns from; None where it needs none.
    """

    settings: DecodingSettings
    task: TaskSettings
    words: list[str] = field(default_factory=list)
    examples: ToxicExamples | None = None

    @property
    def line(self) -> str:
        """The civil line of this call."""
        return self.settings.chat_prefix if self.task.chat else self.settings.prefix

    @property
    def also_bounds(self) -> str:
        """Which key makes prompts longer, for messages; empty where none does."""
        if self.settings.name is not DecodingKind.civil_prefix:
            return ""
        return f" and decoding.{'chat_prefix' if self.task.chat else 'prefix'}"

    def facts(self) -> dict[str, Any]:
        """Name, keys and what was read, for `summary.json`."""
        facts = parameters(self.settings)
        if self.settings.name is DecodingKind.civil_prefix:
            facts["line"] = self.line
        if self.words:
            facts["banned_words"] = self.words
        if self.examples is not None:
            facts["texts"] = {
                "toxic": len(self.examples.toxic),
                "civil": len(self.examples.civil),
                "paired": self.examples.paired,
            }
        return facts

    def asked(self, prompts: PromptBatch, tokenizer: PreTrainedTokenizerBase) -> PromptBatch:
        """The prompts as the model reads them."""
        if self.settings.name is DecodingKind.civil_prefix:
            return self._prefix(tokenizer).prefixed(prompts)
        return prompts

    def load(self, policy: LoraPolicy, reward: Scorer) -> Generate:
        """How responses are made, once the model is there.

        Args:
            policy: that writes.
            reward: that best of n asks.

        Returns:
            What answers prompts.
        """
        kind = self.settings.name
        if kind is DecodingKind.civil_prefix:
            return self._prefix(policy.tokenizer)
        if kind is DecodingKind.best_of_n:
            return BestOfN(self.settings.n, reward)
        contexts = {
            DecodingKind.bad_words: self._bad_words,
            DecodingKind.anti_expert: self._anti_expert,
            DecodingKind.direction: self._direction,
            DecodingKind.projection: self._projection,
        }
        return contexts[kind](policy) if kind in contexts else generate_responses

    def _prefix(self, tokenizer: PreTrainedTokenizerBase) -> CivilPrefix:
        chat = ChatFormat(tokenizer, self.task.system) if self.task.chat else None
        return CivilPrefix(tokenizer, self.line, chat)

    def _bad_words(self, policy: LoraPolicy) -> Generate:
        ban = WordBan(self.words, token_bytes(policy.tokenizer, policy.vocabulary))
        return ContextDecoding(
            lambda: edited(policy, lambda ids, _mask, _room: BannedWords(ban, len(ids)))
        )

    def _anti_expert(self, policy: LoraPolicy) -> Generate:
        settings = self.settings
        policy.model.load_adapter(settings.adapter, adapter_name=TOXIC, is_trainable=False)
        policy.model.eval()
        keys: dict[str, Any] = {"alpha": settings.alpha, "top_p": settings.top_p}

        @contextmanager
        def context() -> Iterator[None]:
            with (
                apart(policy),
                edited(policy, lambda *batch: AntiExpert(policy, *batch, **keys)),
            ):
                yield

        return ContextDecoding(context)

    def _direction(self, policy: LoraPolicy) -> Generate:
        last = decoder_layers(policy.backbone)[-1]
        (toxic,), (civil,) = self._states(policy, [last])
        direction = mean_difference(toxic, civil)
        return ContextDecoding(lambda: moved(last, direction, self.settings.strength))

    def _projection(self, policy: LoraPolicy) -> Generate:
        layers = decoder_layers(policy.backbone)
        layers = layers[-upper_layers(len(layers), self.settings) :]
        states = zip(*self._states(policy, layers), strict=True)
        directions = [toxic_directions(*pair, self.settings.rank) for pair in states]
        matrices = [mlp_output(layer) for layer in layers]
        return ContextDecoding(lambda: projected(matrices, directions))

    def _states(
        self, policy: LoraPolicy, layers: list[torch.nn.Module]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Of toxic and of civil texts, by layer."""
        if self.examples is None:
            raise ValueError(f"{self.settings.name.value} was planned without examples")
        toxic, civil = self.examples.toxic, self.examples.civil
        at = self.settings.position
        return text_states(policy, toxic, layers, at), text_states(policy, civil, layers, at)


def upper_layers(layers: int, settings: DecodingSettings) -> int:
    """How many of the upper layers `layers` of the settings names, at least one."""
    return max(1, round(layers * settings.layer_fraction))
