"""Random JSON for the readers' property tests: much like a format's files, down to the nonsense."""

from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st


def json_like(keys: Collection[str], words: Collection[str]) -> st.SearchStrategy[Any]:
    """Generate nested lists and objects, with keys mostly from `keys` and texts mostly from `words`."""
    texts = st.sampled_from(sorted(words)) | st.text(max_size=4)
    numbers = st.integers() | st.floats() | st.sampled_from([0, 1, 10.5, 1e308, -3])
    leaves = texts | numbers | st.none() | st.booleans()
    names = st.sampled_from(sorted(keys)) | st.text(max_size=3)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
        max_leaves=30,
    )


def conversations_like(image: str) -> st.SearchStrategy[Any]:
    """Generate items of a list of LLaVA's records: records, some of them about `image`, and nonsense."""
    anything = json_like(
        ["from", "value", "image", "id", "task", "group"],
        ["human", "gpt", "<image>", "<image> q", image, "\0", "\ud800"],
    )
    turns = st.lists(st.fixed_dictionaries({"from": anything, "value": anything}), max_size=3)
    record = st.fixed_dictionaries(
        {"conversations": anything | turns},
        optional={"id": anything, "image": anything | st.just(image), "meta": anything},
    )
    return anything | record
