"""Language models with a value head, under the names and with the habits of TRL 0.11."""

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from lora_detox.classic.heads import ValueHead, load_score_head, read_value_head
from lora_detox.classic.publishing import upload
from lora_detox.classic.weights import load_backbone
from lora_detox.machine import keep_freed_memory
from lora_detox.policy.anatomy import cache_keyword
from lora_detox.policy.lean import make_lean
from lora_detox.policy.loading import enable_checkpointing
from lora_detox.policy.value_head import FILE_NAME


class PreTrainedModelWrapper(nn.Module):
    """A model and a value head on its last states; use one of the two subclasses.

    Args:
        pretrained_model: a model with a language-model head, or a PEFT model of one.
        score_module: head of the reward adapter, if there is one.
        rm_adapter_name: name of the reward adapter.
        **v_head_kwargs: for `ValueHead`.
    """

    transformers_parent_class: ClassVar[Any] = None
    lm_head_namings: ClassVar[list[str]] = []
    supported_args: ClassVar[tuple[str, ...]] = (
        "summary_dropout_prob",
        "v_head_initializer_range",
        "v_head_init_strategy",
    )
    encoder_decoder: ClassVar[bool] = False

    def __init__(
        self,
        pretrained_model: Any,
        score_module: nn.Module | None = None,
        rm_adapter_name: str | None = None,
        **v_head_kwargs: Any,
    ) -> None:
        super().__init__()
        self._check(pretrained_model)
        make_lean(pretrained_model)
        self.pretrained_model = pretrained_model
        self.config = pretrained_model.config
        self.is_peft_model = isinstance(pretrained_model, PeftModel)
        self.is_sequential_parallel = False
        self.supports_rm_adapter = score_module is not None
        self.rm_adapter_name = rm_adapter_name
        self.policy_adapter_name = "default"
        if score_module is not None:
            self.score = score_module
        kept = {k: v for k, v in v_head_kwargs.items() if k in self.supported_args}
        self.v_head = ValueHead(self.config, **kept).to(self.backbone.device)
        keep_freed_memory(self.backbone.device)

    @classmethod
    def _check(cls, model: Any) -> None:
        """Refuse what has no language-model head, before anything of the model is used."""
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        if not isinstance(base, PreTrainedModel):
            raise ValueError(
                "from_pretrained takes a name, a folder, a PreTrainedModel or a PeftModel; "
                f"got {type(model)}"
            )
        names = {name.rsplit(".", 1)[-1] for name, _ in base.named_modules()}
        if not names.intersection(cls.lm_head_namings):
            loader = cls.transformers_parent_class.__name__
            raise ValueError(
                f"{type(base).__name__} does not have a language model head "
                f"({', '.join(cls.lm_head_namings)}); load it with {loader}"
            )
        if bool(base.config.is_encoder_decoder) != cls.encoder_decoder:
            other = "Causal" if cls.encoder_decoder else "Seq2Seq"
            raise ValueError(
                f"{type(base).__name__} belongs to the other family than {cls.__name__}; wrap it "
                f"with AutoModelFor{other}LMWithValueHead"
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Wrap a model that is loaded already, or load one from a folder or the hub.

        Args:
            pretrained_model_name_or_path: a folder, a hub id, a model or a PEFT model.
            *args: for the Transformers class.
            **kwargs: `summary_dropout_prob`, `peft_config`, `is_trainable`, `reward_adapter` and
                `reward_adapter_name` are ours; `torch_dtype`, `load_in_8bit` and `load_in_4bit` are
                translated; the rest goes to the Transformers class, or nowhere for a ready model.

        Returns:
            The wrapped model, with the value head's weights where the folder has them.

        Raises:
            ValueError: no language-model head, a prompt-learning adapter, or a `reward_adapter` on
                a model without PEFT.
        """
        source = pretrained_model_name_or_path
        reward_adapter = kwargs.pop("reward_adapter", None)
        reward_name = kwargs.pop("reward_adapter_name", "reward_adapter")
        head_kwargs = {k: kwargs.pop(k) for k in cls.supported_args if k in kwargs}
        if isinstance(source, Path):
            source = str(source)
        if not isinstance(source, str):
            cls._check(source)
        model = load_backbone(cls.transformers_parent_class, source, args, kwargs)
        score_head = None
        if reward_adapter is not None:
            cls._check(model)
            score_head = load_score_head(model, reward_adapter, reward_name)
        wrapper = cls(model, score_module=score_head, rm_adapter_name=reward_name, **head_kwargs)
        saved = read_value_head(source, kwargs.get("token")) if isinstance(source, str) else {}
        if saved:
            wrapper.v_head.load_state_dict(saved, strict=True)
        return wrapper

    @property
    def backbone(self) -> Any:
        """The Transformers model, without PEFT's wrapper around it."""
        model = self.pretrained_model
        return model.get_base_model() if isinstance(model, PeftModel) else model

    @property
    def is_loaded_in_8bit(self) -> bool:
        """True for LLM.int8 backbones."""
        return bool(getattr(self.backbone, "is_loaded_in_8bit", False))

    @property
    def is_loaded_in_4bit(self) -> bool:
        """True for 4-bit backbones."""
        return bool(getattr(self.backbone, "is_loaded_in_4bit", False))

    @property
    def prepare_inputs_for_generation(self) -> Any:
        """The wrapped model's method."""
        return self.pretrained_model.prepare_inputs_for_generation

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Logits (fp32), loss (None without `labels`) and values [B, T].

        Args:
            input_ids: token ids [B, T].
            past_key_values: a cache.
            attention_mask: 1 at real tokens [B, T].
            return_past_key_values: append the cache to the result.
            **kwargs: for the wrapped model, as `labels` or `decoder_input_ids`.

        Returns:
            (logits, loss, values), and the cache with `return_past_key_values`.
        """
        kwargs["output_hidden_states"] = True
        keyword = cache_keyword(self.backbone)
        if past_key_values is not None:
            kwargs[keyword] = past_key_values
        output = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        states = output.decoder_hidden_states if self.encoder_decoder else output.hidden_states
        hidden = states[-1].to(self.v_head.summary.weight.device)
        result = (output.logits.float(), output.loss, self.v_head(hidden)[..., 0])
        return (*result, getattr(output, keyword)) if return_past_key_values else result

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped model's `generate`."""
        return self.pretrained_model.generate(*args, **kwargs)

    def state_dict(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """The wrapped model's keys as they are, and the head's under `v_head.`."""
        prefix = kwargs.pop("prefix", "")
        kwargs["destination"] = self.pretrained_model.state_dict(*args, prefix=prefix, **kwargs)
        state: dict[str, Any] = self.v_head.state_dict(prefix=f"{prefix}v_head.", **kwargs)
        return state

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Read what `state_dict` wrote."""
        head = {k[7:]: v for k, v in state_dict.items() if k.startswith("v_head.")}
        rest = {k: v for k, v in state_dict.items() if not k.startswith("v_head.")}
        self.v_head.load_state_dict(head, strict=strict, assign=assign)
        return self.pretrained_model.load_state_dict(rest, strict=strict, assign=assign)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write a folder that plain Transformers (or PEFT) and the wrapper read.

        A full model's files also hold `v_head.*`; beside an adapter the head goes to
        `value_head.safetensors`, in the engine's own format.

        Args:
            save_directory: is made if need be.
            **kwargs: for the wrapped model, as `max_shard_size`.
        """
        kwargs.pop("safe_serialization", None)  # always safetensors
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        if isinstance(self.pretrained_model, PeftModel):
            kwargs.pop("state_dict", None)
            kwargs.setdefault("selected_adapters", [self.policy_adapter_name])
            self.pretrained_model.save_pretrained(str(save_directory), **kwargs)
            head = self.v_head.summary.state_dict()
            state = {f"linear.{name}": tensor.cpu().contiguous() for name, tensor in head.items()}
            save_file(state, Path(save_directory) / FILE_NAME)
            return
        kwargs["state_dict"] = dict(kwargs.get("state_dict") or self.state_dict())
        self.pretrained_model.save_pretrained(str(save_directory), **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload what `save_pretrained` writes; `token`, `private` and `revision` as on the hub."""
        return upload(self.save_pretrained, repo_id, **kwargs)

    @torch.no_grad()
    def compute_reward_score(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Scores [B, T, labels] of the reward adapter's head at every position.

        Args:
            input_ids: token ids [B, T].
            attention_mask: 1 at real tokens.
            **kwargs: for the wrapped model.

        Returns:
            Raw scores; a sequence's is at its last token.

        Raises:
            ValueError: the model was loaded without `reward_adapter`.
        """
        if not self.supports_rm_adapter:
            raise ValueError(
                "compute_reward_score: the model has no reward adapter; load it with "
                "from_pretrained(..., reward_adapter=FOLDER)"
            )
        training, model = self.training, self.pretrained_model
        self.eval()
        model.set_adapter(self.rm_adapter_name, inference_mode=True)
        try:
            output = model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                output_hidden_states=True,
                **kwargs,
            )
            states = output.decoder_hidden_states if self.encoder_decoder else output.hidden_states
            scores: Tensor = self.score(states[-1].to(self.score.weight.dtype))
        finally:
            model.set_adapter(self.policy_adapter_name)
            self.train(training)
        return scores

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
        """Recompute activations in the backward pass.

        The trainer keeps this working although dropout is off in its training pass.

        Args:
            gradient_checkpointing_kwargs: ignored; checkpoints are never re-entrant.
        """
        enable_checkpointing(self.backbone)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        name = "activation_checkpointing_disable"
        disable = getattr(self.backbone, name, None) or self.backbone.gradient_checkpointing_disable
        disable()

    def enable_input_require_grads(self) -> None:
        """Let gradients reach adapters through a frozen embedding."""
        self.backbone.enable_input_require_grads()


class AutoModelForCausalLMWithValueHead(PreTrainedModelWrapper):
    """A decoder-only model with a value head: GPT-2, GPT-J, GPT-Neo, OPT, BLOOM, Llama."""

    transformers_parent_class = AutoModelForCausalLM
    lm_head_namings: ClassVar[list[str]] = ["lm_head", "embed_out"]


class AutoModelForSeq2SeqLMWithValueHead(PreTrainedModelWrapper):
    """An encoder-decoder model with a value head on the decoder: T5, FLAN-T5, BART."""

    transformers_parent_class = AutoModelForSeq2SeqLM
    lm_head_namings: ClassVar[list[str]] = ["lm_head", "embed_out", "output_projection"]
    encoder_decoder: ClassVar[bool] = True

    @property
    def is_encoder_decoder(self) -> bool:
        """True, as old programs ask."""
        return True
