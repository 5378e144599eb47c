"""Encoders of a few words of English and Korean: a sentence-transformers model, and one of a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

MEANINGS = [("hedgehog", "고슴도치"), ("penguin", "펭귄"), ("insulator", "애자"), ("picture", "사진을")]
"""Words that mean the same, a direction each; all others mean nothing."""
WORDS = [word for meaning in MEANINGS for word in meaning]
VECTORS = np.repeat(np.eye(len(MEANINGS), dtype=np.float32), 2, axis=0) * [1, 1, 1, 0.3]


class WordEncoder:
    """Encodes as the saved model does."""

    def encode_query(self, inputs: list[str], **options: Any) -> Any:
        vectors = np.array(
            [
                sum((VECTORS[WORDS.index(w)] for w in text.split() if w in WORDS), np.zeros(4))
                for text in inputs
            ]
        )
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    encode_document = encode_query


def save_text_encoder(folder: Path) -> Path:
    """Save a sentence-transformers model; skips the test where the library is absent."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    vocabulary = {word: n for n, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.vstack([np.zeros(4), VECTORS]).astype(np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(folder))
    return folder
