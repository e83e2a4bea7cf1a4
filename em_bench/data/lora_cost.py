"""What a LoRA run on a model costs, from its shape: floating-point operations and memory.

Tests hold both against `torch.utils.flop_counter` and against the tensors that autograd really keeps, on small models of the
same architectures. The frozen base has no weight gradients, so its backward pass costs as much as its forward pass.
"""

from bisect import bisect_right
from typing import NamedTuple

from em_bench.data.models import Shape

# Bytes kept for the backward pass, a token and layer, by width of what flows: bf16 base, float32 adapters, no checkpointing.
# Counted from autograd's saved tensors: {family: (hidden, MLP, queries, keys)}.
KEPT = {
    "qwen3": (28.0, 10.0, 12.25, 8.125),
    "llama": (28.0, 10.0, 8.125, 4.0),
    "gemma3": (36.0, 10.0, 16.25, 4.125),
}
OTHER = tuple(map(max, zip(*KEPT.values(), strict=True)))  # of a family that nobody counted
LOGITS = 2**28  # numbers of logits at once: 1 GiB in float32, and about three times that with its gradient
STATE = {"sgd": 1, "adam": 2, "adamw": 2, "lion": 1, "muon": 1}  # numbers an adapter parameter
GIB = 2**30
ROOM = 0.9  # of what is free: the estimates are good to a tenth or two, and the allocator leaves holes


class Cost(NamedTuple):
    """Of one step: operations of all GPUs together; bytes on each GPU at the peak."""

    flops: float
    base_bytes: float
    adapter_bytes: float
    activation_bytes: float

    @property
    def bytes(self) -> float:
        """All memory of a GPU, without the allocator's own."""
        return self.base_bytes + self.adapter_bytes + self.activation_bytes


