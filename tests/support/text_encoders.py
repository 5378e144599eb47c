"""Make a sentence-transformers model that knows a few words of English and Korean."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MEANINGS = [
    ("hedgehog", "고슴도치"),
    ("penguin", "펭귄"),
    ("insulator", "애자"),
    ("picture", "사진을"),
]
"""Words that mean the same; all others mean nothing."""


def save_text_encoder(folder: Path) -> Path:
    """Save a model to whose embeddings each meaning is a direction. Skips where the library is absent."""
    import pytest

    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[UNK]", *(word for meaning in MEANINGS for word in meaning)]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.zeros((len(words), len(MEANINGS)), np.float32)
    for n in range(1, len(words)):
        weights[n, (n - 1) // 2] = 1
    weights[:, -1] *= 0.3  # "picture" says little
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(folder))
    return folder
