"""Names of made pictures are names of files, whatever the kind is called."""

import pytest

from llava.common.synthetic import picture_name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("broken disc", "00003_broken_disc.png"),
        ("../../파손: 1/2", "00003__파손_1_2.png"),
        (None, "00003_background.png"),
    ],
)
def test_a_name_tells_number_and_kind(kind: str | None, name: str) -> None:
    assert picture_name(3, kind) == name


def test_a_long_kind_is_cut_to_what_file_systems_take() -> None:
    assert len(picture_name(3, "파손 " * 200).encode()) < 255
