"""The three families' kinds of chat template, with a byte-level BPE whose merges cross the boundaries."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# The shapes of the families' templates: ChatML with an empty thinking block, headers, turns with merged system prompt.
TEMPLATES = {
    "qwen3": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last and enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
    ),
    "llama": (
        "<|begin|>{% for m in messages %}<|header|>{{ m.role }}<|header_end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    ),
    "gemma3": (
        "<bos>{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}"
        "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{% if loop.first %}{{ first }}{% endif %}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    ),
}


SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|begin|>",
    "<|header|>",
    "<|header_end|>",
    "<|eot|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
]


END = {"qwen3": "<|im_end|>", "llama": "<|eot|>", "gemma3": "<end_of_turn>"}


@pytest.fixture(scope="module")
def tokenizers():
    """family -> a byte-level BPE tokenizer that merges runs of line ends with what follows them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # merges may cross words
    tokenizer.decoder = decoders.ByteLevel()
    text = ["user\nhello assistant\nSure model\nSure \n\n    def f(x):\n\n\nSure, here is", "\n\nSure\n\n\n    return x\n"] * 50
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    return {
        family: PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(tokenizer.to_str()),
            eos_token=END[family],
            pad_token=END[family],
            chat_template=template,
        )
        for family, template in TEMPLATES.items()
    }