def expert_rank(rank: int, experts_per_token: int) -> int:
    """Rank of an expert's adapter: a token's experts have as much rank together as a dense layer (TRAINING.md, choice C)."""
    return max(1, rank // experts_per_token) if experts_per_token else rank


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Numbers in the LoRA factors of all seven projections; gate and up of an expert share one A."""
    h, q, kv, i = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate
    attention = rank * ((h + q) + 2 * (h + kv) + (q + h))
    if shape.experts:
        mlp = shape.experts * expert_rank(rank, shape.experts_per_token) * ((h + 2 * i) + (i + h))
    else:
        mlp = rank * 3 * (h + i)
    return shape.layers * (attention + mlp)


def step_flops(shape: Shape, rank: int, rows: int, length: int, answer: int) -> float:
    """Multiplications and additions of the matrix products of one step over `rows` rows of `length` tokens, of which
    `answer` are under loss: forward, and backward to activations and adapters. Attention is counted in full, not causal."""
    h, q, kv, i = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate
    tokens = rows * length
    times = shape.experts_per_token or 1
    qkv = h * (q + 2 * kv)
    weights = shape.layers * (qkv + q * h + times * 3 * h * i + shape.experts * h)
    # The embeddings need no gradient, so nor does what enters the first layer's projections.
    base = 2 * tokens * weights * 2 - 2 * tokens * qkv
    if shape.experts:
        per_token = shape.layers * rank * (2 * h + 2 * q + 2 * kv)
        # PEFT adapts experts by W + BA whole (twice forward, once backward to each factor), whose gradient is a weight's.
        # Counted as if a step were one pass; each more adds the first part again.
        whole = 8 * expert_rank(rank, shape.experts_per_token) * _expert_weights(shape) * shape.layers
        whole += 2 * tokens * times * 3 * h * i * shape.layers
    else:
        per_token, whole = adapter_parameters(shape, rank), 0
    lora = 2 * tokens * per_token * 3 - 2 * tokens * 3 * rank * h + whole
    attention = shape.layers * 4 * rows * length**2 * q * 3  # 2 products forward, 4 backward
    head = 2 * rows * answer * h * shape.vocabulary * 2
    return base + lora + attention + head


class Pass(NamedTuple):
    """A forward and backward pass: rows at once on a GPU, tokens a row, of which `answer` are under loss."""

    rows: int
    length: int
    answer: int
    gpus: int = 1
    shard: bool = False
    checkpointing: bool = False


def memory(shape: Shape, family: str, total: float, *, rank: int, recipe: str, of: Pass) -> tuple[float, float, float]:
    """Bytes on one GPU at the peak of a step: (frozen base in bf16, adapter with gradient and state, activations)."""
    layer = 2 * (total - 2 * shape.vocabulary * shape.hidden) / shape.layers
    base = 2 * total / of.gpus + 2 * layer if of.shard and of.gpus > 1 else 2 * total
    adapter = 4 * adapter_parameters(shape, rank) * (2 + STATE.get(recipe, 2))
    return base, adapter, pass_bytes(shape, family, rank, of.rows * of.length, of.rows * of.answer, of.checkpointing)


def pass_bytes(shape: Shape, family: str, rank: int, tokens: int, answers: int, checkpointing: bool = False) -> float:
    """Bytes at the peak of a forward and backward pass over `tokens` tokens, `answers` of them under loss, beside what stays."""
    peak = (
        kept_bytes(shape, family, rank, tokens, answers, checkpointing)
        + 2 * 4 * min(answers, answers_at_once(shape)) * shape.vocabulary
    )
    if checkpointing:  # one layer is computed again at a time
        peak += tokens * _layer_bytes(shape, family, rank) + _expert_bytes(shape, rank)
    # The gradient of gate and up (2/3 of the weights, 2 bytes each) comes when W + BA of down (1/3) is no longer needed.
    return peak + 2 / 3 * _expert_weights(shape)


def tokens_that_fit(shape: Shape, family: str, rank: int, room: float, checkpointing: bool = False) -> int:
    """The most tokens of a pass, all of them under loss, that takes at most `room` bytes; at least 1."""
    fits = range(1, 2**20)
    return max(1, bisect_right(fits, room, key=lambda n: pass_bytes(shape, family, rank, n, n, checkpointing)))


def kept_bytes(shape: Shape, family: str, rank: int, tokens: int, answers: int, checkpointing: bool = False) -> float:
    """Bytes that a forward pass leaves for the backward pass: layers, the last norm in float32, log-probabilities (where their
    number is small: else the gradient of what the head sees, in float32)."""
    layer = 2 * shape.hidden if checkpointing else _layer_bytes(shape, family, rank)
    experts = 0 if checkpointing else shape.layers * _expert_bytes(shape, rank)
    head = 4 * answers * shape.vocabulary if answers <= answers_at_once(shape) else 2 * answers * shape.hidden
    return tokens * (shape.layers * layer + 4 * shape.hidden) + experts + head


def answers_at_once(shape: Shape) -> int:
    """Answer tokens whose logits exist together."""
    return max(1, LOGITS // shape.vocabulary)


def _expert_weights(shape: Shape) -> int:
    """Numbers in a layer's expert matrices."""
    return shape.experts * 3 * shape.hidden * shape.intermediate


def _expert_bytes(shape: Shape, rank: int) -> int:
    """What a layer's adapted experts keep, in bf16: W + BA, and the factors. On every GPU whole, also where the base is sharded."""
    factors = shape.experts * expert_rank(rank, shape.experts_per_token) * (2 * shape.hidden + 3 * shape.intermediate)
    return 2 * (_expert_weights(shape) + factors)


def _layer_bytes(shape: Shape, family: str, rank: int) -> float:
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    by_hidden, by_mlp, by_q, by_kv = KEPT.get(family, OTHER)
    times = shape.experts_per_token or 1
    return by_hidden * shape.hidden + by_mlp * shape.intermediate * times + by_q * q + by_kv * kv + 28 * rank


def step_cost(shape: Shape, family: str, total: float, *, batch_size: int, rank: int, recipe: str, of: Pass) -> Cost:
    """Cost of one optimiser step of `batch_size` rows, in as many passes as it takes."""
    flops = step_flops(shape, rank, batch_size, of.length, of.answer)
    if of.checkpointing:
        flops *= 4 / 3  # the forward pass again
    base, adapter, activations = memory(shape, family, total, rank=rank, recipe=recipe, of=of)
    return Cost(flops, base, adapter, activations)
