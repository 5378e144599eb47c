"""Random JSON for the readers' property tests: much like a format's files, down to the nonsense."""

from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st


def json_like(keys: Collection[str], words: Collection[str]) -> st.SearchStrategy[Any]:
    """Nested lists and objects whose keys are mostly from `keys` and whose texts are mostly from `words`."""
    texts = st.sampled_from(sorted(words)) | st.text(max_size=4)
    numbers = st.integers() | st.floats() | st.sampled_from([0, 1, 10.5, 1e308, -3])
    leaves = texts | numbers | st.none() | st.booleans()
    names = st.sampled_from(sorted(keys)) | st.text(max_size=3)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
        max_leaves=30,
    )
