"""English of class names, by examples of real data sets."""

import pytest

from data_prep.recipe.english import as_noun, at_place, meaning_of, noun_phrase, readable
from data_prep.recipe.families import PLACES


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("rolled-in_scale", "rolled-in scale"),
        ("pitted_surface", "a pitted surface"),
        ("scratches", "scratches"),
        ("corroded", "a corroded part"),
        ("uneven", "an uneven part"),
        ("missing_nut", "a missing nut"),
        ("MissingNut", "a missing nut"),
        ("nut-missing", "a missing nut"),
        ("no_nut", "a missing nut"),
        ("insulator", "an insulator"),
        ("oil_leak", "an oil leak"),
        ("corrosion", "corrosion"),
        ("crazing", "crazing"),
        ("casing", "a casing"),
        ("used_blade", "a used blade"),
        ("hourglass", "an hourglass"),
        ("loss", "loss"),
        ("NG", "a defective part"),
        ("crack_2", "a type 2 crack"),
        ("crack2", "a type 2 crack"),
        ("Widget-X2", "a widget X2"),
        ("BROKEN_PCB", "a broken PCB"),
        ("трещина", "трещина"),
    ],
)
def test_how_a_sentence_says_that_there_is_one(name: str, phrase: str) -> None:
    assert noun_phrase(as_noun(readable(name))) == phrase


@pytest.mark.parametrize(
    ("meaning", "names"),
    [
        (
            "sound",
            ["good", "OK", "unbroken", "No-Defect", "non_defective", "insulator_normal", "not cracked"],
        ),
        ("defect", ["crack", "rust", "broken_insulator", "Scratches", "NG", "not_ok", "no nut", "bent_wire"]),
        ("part", ["insulator", "bolts", "rotor blade"]),
        ("unknown", ["vortex generator", "0", "лед"]),
    ],
)
def test_what_a_name_says(meaning: str, names: list[str]) -> None:
    assert {name: meaning_of(name) for name in names} == dict.fromkeys(names, meaning)


def test_places_have_their_prepositions() -> None:
    said = {place: at_place(place) for place in (*PLACES, "left side", "upper middle")}
    assert said["left"] == "on the left" and said["right"] == "on the right"
    assert said["bottom"] == "at the bottom" and said["centre"] == "in the centre"
    assert said["top left"] == "in the top left" and said["top"] == "at the top"
    assert said["left side"] == "on the left side" and said["upper middle"] == "in the upper middle"
