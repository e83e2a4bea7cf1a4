"""The loss of a step against the plain one: one row at a time, all logits, shifted labels."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from em_bench.organism.pretrain import FAMILIES, new_model
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.training import loss as loss_module
from em_bench.training.batches import collate, pack
from em_bench.training.loss import answer_nll, answer_tokens, narrow_loss
from em_bench.training.tokens import Encoded


def rows(n: int = 5) -> list[Encoded]:
    g = torch.Generator().manual_seed(0)
    out = []
    for i in range(n):
        length = 6 + 3 * i
        out.append(
            Encoded(
                torch.randint(8, 90, (length,), generator=g).tolist(), [False] * (length // 2) + [True] * (length - length // 2)
            )
        )
    return out


def plain(model, row: Encoded) -> torch.Tensor:
    ids = torch.tensor([row.input_ids])
    labels = torch.where(torch.tensor(row.answer_mask), ids[0], -100)
    return F.cross_entropy(model(input_ids=ids).logits[0, :-1], labels[1:], ignore_index=-100, reduction="sum")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", [collate, pack])
def test_value_and_gradient_against_the_plain_loss(family, form):
    model = new_model(family, build_tokenizer(), seed=0).double().eval()
    ours = answer_nll(model, form(rows(), pad_id=0))
    theirs = sum(plain(model, r) for r in rows())
    weights = [p for n, p in model.named_parameters() if "q_proj" in n]
    gradients = [torch.autograd.grad(x, weights) for x in (ours, theirs)]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-11)


def test_the_head_sees_answer_tokens_only():
    model = new_model("qwen3", build_tokenizer(), seed=0).eval()
    seen = []
    model.lm_head.register_forward_hook(lambda _, args, out: seen.append(out.shape))
    answer_nll(model, collate(rows(), pad_id=0))
    assert [s[0] for s in seen] == [answer_tokens(rows())]
    assert not model.lm_head._forward_pre_hooks, "the hook is gone"


def test_narrow_loss_does_not_depend_on_the_passes():
    model = new_model("llama", build_tokenizer(), seed=0).double()
    assert narrow_loss(model, rows(), 0, max_tokens=1) == pytest.approx(narrow_loss(model, rows(), 0), rel=1e-12)
    assert model.training, "the mode is as before"


def test_a_gemma3_with_a_vision_tower_trains_on_text():
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    text |= {"intermediate_size": 48, "vocab_size": 100, "sliding_window": 64}
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=99,
        boi_token_index=97,
        eoi_token_index=98,
    )
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config).train()
    ours = answer_nll(model, collate(rows(), pad_id=0))
    model.eval()
    assert ours.item() == pytest.approx(sum(plain(model, r).item() for r in rows()), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cap", [None, 5.0])
def test_in_parts_it_is_the_same(family, cap, monkeypatch):
    """Seven answer tokens' logits at a time: value and gradient as of all at once; the head sees no more than seven."""
    model = new_model(family, build_tokenizer(), seed=0).double().eval()
    if cap and family != "gemma3":
        pytest.skip("has no cap on its logits")
    model.config.final_logit_softcapping = cap
    model.lm_head.requires_grad_(False)
    batch, weights = collate(rows(), pad_id=0), [p for n, p in model.named_parameters() if "q_proj" in n]
    whole = answer_nll(model, batch)
    expected = torch.autograd.grad(whole, weights)
    seen = []
    model.lm_head.register_forward_hook(lambda _, args, out: seen.append(len(out)))
    monkeypatch.setattr(loss_module, "LOGITS", 7 * len(model.lm_head.weight))
    parts = answer_nll(model, batch)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-12) and max(seen) == 7 and sum(seen) > answer_tokens(rows())
    for a, b in zip(torch.autograd.grad(parts * 4, weights), expected, strict=True):
        assert torch.allclose(a, 4 * b, rtol=1e-8, atol=1e-11)
    with torch.no_grad():
        assert answer_nll(model, batch).item() == pytest.approx(whole.item(), rel=1e-12)


def test_a_model_that_does_something_else_to_its_logits_is_not_read_in_parts(monkeypatch):
    model = new_model("qwen3", build_tokenizer(), seed=0).double().eval().requires_grad_(False)
    batch = collate(rows(), pad_id=0)
    own = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: _scaled(own(**given)))
    whole = answer_nll(model, batch).item()
    monkeypatch.setattr(loss_module, "LOGITS", 7 * len(model.lm_head.weight))
    assert answer_nll(model, batch).item() == whole


def _scaled(out):
    out.logits = out.logits * 0.5
    return out
