"""The register in headless Chromium: filter, keyboard, corrections saved and loaded, the width of a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.survey.findings import Finding
from eval.survey.register import write_register
from llava.common.records import Call
from tests.support.register_page import Open, current, said, save, watched_register
from tests.support.surveyed import jpeg, register_of

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

DECISIONS: tuple[Call, ...] = ("defect", "sound", "ask")
KINDS = ("missing disc", "flashover")


def finding(number: int) -> Finding:
    decision = DECISIONS[number % 3]
    name = f"line {number % 2}/a very long name of a photo {'x' * 40} {number:02d}.jpg"
    return Finding(
        id=f"f{number:02d}",
        photo=name,
        photos=[name],
        asset=f"line {number % 2}",
        decision=decision,
        p_yes=round(1 - number / 20, 2),
        kind=None if decision == "sound" else KINDS[number % 2],
        box=(0.1, 0.2, 0.5, 0.6) if decision == "defect" else None,
        latitude=-33.8 - number / 1000,
        longitude=151.2 + number / 500,
        time=f"2026-06-12T09:{number:02d}:00" if number else None,
        report="An insulator.",
    )


FOUND = [finding(number) for number in range(12)]


@pytest.fixture
def open_register(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens the register of FOUND; what it asks of any host, or complains of, is an error."""
    photos = {found.photo: tmp_path / "photos" / found.photo for found in FOUND}
    write_register(
        tmp_path, register_of(FOUND, str(tmp_path / "photos")), photos, {name: jpeg(1) for name in photos}
    )
    with watched_register(browser, tmp_path / "register.html") as opened:
        yield opened


def shown(tab: Any) -> list[str]:
    return tab.eval_on_selector_all(
        "#cards figure:not([hidden])", "cards => cards.map(card => card.dataset.id)"
    )


def test_filters_and_orders(open_register: Open) -> None:
    tab = open_register()
    surest_first = [found.id for found in FOUND]
    assert shown(tab) == surest_first
    tab.select_option("[name=order]", "unsure")
    assert shown(tab) == surest_first[::-1]
    tab.select_option("[name=order]", "time")
    assert shown(tab) == [*surest_first[1:], "f00"], "what has no time comes last"
    tab.select_option("[name=order]", "unsure")
    tab.select_option("[name=decision]", "defect")
    tab.select_option("[name=kind]", "flashover")
    assert shown(tab) == ["f09", "f03"]
    assert tab.locator(".plan a:visible").count() == 2, "the map shows the same"
    tab.click("text=Show all")
    tab.fill("[name=words]", "xx 07.jpg")
    assert shown(tab) == ["f07"] and "1 of 12" in tab.inner_text("#count")
    tab.evaluate("location.hash = '#f-f02'")  # as a click on the map does
    tab.wait_for_function("document.querySelector('figure.current').dataset.id === 'f02'")
    assert len(shown(tab)) == 12


def test_the_keyboard_and_what_is_saved(open_register: Open, tmp_path: Path) -> None:
    tab = open_register()
    for key in "ja":  # the second is accepted, and the third comes
        tab.keyboard.press(key)
    assert current(tab) == "f02" and said(tab, "f01") == "accepted"
    tab.keyboard.press("r")
    tab.keyboard.press("k")
    tab.keyboard.press("k")
    tab.keyboard.press("k")  # the first: there is none before it
    tab.keyboard.press("k")
    assert current(tab) == "f00"
    tab.keyboard.press("c")
    tab.select_option("#kind:focus", "flashover")
    tab.keyboard.press("n")
    tab.keyboard.type("a jar, not a disc")  # letters are no commands here
    tab.keyboard.press("Escape")
    tab.keyboard.press("j")
    assert current(tab) == "f01" and tab.input_value("#note") == ""
    assert said(tab, "f00") == "corrected: flashover; note: a jar, not a disc"
    assert "3 of 12 looked at" in tab.inner_text("#saved")

    saved = save(tab, tmp_path / "saved.json")
    assert (saved.survey, saved.photos_folder) == ("0123456789abcdef", str(tmp_path / "photos"))
    first, second, third = saved.corrections
    assert (first.finding, first.verdict, first.kind, first.note) == (
        *("f00", "correct", "flashover", "a jar, not a disc"),
    )
    assert first.box == (0.1, 0.2, 0.5, 0.6) and first.photo == FOUND[0].photo
    assert (second.finding, second.verdict, second.decision) == ("f01", "accept", "sound")
    assert second.kind is None and second.names_what_is_there
    assert (third.finding, third.verdict, third.kind) == ("f02", "reject", None)

    tab.keyboard.press("u")
    assert said(tab, "f01") == ""
    again = open_register(context=tab.context)  # kept in the browser
    assert said(again, "f02") == "rejected" and said(again, "f01") == ""
    other = open_register()
    assert said(other, "f02") == ""
    other.set_input_files("#load", str(tmp_path / "saved.json"))
    other.wait_for_function("document.getElementById('saved').textContent.startsWith('3 of 12')")
    assert (
        said(other, "f00").startswith("corrected: flashover")
        and save(other, tmp_path / "saved.json") == saved
    )
    other.select_option("[name=state]", "open")
    assert len(shown(other)) == 9


def test_who_says_that_something_is_there_is_asked_what(open_register: Open, tmp_path: Path) -> None:
    tab = open_register()
    tab.click("#f-f01")
    tab.keyboard.press("r")  # it is called sound, and is not
    assert said(tab, "f01") == "" and "choose what it is" in tab.inner_text("#prompt")
    tab.select_option("#kind:focus", "flashover")
    (saved,) = save(tab, tmp_path / "saved.json").corrections
    assert (saved.finding, saved.verdict, saved.kind) == ("f01", "correct", "flashover")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"format": "llava-inspect corrections", "survey": "of another", "corrections": []},
            "is of another survey",
        ),
        ({"format": "something else"}, "holds no corrections"),
        ("rubbish", "holds no corrections"),
    ],
)
def test_a_file_of_something_else_changes_nothing(
    open_register: Open, tmp_path: Path, content: Any, message: str
) -> None:
    tab = open_register()
    tab.keyboard.press("a")
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "other.json").write_text(text)
    tab.set_input_files("#load", str(tmp_path / "other.json"))
    tab.wait_for_function(f"document.getElementById('saved').textContent.includes({message!r})")
    assert said(tab, "f00") == "accepted"


def test_a_phone_shows_it_without_scrolling_sideways(open_register: Open, tmp_path: Path) -> None:
    tab = open_register(width=360)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.click("#f-f03")
    tab.click("#bar >> text=Accept")
    assert said(tab, "f03") == "accepted" and current(tab) == "f04"
    (saved,) = save(tab, tmp_path / "saved.json").corrections
    assert (saved.kind, saved.box) == (FOUND[3].kind, FOUND[3].box), "what is accepted is repeated"
    bar = tab.locator("#bar").bounding_box()
    assert bar["width"] <= 360 and bar["height"] < 160


def test_pictures_beside_the_page_are_shown(
    open_register: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("eval.survey.register.MAX_EMBEDDED", 100)
    write_register(
        tmp_path, register_of(FOUND[:1]), {FOUND[0].photo: tmp_path / "a.jpg"}, {FOUND[0].photo: jpeg(1)}
    )
    tab = open_register()
    tab.locator("figure img").scroll_into_view_if_needed()
    tab.wait_for_function("document.querySelector('figure img').naturalWidth === 64")
