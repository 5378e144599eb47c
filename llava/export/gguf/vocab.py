"""A Hugging Face tokenizer as GGUF's `tokenizer.ggml.*` values: what llama.cpp needs to give the same ids.

The one source is the fast tokenizer itself (tokenizer.json), which also made the ids that the model was
trained on. llama.cpp has two of its kinds:

    llama   SentencePiece BPE: pieces joined in the order of their scores, unknown text as bytes `<0x0A>`
    gpt2    byte-level BPE: text split by a regular expression (`pre`), pairs joined in the order of `merges`
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from llava.common.errors import InputError
from llava.model.processor_files import filler

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types: `enum llama_token_type` of llama.h."""

PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
    "": "gpt-2",  # ByteLevel's own expression
}
"""llama.cpp's names for the regular expressions that split text before byte-level BPE."""


@dataclass
class Vocab:
    """`tokens`, `types` and (llama) `scores` have one entry per row of the embedding matrix."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    add_bos: bool
    special: dict[str, int]
    merges: list[str] = field(default_factory=list)
    add_space_prefix: bool = False


def read_vocab(tokenizer: Any, rows: int, stop: str) -> Vocab:
    """Read the vocabulary of a fast `tokenizer` for an embedding matrix of `rows` rows; rows without a token
    are named by `filler` and never used. `stop` is the text that ends an answer.

    InputError for a tokenizer that llama.cpp has no kind for, or with more tokens than rows.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model.get("type") != "BPE":
        raise InputError(f"llama.cpp cannot read a {model.get('type')} tokenizer; GGUF needs a BPE tokenizer")
    pieces: dict[str, int] = dict(tokenizer.get_vocab())
    if max(pieces.values()) >= rows:
        raise InputError(f"the tokenizer has token {max(pieces.values())}, the model {rows} embeddings")
    tokens = [filler(row) for row in range(rows)]
    types = [UNUSED] * rows
    for piece, token in pieces.items():
        tokens[token], types[token] = piece, NORMAL
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    in_bytes = bool(model.get("byte_fallback"))
    _require_known_steps(described, in_bytes)
    if in_bytes:
        _mark_bytes(types, pieces)
    for added in described["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
        if added["content"] == filler(added["id"]):
            types[added["id"]] = UNUSED
    if tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = UNKNOWN
    first = tokenizer("a")["input_ids"][0]
    vocab = Vocab(
        model="llama" if in_bytes else "gpt2",
        pre="default" if in_bytes else _pre_tokenizer(described),
        tokens=tokens,
        types=types,
        scores=_scores(tokens, merges) if in_bytes else [],
        add_bos=first == tokenizer.bos_token_id,
        special=_special_ids(tokenizer, pieces, stop),
    )
    if in_bytes:
        vocab.add_space_prefix = _prepends_space(described)
    else:
        vocab.merges = merges
    return vocab


def _mark_bytes(types: list[int], pieces: dict[str, int]) -> None:
    for piece in (f"<0x{byte:02X}>" for byte in range(256)):
        if piece not in pieces:
            raise InputError(f"the tokenizer has no token {piece}; llama.cpp needs all 256 bytes")
        types[pieces[piece]] = BYTE


def write_vocab(writer: Any, vocab: Vocab) -> None:
    """Put the vocabulary into a `gguf.GGUFWriter`."""
    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.types)
    if vocab.scores:
        writer.add_token_scores(vocab.scores)
        writer.add_add_space_prefix(vocab.add_space_prefix)
    if vocab.merges:
        writer.add_token_merges(vocab.merges)
    for name, token in vocab.special.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    writer.add_add_bos_token(vocab.add_bos)
    writer.add_add_eos_token(False)


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Return SentencePiece's scores, as far as they decide anything: minus the rank at which a piece is first
    joined. Pieces that are never joined (single characters, bytes) have the rank behind all others."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        # a space within a piece is written "▁", so the pair's own space is the only one
        ranks.setdefault(pair.replace(" ", ""), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def spaces_differ(tokenizer: Any) -> bool:
    """Return whether the tokenizer puts a space before a text but not before what follows a special token or
    an image, which llama.cpp cannot tell apart."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    return any(step.get("prepend_scheme") == "first" for step in _steps(described))


def _prepends_space(described: dict[str, Any]) -> bool:
    """Return whether text gets a leading "▁": the normalizer `Prepend` or the pre-tokenizer `Metaspace` does
    it."""
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step["prepend_scheme"] != "never")
        for step in _steps(described)
    )


_KNOWN_STEPS = {True: ("Prepend", "Replace", "Metaspace"), False: ("NFC", "Split", "ByteLevel")}
"""What llama.cpp does too before it joins anything: SentencePiece (in_bytes), byte-level BPE. NFC it does
not; nearly all text is so already."""


def _require_known_steps(described: dict[str, Any], in_bytes: bool) -> None:
    """Raise an InputError for what a tokenizer does to text and llama.cpp would not."""
    steps = _steps(described)
    odd = [step["type"] for step in steps if step["type"] not in _KNOWN_STEPS[in_bytes]]
    for step in steps:
        if step["type"] == "Replace" and (step["pattern"], step["content"]) != ({"String": " "}, "▁"):
            odd.append(f"Replace {step['pattern']}")
        if step["type"] == "ByteLevel" and step["add_prefix_space"]:
            odd.append("add_prefix_space")
    if odd:
        raise InputError(f"the tokenizer prepares text by {', '.join(odd)}, which llama.cpp does not do")
    if not in_bytes and not any(step["type"] == "ByteLevel" for step in steps):
        raise InputError(
            "the tokenizer knows no bytes (neither byte_fallback nor ByteLevel); GGUF needs them"
        )


def _pre_tokenizer(described: dict[str, Any]) -> str:
    """Return llama.cpp's name for how byte-level text is split: by `Split`, or by ByteLevel's own
    expression."""
    splits = [
        step["pattern"].get("Regex", str(step["pattern"]))
        for step in _steps(described)
        if step["type"] == "Split"
    ]
    if any(step["type"] == "ByteLevel" and step.get("use_regex", True) for step in _steps(described)):
        splits.append("")
    if len(splits) != 1 or splits[0] not in PRE_TOKENIZERS:
        raise InputError(
            f"the tokenizer splits text by {splits}, which llama.cpp has no known name for; "
            f"known: {', '.join(PRE_TOKENIZERS.values())}"
        )
    return PRE_TOKENIZERS[splits[0]]


def _steps(described: dict[str, Any]) -> list[dict[str, Any]]:
    return _flat(described["normalizer"], "normalizers") + _flat(described["pre_tokenizer"], "pretokenizers")


def _flat(step: dict[str, Any] | None, children: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return (
        [leaf for child in step[children] for leaf in _flat(child, children)] if children in step else [step]
    )


def _special_ids(tokenizer: Any, pieces: dict[str, int], stop: str) -> dict[str, int]:
    """Return token ids by GGUF's names; `eot` ends a turn where that is another token than `eos`."""
    named = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
        "eot": pieces[stop] if stop in pieces and stop != tokenizer.eos_token else None,
    }
    return {name: int(token) for name, token in named.items() if token is not None}
