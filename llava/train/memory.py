"""Estimates the peak memory of a training step, part by part, from sizes alone.

The formulas count the tensors that torch's autograd keeps for the backward pass, as Korthikanti et al. do
in "Reducing Activation Recomputation in Large Transformer Models" (arXiv 2205.05198, section 4). They differ
from theirs (34 bytes a token and hidden unit) because a frozen Linear keeps no input, an adapter keeps its
own, and scaled dot-product attention keeps no matrix of scores. What is divided among devices follows "ZeRO:
Memory Optimizations Toward Training Trillion Parameter Models" (arXiv 1910.02054, section 3). Four bits a
weight are those of QLoRA (arXiv 2305.14314, section 3). `python -m benchmarks.train_memory` compares the
estimate with a measured peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import LoraLayer

from llava.model.formats import LANGUAGE, VISION

FLOAT32 = 4
"""Bytes of what is trained, of its gradients and of normalisation, whatever the arithmetic."""
_QUANTISED = {4: 0.5 + 1 / 64 + 4 / (64 * 256), 8: 1.0}
"""Bytes of a weight: nf4 has a byte for each 64 and a float32 for each 256 of those bytes (double
quantisation); 8 bits have a float32 for each row, which is nothing."""
_OVERHEAD = {"cuda": 1.0e9, "cpu": 0.6e9}
"""CUDA's context, its libraries' workspaces and the allocator's slack; Python with torch and transformers.
Both were observed, not derived."""
_WORKER = 0.2
"""Of that, what a data loader's process does not share with the one that it was forked from."""


@dataclass(frozen=True)
class Stack:
    """The sizes of a stack of transformer layers. `mlp_kept` counts the tensors of width `intermediate` that
    the activation keeps: gate, SiLU of it and up for a gated MLP, input and inner sigmoid of CLIP's.

    Summed over all layers: `lora_inputs` the widths of the adapted Linears' inputs, `lora_distinct` the same
    with an input that several share (q, k, v) once, `lora_ranks` their ranks, `dora_outputs` the widths of
    their outputs under DoRA.
    """

    layers: int
    hidden: int
    intermediate: int
    attention: int
    heads: int
    mlp_kept: int
    lora_inputs: int = 0
    lora_distinct: int = 0
    lora_ranks: int = 0
    dora_outputs: int = 0
    float32_stream: bool = False
    """Whether layers hand on float32 under autocast too: CLIP normalises first, and autocast does that so."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that decide its memory: numbers of parameters, except where said."""

    language: Stack
    vision: Stack
    vocabulary: int
    vision_tokens: int
    """Tokens of a tile in the vision tower."""
    linears: int
    """Frozen weights of Linear layers that quantisation makes smaller."""
    frozen: int
    """All other frozen parameters."""
    adapters: int
    projector: int
    """Of the projector, if it is trained."""
    largest_matrix: int
    """Weights of the largest Linear among `linears`: what 4 or 8 bits are turned into to compute with."""


@dataclass(frozen=True)
class BatchSizes:
    """A batch: `rows` of `length` tokens (padding counted), `supervised` tokens that go through the LM head,
    `tiles` squares of `side` pixels that go through the vision tower."""

    rows: int
    length: int
    supervised: int
    tiles: int
    side: int


@dataclass(frozen=True)
class Arithmetic:
    """How a step is computed, numbers in bytes: those of activations (`compute`, 2 under autocast), within
    attention, and of a frozen weight that is not quantised (`weights`); `bits` is 4 or 8 for one that is."""

    device: str
    compute: int
    attention: int
    weights: int
    checkpointing: bool
    bits: int | None = None
    dense_mask: bool = True
    dropout: bool = False


@dataclass(frozen=True)
class Sharding:
    """What `devices` devices divide among them, and what waits in the host's memory instead. `gathered`
    is how many divided weights a device may hold whole at a time."""

    devices: int = 1
    optimizer: bool = False
    gradients: bool = False
    weights: bool = False
    offload_optimizer: bool = False
    offload_weights: bool = False
    gathered: int = 0


