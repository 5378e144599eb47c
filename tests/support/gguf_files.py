"""Reading GGUF files by llama.cpp's own reader, and texts to tokenize."""

import json

import gguf
from hypothesis import strategies as st

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<>\x00"), max_size=60)


def values_of(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def changed(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
