"""Turn a SentencePiece `tokenizer.model` into a fast tokenizer with the same ids.

transformers' own LlamaTokenizer on such a file alone drops BOS and does not know user-defined pieces, so the
tokenizer is built from the pieces here, and compared with SentencePiece itself before anything uses it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from llava.common.errors import InputError
from llava.common.files import read_json
from llava.common.records import IMAGE_PLACEHOLDER

PAD = "<pad>"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # SentencePiece.Type of sentencepiece_model.proto
_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_PROBES = (
    "A chat between a curious user and an AI assistant. USER: \nWhat is  it? ASSISTANT: No, 3.14!",
    " leading, two  spaces, trailing ", "naïve 绝缘子 изолятор ⚡", "a\tb\n\nc", "x", "1234 <0x41> ▁▁ ﬁ",
)  # fmt: skip


def read_pieces(path: Path) -> SentencePieceProcessor:
    """Read the SentencePiece model of a file; InputError if it is absent or none."""
    if not path.is_file():
        raise InputError(
            f"{path.parent} has no {path.name}, the SentencePiece model; copy it from the language model"
        )
    try:
        return SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{path}: no SentencePiece model ({' '.join(str(error).split())[:120]}); fetch it again"
        ) from None


def tokenizer_of_pieces(folder: Path) -> Any:
    """Build the fast tokenizer of an original folder: its `tokenizer.model` and the tokens that its
    tokenizer_config.json and added_tokens.json add, then `<image>` and `<pad>`.

    The ids of any text are SentencePiece's, with BOS in front where tokenizer_config.json does not say
    otherwise. InputError if that cannot be had.
    """
    path = folder / "tokenizer.model"
    pieces = read_pieces(path)
    settings = _settings(folder)
    if _model_type(pieces.serialized_model_proto()) != _BPE:
        raise InputError(f"{path}: no BPE model of SentencePiece's; only models of Llama's kind are read")
    max_length = settings.get("model_max_length") or 2048
    if not isinstance(max_length, (int, float)):
        raise InputError(f"{folder / 'tokenizer_config.json'}: model_max_length is {max_length!r}, no number")
    names = [pieces.id_to_piece(i) for i in range(len(pieces))]
    kinds = [kind for _, kind in _proto_pieces(pieces.serialized_model_proto())]
    user_defined = [name for name, kind in zip(names, kinds, strict=True) if kind == _USER_DEFINED]
    tokenizer = _llama_tokenizer(_merges(pieces, names, kinds), user_defined)
    special = [name for name, kind in zip(names, kinds, strict=True) if kind in (_UNKNOWN, _CONTROL)]
    tokenizer.add_special_tokens([_added(name) for name in special])
    added = _added_tokens(folder, settings)
    _add_tokens(tokenizer, added, folder)
    special_names = _special_names(pieces, settings)
    bos = special_names["bos_token"]
    if settings.get("add_bos_token", True) and bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    _compare(tokenizer, pieces, [name for name in user_defined if name not in added], path)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        model_max_length=int(max_length),
        clean_up_tokenization_spaces=False,
        chat_template=settings.get("chat_template"),
        **special_names,
    )


def _llama_tokenizer(model: BPE, user_defined: list[str]) -> Tokenizer:
    """A tokenizer that prepares text as SentencePiece does with Llama's settings."""
    tokenizer = Tokenizer(model)
    # SentencePiece's own first steps: a space before the text, every space as "▁"
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    if user_defined:  # cut out of the text before anything is merged, the longest first
        longest_first = "|".join(re.escape(name) for name in sorted(user_defined, key=len, reverse=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(longest_first), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, added: dict[str, int], folder: Path) -> None:
    """Add the folder's own tokens at the ids that it gives them, then `<image>` and `<pad>`."""
    for name, token in sorted(added.items(), key=lambda item: item[1]):
        if tokenizer.token_to_id(name) is None and token != tokenizer.get_vocab_size():
            raise InputError(
                f"{folder}: added token {name!r} is said to be {token}, the next free one is "
                f"{tokenizer.get_vocab_size()}"
            )
        tokenizer.add_special_tokens([_added(name)])
    if tokenizer.token_to_id(IMAGE_PLACEHOLDER) is not None:
        raise InputError(
            f"{folder}: the tokenizer has a token {IMAGE_PLACEHOLDER} already; the original has none"
        )
    tokenizer.add_special_tokens([_added(IMAGE_PLACEHOLDER), _added(PAD)])


def _special_names(pieces: SentencePieceProcessor, settings: dict[str, Any]) -> dict[str, str | None]:
    """bos_token, eos_token and unk_token: the settings' or SentencePiece's own."""
    own = {"bos_token": pieces.bos_id(), "eos_token": pieces.eos_id(), "unk_token": pieces.unk_id()}
    return {
        role: _content(settings.get(role)) or (pieces.id_to_piece(token) if token >= 0 else None)
        for role, token in own.items()
    }


def _merges(pieces: SentencePieceProcessor, names: list[str], kinds: list[int]) -> BPE:
    """Return merges for every way to split a normal piece into two known ones, the earliest-learned piece
    first."""
    vocabulary = {name: token for token, name in enumerate(names)}
    merges = [
        (names[token][:cut], names[token][cut:])
        for token in sorted(range(len(names)), key=lambda token: -pieces.get_score(token))
        if kinds[token] == _NORMAL
        for cut in range(1, len(names[token]))
        if names[token][:cut] in vocabulary and names[token][cut:] in vocabulary
    ]
    return BPE(
        vocabulary,
        merges,
        unk_token=pieces.id_to_piece(pieces.unk_id()),
        fuse_unk=True,
        byte_fallback="<0x0A>" in vocabulary,
        ignore_merges=_USER_DEFINED in kinds,  # their own merges there are none of: a whole word is a piece
    )


def _compare(tokenizer: Tokenizer, pieces: SentencePieceProcessor, own: list[str], path: Path) -> None:
    """Raise an InputError if SentencePiece gives other ids: it is no BPE, or normalises text in a way of its
    own."""
    for text in (*_PROBES, *(f"a{name}b {name} c" for name in own)):
        if tokenizer.encode(text, add_special_tokens=False).ids != pieces.encode(text):
            raise InputError(
                f"{path}: this SentencePiece model splits {text[:40]!r} as no Llama tokenizer does; "
                "only BPE models with Llama's settings are read"
            )


def _settings(folder: Path) -> dict[str, Any]:
    """Read tokenizer_config.json over special_tokens_map.json."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            content = read_json(folder / name)
            if not isinstance(content, dict):
                raise InputError(f"{folder / name}: expected a JSON object")
            settings |= {key: value for key, value in content.items() if value is not None}
    return settings


def _added_tokens(folder: Path, settings: dict[str, Any]) -> dict[str, int]:
    """Return the tokens and their ids that were added to the SentencePiece model's or cut out of text before
    it."""
    added: dict[str, int] = {}
    if (folder / "added_tokens.json").is_file():
        content = read_json(folder / "added_tokens.json")
        added |= content if isinstance(content, dict) else {}
    for token, value in (settings.get("added_tokens_decoder") or {}).items():
        name = _content(value)
        if name is not None and str(token).isdigit():
            added[name] = int(token)
    return added


def _content(value: Any) -> str | None:
    """Return the text of a special token, which is given as a text or as a dictionary with its `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) and content else None


def _added(name: str) -> AddedToken:
    return AddedToken(name, special=True, normalized=False)


def _proto_pieces(model: bytes) -> Iterator[tuple[str, int]]:
    """Yield (text, type) of each piece of a serialised ModelProto (sentencepiece_model.proto: `repeated
    SentencePiece pieces = 1`, in it `string piece = 1` and `Type type = 3`, NORMAL if absent)."""
    for number, value in _fields(model):
        if number == 1 and isinstance(value, bytes):
            held = dict(_fields(value))
            text, kind = held.get(1, b""), held.get(3, _NORMAL)
            yield (text.decode("utf-8", "replace") if isinstance(text, bytes) else "", int(kind))


def _model_type(model: bytes) -> int:
    """Return the kind of a serialised ModelProto (`TrainerSpec trainer_spec = 2`, in it `ModelType
    model_type = 3`, UNIGRAM if absent)."""
    settings = dict(_fields(model)).get(2, b"")
    return int(dict(_fields(settings)).get(3, _UNIGRAM))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of a protocol buffers message: a whole number, bytes, or a float."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            yield number, varint()
        elif wire == 2:
            length = varint()
            yield number, message[at : at + length]
            at += length
        else:  # 5: float, 1: double
            size, form = (4, "<f") if wire == 5 else (8, "<d")
            yield number, struct.unpack(form, message[at : at + size])[0]
            at += size
