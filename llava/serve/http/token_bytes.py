"""What the tokens of a vocabulary are, as text and bytes, one by one."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

_BYTE = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's tokens for single bytes


class TokenBytes:
    """Describes tokens for clients that want to see them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find out how the tokenizer writes its tokens; it must be a fast one."""
        self._tokenizer = tokenizer
        self._added = set(tokenizer.get_added_vocab())
        decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
        steps = [decoder, *decoder.get("decoders", [])]
        self._byte_level = any(step.get("type") == "ByteLevel" for step in steps)

    def of(self, token: int) -> bytes:
        """Return the bytes that the token adds to a text."""
        piece = self._tokenizer.convert_ids_to_tokens([token])[0]
        if piece is None:  # a row of the embedding table without a token
            return b""
        if piece in self._added:
            return piece.encode()
        if self._byte_level:
            return bytes(_byte_of_character()[character] for character in piece)
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("\u2581", " ").encode()

    def describe(self, token: int) -> dict[str, Any]:
        """Return the token as OpenAI's log-probabilities name it: `token` and `bytes`."""
        found = self.of(token)
        return {"token": found.decode(errors="replace"), "bytes": list(found)}


@cache
def _byte_of_character() -> dict[str, int]:
    """Return the byte that each character of a byte-level token stands for (GPT-2's table).

    Printable Latin-1 characters stand for themselves; the others, in their order, for the characters from
    U+0100 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