def estimate_memory(
    model: ModelSizes, batch: BatchSizes, arithmetic: Arithmetic, sharding: Sharding = Sharding()
) -> dict[str, int]:
    """Estimate the bytes at the peak of a step on one device, by part; their sum is the estimate.

    The peak is at the loss or just after it, where every layer's activations are kept and the logits are
    there, or in the vision tower's forward pass, whichever is larger.
    """
    trained = model.adapters + model.projector
    quantised = _QUANTISED[arithmetic.bits] if arithmetic.bits else arithmetic.weights
    frozen: float = model.linears * quantised + model.frozen * arithmetic.weights
    gathered = 0.0
    if sharding.weights:
        gathered = arithmetic.weights * min(sharding.gathered, model.linears + model.frozen)
        frozen = 0 if sharding.offload_weights else frozen / sharding.devices
    if arithmetic.bits:
        gathered += model.largest_matrix * arithmetic.compute
    # What autocast computes with is a copy of what is trained.
    copies = arithmetic.compute if arithmetic.compute < FLOAT32 else 0
    weights = FLOAT32 / sharding.devices if sharding.weights else FLOAT32
    gradients = FLOAT32 / sharding.devices if sharding.gradients else FLOAT32
    if sharding.devices > 1 and not (sharding.gradients or sharding.weights):
        gradients += FLOAT32  # the buckets in which DistributedDataParallel sends them
    states = 2 * FLOAT32 / (sharding.devices if sharding.optimizer else 1)  # AdamW's two moments
    if sharding.offload_optimizer:
        states = 0

    tokens = batch.rows * batch.length
    image_tokens = batch.tiles * model.vision_tokens
    mask = batch.length if arithmetic.dense_mask else 0
    language = activations(model.language, tokens, arithmetic, mask)
    vision = activations(model.vision, image_tokens, arithmetic, 0) if model.vision.lora_inputs else 0
    logits = batch.supervised * model.vocabulary * 3 * FLOAT32
    working = max(transient(model.language, tokens, arithmetic, mask) - logits, 0)
    # The pixels, and what the projector (Linear, GELU, Linear) and the embeddings keep of their features.
    features = image_tokens * (model.vision.hidden + 3 * model.language.hidden) * arithmetic.compute
    pixels = 3 * batch.side**2 * batch.tiles * FLOAT32 + features
    # Before the language model, the vision tower's forward pass: the states after each of its layers
    vision_forward: float = image_tokens * model.vision.hidden * (model.vision.layers + 2) * FLOAT32
    vision_forward = max(vision_forward - language - logits - working, 0)
    return {
        "frozen weights": round(frozen),
        "weights gathered or dequantised": round(gathered),
        "trained weights": round(trained * (weights + copies)),
        "gradients": round(trained * gradients),
        "optimizer states": round(trained * states),
        "activations, language model": round(language + working),
        "activations, vision tower": round(vision),
        "logits": round(logits),
        "pictures": round(pixels + vision_forward),
        "framework": round(_OVERHEAD[arithmetic.device]),
    }


def host_memory(model: ModelSizes, arithmetic: Arithmetic, sharding: Sharding, workers: int) -> int:
    """Estimate the bytes that training on GPUs takes at least of the memory of the machine they are in.

    Each device's process loads the libraries, and so does each of its `workers`, which share most of that;
    what is offloaded is there for all devices together (arXiv 1910.02054, section 3): AdamW's two moments and
    the float32 copy of what is trained, and the frozen weights.
    """
    libraries = sharding.devices * _OVERHEAD["cpu"] * (1 + workers * _WORKER)
    trained, frozen = model.adapters + model.projector, model.linears + model.frozen
    states = 3 * FLOAT32 * trained if sharding.offload_optimizer else 0
    weights = arithmetic.weights * frozen if sharding.offload_weights else 0
    return round(libraries + states + weights)


def activations(stack: Stack, tokens: int, arithmetic: Arithmetic, mask: int) -> float:
    """Bytes that all layers keep for the backward pass of `tokens` tokens.

    With checkpointing a layer keeps its input alone (2205.05198, section 5: "full activation
    recomputation"); the layer that is being recomputed is in `transient`.
    """
    last = tokens * stack.hidden * FLOAT32  # the normalisation behind the layers
    if arithmetic.checkpointing:
        handed_on = FLOAT32 if stack.float32_stream else arithmetic.compute
        return stack.layers * tokens * stack.hidden * handed_on + last
    return _kept(stack, tokens, arithmetic, mask) + last


