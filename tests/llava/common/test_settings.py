"""Mistakes in YAML files are one line with the file, the line and the remedy."""

from pathlib import Path

import pytest

from llava.common.errors import InputError
from llava.common.settings import read_values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n\tc: 2\n", "line 3: begins with a tab; YAML is indented by spaces"),
        ("a:\n  - b\n  \t- c\n", "line 3: begins with a tab"),
        ("a: b: c\n", "line 1: not valid YAML (mapping values are not allowed"),
        ("- a\n", "expected `key: value` lines"),
    ],
)
def test_what_is_no_yaml_is_named_by_its_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_values(file)
    assert said in str(caught.value) and str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
