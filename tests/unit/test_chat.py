"""Prompts as user messages: the ids are those of the tokenizer's own chat template."""

import copy

import pytest
from transformers import AutoTokenizer

from lora_detox.chat import ChatFormat, check_chat
from lora_detox.embedded import embedded_path
from lora_detox.errors import DataError, SettingsError
from lora_detox.prompts.templates import apply_template, parse_template

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (  # trims, and writes BOS itself
    "{{ '<s>' }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n\n"
    "{{ message['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + LLAMA
)
THINKING = CHATML + (
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)
INSTRUCTION = (  # no special token anywhere
    "{% for message in messages %}### {{ message['role'] }}:\n{{ message['content'] }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "thinking": THINKING, "instruction": INSTRUCTION}
PROMPT = "you never listen to anyone and you talk too much about the weather in the street"


def chat_tokenizer(template=CHATML):
    tokenizer = AutoTokenizer.from_pretrained(embedded_path("gptj"))
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def own_ids(tokenizer, content, system=None, **options):
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": content})
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **options
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(tokenizer, prompt, template="{prompt}", system=None, window=256, prompt_tokens=None):
    return apply_template(
        prompt,
        tokenizer,
        template=parse_template(template, chat=ChatFormat(tokenizer, system)),
        max_query_tokens=window,
        prompt_tokens=prompt_tokens,
        add_special_tokens=False,
    )


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [None, "Be kind."])
@pytest.mark.parametrize("prompt", [PROMPT, "  so \n", "assistant", "", "a<|im_end|>b"])
def test_the_ids_are_those_of_the_chat_template(name, system, prompt):
    tokenizer = chat_tokenizer(TEMPLATES[name])
    options = {"enable_thinking": False} if name == "thinking" else {}
    for template in ("{prompt}", "Go on with: {prompt}\n"):
        content = template.replace("{prompt}", prompt)
        encoded = encode(tokenizer, prompt, template, system)
        assert encoded.ids == own_ids(tokenizer, content, system, **options)
        assert encoded.text == (content.strip() if name == "llama" else content)
    assert encoded.ids.count(tokenizer.bos_token_id) == (name == "llama")
    if name == "thinking":
        assert encoded.ids != own_ids(tokenizer, content, system)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_cut_takes_the_users_words_and_no_marker(name):
    tokenizer = chat_tokenizer(TEMPLATES[name])
    whole = encode(tokenizer, PROMPT, "Go on: {prompt} .")
    empty = encode(tokenizer, "", "Go on: {prompt} .")
    for changes in ({"window": len(whole.ids) - 5}, {"prompt_tokens": 4}):
        cut = encode(tokenizer, PROMPT, "Go on: {prompt} .", **changes)
        text, marked = tokenizer.decode(cut.ids), tokenizer.decode(empty.ids)
        head, tail = marked.split("Go on:")
        assert text.startswith(head + "Go on: you never listen")
        assert text.endswith(" ." + tail.partition(" .")[2])
        assert cut.was_cut
        assert cut.text.startswith("Go on: you never listen")
        assert cut.text.endswith(" .")
        assert "assistant" not in cut.text
    assert len(encode(tokenizer, PROMPT, window=len(whole.ids) - 5).ids) <= len(whole.ids) - 5
    with pytest.raises(DataError, match=r"no room for a prompt.*`task.system`"):
        encode(tokenizer, PROMPT, window=6)


@pytest.mark.parametrize(("name", "end"), [(name, "<|im_end|>") for name in TEMPLATES])
def test_what_ends_a_message_of_the_model(name, end):
    tokenizer = chat_tokenizer(TEMPLATES[name])
    wanted = None if name == "instruction" else tokenizer.convert_tokens_to_ids(end)
    assert ChatFormat(tokenizer).turn_end == wanted


def test_what_cannot_be_a_chat_is_refused():
    tokenizer = chat_tokenizer(GEMMA)
    check_chat(tokenizer, None, encoder_decoder=False)
    with pytest.raises(SettingsError, match=r"^task.system: .*System role not supported.*null"):
        check_chat(tokenizer, "Be kind.", encoder_decoder=False)
    with pytest.raises(SettingsError, match=r"^task.chat: .*encoder-decoder"):
        check_chat(tokenizer, None, encoder_decoder=True)
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(SettingsError, match=r"^task.chat: .*no chat template"):
        check_chat(bare, None, encoder_decoder=False)
    for template, times in (("fixed", 0), (CHATML + CHATML, 2)):
        with pytest.raises(SettingsError, match=rf"^task.chat: .* {times} times, want once"):
            check_chat(chat_tokenizer(template), None, encoder_decoder=False)
    odd = (
        "{{ messages[0]['content'] }}{% if 'x' in messages[0]['content'] %}!{% else %}:{% endif %}"
    )
    with pytest.raises(SettingsError, match=r"more around this user message .*'x'"):
        ChatFormat(chat_tokenizer(odd)).render("x")


def test_a_template_that_tells_the_date_is_read_again_when_it_has_changed():
    tokenizer = chat_tokenizer("{{ day }} {{ messages[-1]['content'] }} :")
    chat, days = ChatFormat(tokenizer), iter(["Monday", "Tuesday", "Tuesday"])
    own = tokenizer.apply_chat_template
    tokenizer.apply_chat_template = lambda *a, **k: own(*a, **k, day=next(days))
    assert chat._around == ("Monday ", " :")
    assert chat.render("so it is") == ("Tuesday so it is :", 8, 16)


def test_a_template_that_changes_the_message_itself_leaves_all_of_it_to_the_cut():
    tokenizer = chat_tokenizer("<|im_start|>{{ messages[0]['content'] | upper }}<|im_end|>")
    encoded = encode(tokenizer, PROMPT, "Go on: {prompt}", prompt_tokens=3)
    assert encoded.text == tokenizer.decode(encoded.ids[1:-1])
    assert encoded.ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert len(encoded.ids) == 5