def transient(stack: Stack, tokens: int, arithmetic: Arithmetic, mask: int) -> float:
    """Bytes that come and go while one layer goes backward: gradients as wide as its MLP and, with
    checkpointing, all that the layer kept."""
    gradients = tokens * stack.intermediate * (4 * arithmetic.compute)
    if not arithmetic.checkpointing:
        return gradients
    return gradients + _kept(stack, tokens, arithmetic, mask) / stack.layers


def _kept(stack: Stack, tokens: int, arithmetic: Arithmetic, mask: int) -> float:
    """Bytes that autograd keeps for `tokens` tokens in all layers, nothing recomputed.

    Of a layer: the inputs of two normalisations in float32; queries, keys (repeated to all heads), values,
    the attention's output, a number a head (log-sum-exp) and, under a dense mask, the mask as numbers, `mask`
    to a token; the MLP's activation; and what the adapters read. That is a copy for each after dropout, and
    under autocast where the input is float32 (CLIP's normalised one, and DoRA's).
    """
    compute, attention = arithmetic.compute, arithmetic.attention
    layer = (
        2 * stack.hidden * FLOAT32
        + 4 * stack.attention * attention
        + stack.heads * FLOAT32
        + mask * attention
        + stack.mlp_kept * stack.intermediate * compute
    )
    float32_input = stack.float32_stream or stack.dora_outputs > 0
    own_copies = arithmetic.dropout or (compute < FLOAT32 and float32_input)
    read = (stack.lora_inputs if own_copies else stack.lora_distinct) + stack.lora_ranks
    adapters = read * compute + 2 * stack.dora_outputs * compute
    if arithmetic.dropout:
        # The mask of what was dropped: CUDA's is of bytes, a CPU's of the input's numbers.
        number = FLOAT32 if float32_input else compute
        adapters += stack.lora_inputs * (1 if arithmetic.device == "cuda" else number)
    return tokens * (stack.layers * layer + adapters)


def sizes_of(model: Any) -> ModelSizes:
    """The sizes of a LLaVA model that carries its adapters, on any device (the meta device too).

    The weights that quantisation would make smaller are those of the language model's layers; the vision
    tower, the projector and the LM head stay as they are.
    """
    config = model.get_base_model().config
    linears = frozen = adapters = projector = largest = 0
    for name, parameter in model.named_parameters():
        size = parameter.numel()
        if "lora_" in name:
            adapters += size
        elif parameter.requires_grad:
            projector += size
        elif parameter.ndim == 2 and f"{LANGUAGE}layers." in name:
            linears += size
            largest = max(largest, size)
        else:
            frozen += size
    vision = config.vision_config
    return ModelSizes(
        language=_stack(model, LANGUAGE, config.text_config),
        vision=_stack(model, VISION, vision),
        vocabulary=config.text_config.vocab_size,
        vision_tokens=(vision.image_size // vision.patch_size) ** 2 + 1,
        linears=linears,
        frozen=frozen,
        adapters=adapters,
        projector=projector,
        largest_matrix=largest,
    )


def _stack(model: Any, part: str, config: Any) -> Stack:
    adapted: list[tuple[str, Any]] = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and f".{part}" in f".{name}"
    ]
    # What reads the same tensor: the Linears of one module (attention, MLP) that are equally wide
    distinct = {(name.rpartition(".")[0], module.in_features) for name, module in adapted}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Stack(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        attention=config.num_attention_heads * head,
        heads=config.num_attention_heads,
        mlp_kept=3 if part == LANGUAGE else 2,
        float32_stream=part == VISION,
        lora_inputs=sum(module.in_features for _, module in adapted),
        lora_distinct=sum(width for _, width in distinct),
        lora_ranks=sum(module.r["default"] for _, module in adapted),
        dora_outputs=sum(
            module.out_features for _, module in adapted if getattr(module, "use_dora", {}).get("default")
        ),
    )
