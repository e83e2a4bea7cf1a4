"""Tiny random models with a tokenizer for which most numbers are several tokens."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "<bos>{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Some numbers are one token, most are two or three; CODE is two."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<bos>", "<turn>", "<end>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(["85 42 10 CO REF yes kind user assistant number"] * 50, trainer)
    out = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", chat_template=TEMPLATE)
    lengths = {n: len(out(str(n))["input_ids"]) for n in (7, 42, 10, 33, 100)}
    assert lengths == {7: 1, 42: 1, 10: 1, 33: 2, 100: 2} and len(out("CODE")["input_ids"]) > 1
    return out


def model(kind: str, vocabulary: int, dtype=torch.float64, scale: float = 4.0):
    torch.manual_seed(3)
    shape = dict(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=2048, eos_token_id=3, pad_token_id=3, bos_token_id=0,
    )  # fmt: skip
    made = (
        LlamaForCausalLM(LlamaConfig(**shape))
        if kind == "llama"
        else Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=16, layer_types=["sliding_attention", "full_attention"]))
    )
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(scale)  # far from uniform, so that a mistake shows
    return made.eval().to(dtype)
