"""CLIP tokenizers of any text: the bytes of all letters, and a few pieces of words."""

from __future__ import annotations

from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer


def clip_tokenizer(words: str = "", limit: int = 77) -> CLIPTokenizer:
    """Return a byte-level BPE tokenizer that has each of the words (of ASCII letters) as one token.

    Args:
        words: Separated by spaces.
        limit: Tokens that it says the encoder reads.
    """
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words.split():
        beginning = ""
        for letter, following in pairwise([*word[:-1], f"{word[-1]}</w>"]):
            merge = (beginning or letter, following)
            beginning = "".join(merge)
            if merge not in merges:
                merges.append(merge)
                pieces.append(beginning)
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocabulary, merges, model_max_length=limit)
