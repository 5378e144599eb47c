"""Boxes drawn on photos in the register, in headless Chromium, and their way into training data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.__main__ import main as data_prep
from eval.survey.findings import Finding, NoveltyMap
from eval.survey.register import write_register
from llava.common.boxes import parse_box
from llava.common.files import read_json_list
from llava.common.records import Call, Record
from tests.support.register_page import Open, current, said, save, watched_register
from tests.support.surveyed import jpeg, register_of, write_photo

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

SURVEY_BOX = (0.1, 0.2, 0.5, 0.6)
BOX = (0.25, 0.125, 0.75, 0.5)
MAP = NoveltyMap(box=(0.0, -0.25, 1.0, 1.25), rows=["00", "09"])
RECIPE = """
unit: picture
defects: [{name: missing disc}, {name: flashover}]
boxes: {frame: whole, decimals: 2}
group: {twins: null, shifted: false}
splits: {val: 0, test: 0}
families:
  presence: {questions: ["Is there a defect?"]}
  box: {family: where, type: box, of: each, questions: ["Give the box of the {kind}."]}
"""


def finding(name: str, decision: Call, **more: Any) -> Finding:
    return Finding(id=name, photo=f"{name}.jpg", photos=[f"{name}.jpg"], decision=decision, **more)


FOUND = [
    finding("cut", "ask", reason="unreadable", problem="cut short"),
    finding("found", "defect", p_yes=0.9, kind="flashover", box=SURVEY_BOX),
    finding("new", "ask", p_yes=0.5, reason="never seen", novelty=0.005, novelty_maps=[MAP]),
    finding("sound", "sound", p_yes=0.1),
]


@pytest.fixture
def open_register(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens the register of FOUND, whose photos lie beside it, three times as large as the small pictures."""
    shown = [found.photo for found in FOUND if not found.problem]
    photos = {
        name: write_photo(tmp_path / "photos" / name, number, (192, 144)) for number, name in enumerate(shown)
    }
    photos["cut.jpg"] = tmp_path / "photos" / "cut.jpg"
    register = register_of(FOUND, str(tmp_path / "photos"))
    write_register(tmp_path, register, photos, {name: jpeg(1) for name in shown})
    with watched_register(browser, tmp_path / "register.html") as opened:
        yield opened


def open_photo(tab: Any, name: str) -> None:
    tab.click(f"#f-{name}")
    tab.keyboard.press("b")
    tab.wait_for_function("document.querySelector('#large img').naturalWidth === 192")  # not the small one


