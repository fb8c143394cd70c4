"""Prompts as a tokenizer's chat template writes them: one user message, then the model's turn."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lora_detox.errors import SettingsError

_USER, _ASSISTANT = "USERMESSAGESTANDSHERE", "ASSISTANTMESSAGESTANDSHERE"
"""What is rendered to see where a template puts messages; survives trimming and changes of case."""


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer's chat template around one user message.

    Attributes:
        tokenizer: whose template it is.
        system: message before the user's; None leaves it to the template.
    """

    tokenizer: PreTrainedTokenizerBase
    system: str | None = None

    def render(self, content: str) -> tuple[str, int, int]:
        """The text that the model goes on writing after.

        Args:
            content: the user's message.

        Returns:
            The text, special tokens of the template included (BOS too where it has one), and where
            in it the message starts and ends; a template may have trimmed the message.

        Raises:
            SettingsError: the template refuses the messages or changes more than their ends.
        """
        text = self._text([("user", content)])
        head, tail = self._around
        if not (text.startswith(head) and text.endswith(tail)):
            head, tail = self._split()  # the template tells the date, and it has changed
        start, end = len(head), len(text) - len(tail)
        if start > end or text[:start] != head or text[end:] != tail:
            raise SettingsError(
                "task.chat: the tokenizer's chat template writes more around this user message "
                f"than around another: {content[:80]!r}; use task.chat=false with its markers in "
                "task.template"
            )
        return text, start, end

    @cached_property
    def turn_end(self) -> int | None:
        """Id of the special token that closes a message of the model; None where there is none."""
        text = self._text([("user", _USER), ("assistant", _ASSISTANT)], begin_answer=False)
        _, _, after = text.rpartition(_ASSISTANT)
        encoded: Any = self.tokenizer(after, add_special_tokens=False, verbose=False)
        added = set(self.tokenizer.added_tokens_decoder) | set(self.tokenizer.all_special_ids)
        return next((int(one) for one in encoded["input_ids"] if one in added), None)

    @cached_property
    def _around(self) -> tuple[str, str]:
        return self._split()

    def _split(self) -> tuple[str, str]:
        """What the template writes before and after a user message."""
        pieces = self._text([("user", _USER)]).split(_USER)
        if len(pieces) != 2:
            raise SettingsError(
                f"task.chat: the tokenizer's chat template writes a user message {len(pieces) - 1} "
                "times, want once; use task.chat=false with its markers in task.template"
            )
        return pieces[0], pieces[1]

    def _text(self, messages: list[tuple[str, str]], *, begin_answer: bool = True) -> str:
        whole = [("system", self.system)] if self.system is not None else []
        try:
            template = self.tokenizer.get_chat_template()
            # Templates of models that think aloud: the answer alone is scored.
            options = {"enable_thinking": False} if "enable_thinking" in template else {}
            text: str = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in [*whole, *messages]],
                tokenize=False,
                add_generation_prompt=begin_answer,
                **options,
            )
        except (TemplateError, TypeError, ValueError) as error:
            key = "task.chat" if self.system is None else "task.system"
            advice = "want task.system=null" if whole else "use task.chat=false with task.template"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SettingsError(
                f"{key}: the tokenizer's chat template refuses its messages ({reason}); {advice}"
            ) from error
        return text


def check_chat(
    tokenizer: PreTrainedTokenizerBase, system: str | None, *, encoder_decoder: bool
) -> None:
    """A model can be prompted through its chat template.

    Args:
        tokenizer: of the model.
        system: the system message, or None.
        encoder_decoder: whether the model has an encoder.

    Raises:
        SettingsError: it has an encoder, its tokenizer has no chat template, or the template
            refuses a system message.
    """
    if encoder_decoder:
        raise SettingsError(
            "task.chat: got true for an encoder-decoder model, which reads a prompt as it is; want "
            "task.chat=false, or a decoder-only policy for chat"
        )
    if not tokenizer.chat_template:
        raise SettingsError(
            "task.chat: got true, but the tokenizer of policy.path has no chat template; want "
            "task.chat=false, or the model that was trained for chat (often named -instruct or -it)"
        )
    ChatFormat(tokenizer, system).render("text")