def ends(tab: Any, box: tuple[float, ...]) -> list[tuple[float, float]]:
    """Return the corners of a box on the screen."""
    place = tab.locator("#large .picture").bounding_box()
    x1, y1, x2, y2 = box
    return [
        (place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in ((x1, y1), (x2, y2))
    ]


def draw(tab: Any, box: tuple[float, ...] = BOX) -> None:
    """Draw with the mouse, from the first corner to the second."""
    start, end = ends(tab, box)
    tab.mouse.move(*start)
    tab.mouse.down()
    tab.mouse.move(*end, steps=3)
    tab.mouse.up()


def drawn(tab: Any, where: str = "#large") -> list[list[float]]:
    """Return the boxes that are seen in a picture."""
    rectangles = """rects => rects.filter(rect => getComputedStyle(rect).display !== "none").map(rect =>
        ["x", "y", "width", "height"].map(name => Number(rect.getAttribute(name))))"""
    return tab.eval_on_selector_all(f"{where} .picture rect:not(.under)", rectangles)


def test_a_drawn_box_corrects_and_ends_in_the_training_data(open_register: Open, tmp_path: Path) -> None:
    tab = open_register()
    open_photo(tab, "found")
    assert drawn(tab) == [pytest.approx([0.1, 0.2, 0.4, 0.4])]
    draw(tab, (BOX[2], BOX[3], BOX[0], BOX[1]))  # from any corner to the other
    assert said(tab, "found") == "corrected: flashover; a box was drawn"
    (seen,) = drawn(tab)
    assert seen == pytest.approx([0.25, 0.125, 0.5, 0.375], abs=0.005), "in place of the survey's"
    assert drawn(tab, "#f-found") == [seen], "on the card too"

    tab.keyboard.press("j")
    assert current(tab) == "new" and drawn(tab) == []
    draw(tab, (0.6, 0.6, 1.1, 0.9))  # what leaves the photo ends at its edge
    assert said(tab, "new") == "a box was drawn; what is in it?"
    assert "choose what it is" in tab.inner_text("#prompt")
    tab.select_option("#kind:focus", "missing disc")
    assert said(tab, "new") == "corrected: missing disc; a box was drawn"
    assert not tab.is_visible("#prompt")
    tab.keyboard.press("Escape")
    tab.click("#f-sound")
    tab.keyboard.press("a")

    saved = save(tab, tmp_path / "photos" / "corrections.json")
    boxes = {one.finding: one.box for one in saved.corrections}
    assert boxes["found"] == pytest.approx(BOX, abs=0.005)
    assert boxes["new"] == pytest.approx((0.6, 0.6, 1, 0.9), abs=0.005)
    assert boxes["sound"] is None

    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "data"
    arguments = ["--source", tmp_path / "photos", "--recipe", recipe, "--output", output]
    assert data_prep(["convert", *map(str, arguments)]) == 0
    answers = {
        (record.meta["source"], record.conversations[0].value.rpartition("\n")[2]): record.conversations[1]
        for record in read_json_list(tmp_path / "data" / "train.json", Record)
    }
    box = parse_box(answers["found", "Give the box of the flashover."].value)
    assert box == pytest.approx(BOX, abs=0.011)
    box = parse_box(answers["new", "Give the box of the missing disc."].value)
    assert box == pytest.approx((0.6, 0.6, 1, 0.9), abs=0.011)
    assert answers["sound", "Is there a defect?"].value == "no"


def test_a_box_is_removed_drawn_again_and_undone(open_register: Open, tmp_path: Path) -> None:
    tab = open_register()
    open_photo(tab, "found")
    tab.keyboard.press("x")
    assert said(tab, "found") == "corrected: flashover; without a box" and drawn(tab) == []
    assert not tab.is_visible("#unbox"), "there is none"
    (without,) = save_behind(tab, tmp_path).corrections
    assert (without.verdict, without.kind, without.box) == ("correct", "flashover", None)

    other = open_register()  # a colleague loads it
    other.set_input_files("#load", str(tmp_path / "saved.json"))
    other.wait_for_function("document.getElementById('saved').textContent.startsWith('1 of 4')")
    assert said(other, "found") == "corrected: flashover; without a box" and drawn(other, "#f-found") == []

    draw(tab)
    draw(tab, (0.1, 0.1, 0.3, 0.3))
    ((x, y, *_),) = drawn(tab)
    assert (x, y) == pytest.approx((0.1, 0.1), abs=0.005), "the last one counts"
    tab.mouse.click(*ends(tab, BOX)[0])
    assert len(drawn(tab)) == 1, "a click draws nothing"
    assert save_behind(tab, tmp_path).corrections[0].box is not None
    tab.keyboard.press("u")
    assert said(tab, "found") == "" and drawn(tab) == [pytest.approx([0.1, 0.2, 0.4, 0.4])]
    draw(tab)
    tab.click("#bar >> text=Accept")  # as the survey says
    (accepted,) = save_behind(tab, tmp_path).corrections
    assert (accepted.verdict, accepted.box) == ("accept", SURVEY_BOX)


def save_behind(tab: Any, folder: Path) -> Any:
    """Close the large photo, save, and open it again."""
    was_open = tab.is_visible("#large")
    tab.keyboard.press("Escape")
    saved = save(tab, folder / "saved.json")
    if was_open:
        tab.keyboard.press("b")
    return saved


def test_a_box_without_a_kind_waits_for_one(open_register: Open, tmp_path: Path) -> None:
    tab = open_register()
    open_photo(tab, "sound")
    draw(tab)
    tab.keyboard.press("Escape")  # leaves the choice of a kind
    tab.keyboard.press("Escape")
    assert save(tab, tmp_path / "saved.json").corrections == []
    assert "have a note or a box, but no accept" in tab.inner_text("#saved")
    again = open_register(context=tab.context)
    assert said(again, "sound") == "a box was drawn; what is in it?" and len(drawn(again, "#f-sound")) == 1
    again.keyboard.press("x")  # acts on the current finding, which has no photo
    again.click("#f-sound")
    again.keyboard.press("x")
    assert said(again, "sound") == ""


def test_a_finger_draws_on_a_phone(open_register: Open, tmp_path: Path) -> None:
    tab = open_register(width=360, has_touch=True, is_mobile=True)
    tab.tap("#f-found")
    tab.tap("#bar >> text=Box")
    tab.wait_for_function("document.querySelector('#large img').naturalWidth === 192")
    start, end = ends(tab, BOX)
    touch = tab.context.new_cdp_session(tab)
    for kind, points in (("touchStart", [start]), *[("touchMove", [end])] * 2, ("touchEnd", [])):
        touches = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
        tab.wait_for_timeout(100)  # lifted in motion, the finger would fling, and the next tap end that
    assert said(tab, "found") == "corrected: flashover; a box was drawn"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.tap("#large [data-key=Escape]")
    tab.wait_for_selector("#large", state="hidden")
    (one,) = save(tab, tmp_path / "saved.json").corrections
    assert one.box == pytest.approx(BOX, abs=0.01)


def test_where_a_photo_is_unlike_training_is_shown_by_a_key(open_register: Open) -> None:
    tab = open_register()
    place = tab.locator("#f-new svg.novelty")
    assert tab.locator("svg.novelty").count() == 1 and not place.is_visible()
    tab.keyboard.press("m")
    assert place.is_visible()
    open_photo(tab, "new")
    assert tab.locator("#large svg.novelty").is_visible()
    tab.click("#bar >> text=Map")
    assert not place.is_visible()


def test_what_cannot_be_shown_has_nothing_to_draw_on(open_register: Open) -> None:
    tab = open_register()
    tab.click("#f-cut")
    tab.keyboard.press("b")
    assert "cannot be shown" in tab.inner_text("#large")
    draw(tab)
    assert said(tab, "cut") == ""


def test_a_photo_that_was_moved_away_is_drawn_on_small(open_register: Open, tmp_path: Path) -> None:
    for name in ("found", "sound"):
        (tmp_path / "photos" / f"{name}.jpg").write_text("no photo")
    tab = open_register()
    tab.click("#f-found")
    tab.keyboard.press("b")
    tab.wait_for_function("document.getElementById('hint').textContent.includes('This is the small picture')")
    draw(tab)
    assert said(tab, "found") == "corrected: flashover; a box was drawn"


@pytest.mark.parametrize("box", [[0.5, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [10, 20, 50, 80], "left"])
def test_a_file_with_a_bad_box_changes_nothing(open_register: Open, tmp_path: Path, box: Any) -> None:
    said_of = {"finding": "found", "verdict": "correct", "kind": "flashover", "box": box}
    content = {"format": "llava-inspect corrections", "survey": "0123456789abcdef", "corrections": [said_of]}
    (tmp_path / "bad.json").write_text(json.dumps(content))
    tab = open_register()
    tab.set_input_files("#load", str(tmp_path / "bad.json"))
    tab.wait_for_function("document.getElementById('saved').textContent.includes('x1, y1, x2, y2')")
    assert said(tab, "found") == ""
