"""The page in headless Chromium: talking, searching, comparing, and that nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.support.paths import REPO
from tests.support.tiny_diffusers import save_tiny_diffusion
from tests.support.tiny_sam import save_tiny_sam

pytest.importorskip("gradio")
pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

HAS_TOOLS = all(map(find_spec, ("cv2", "diffusers")))
"""Whether things can be cut out and painted here."""


@dataclass
class Page:
    """The process that serves the page."""

    process: subprocess.Popen[str]
    url: str
    temporary: Path
    home: Path
    log: Path
    slow: Path

    @property
    def files(self) -> list[Path]:
        """What lies in its folder for temporary files."""
        return [path for path in self.temporary.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    home, temporary, log, slow = folder / "home", folder / "tmp", folder / "log", folder / "slow"
    home.mkdir()
    temporary.mkdir()
    arguments = ["--model-path", str(tiny_model_dir), "--port", "0"]
    if HAS_TOOLS:
        arguments += ["--segmenter", str(save_tiny_sam(folder / "sam"))]
        arguments += ["--diffusion-model", str(save_tiny_diffusion(folder / "sd"))]
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.watched_page", str(log), str(slow), *arguments],
        cwd=REPO, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines: list[str] = []
        while not (lines and lines[-1].startswith("open http")):
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        yield Page(process, lines[-1].split()[1], temporary, home, log, slow)
    finally:
        process.kill()
        process.wait()


Open = Callable[..., Any]


@pytest.fixture
def open_tab(browser: Any, page: Page) -> Iterator[Open]:
    """Opens the page in a tab of a browser of its own; what a tab asks other hosts for is an error."""
    contexts, strangers = [], []

    def open_page(locale: str = "en-US") -> Any:
        context = browser.new_context(locale=locale)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(120_000)  # Playwright's 30 s were once too few on a machine with other work
        tab.on("request", lambda request: strangers.append(request.url))
        tab.goto(page.url)
        tab.wait_for_selector("#question textarea")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    local = (page.url, "data:", "blob:")
    assert not [url for url in strangers if not url.startswith(local)]


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[str], Path]:
    """Draws a circle of a colour."""

    def draw(colour: str) -> Path:
        image = Image.new("RGB", (320, 240), (120, 125, 118))
        ImageDraw.Draw(image).ellipse((110, 70, 210, 170), fill=colour)
        image.save(tmp_path / f"{colour}.png")
        return tmp_path / f"{colour}.png"

    return draw


def give(tab: Any, photo: Path) -> None:
    tab.set_input_files("#question input[type=file]", str(photo))
    tab.wait_for_selector("#question .thumbnail-item, #question img")


def ask(tab: Any, question: str, wait: bool = True) -> str:
    """Ask, and return the answer."""
    answers = tab.locator("#talk .bot.message").count()
    tab.fill("#question textarea", question)
    tab.keyboard.press("Enter")
    if not wait:
        return ""
    tab.wait_for_function(
        "before => { const answers = document.querySelectorAll('#talk .bot.message');"
        " return answers.length > before && !answers[answers.length - 1].innerText.includes('▍')"
        " && document.querySelector('#question .submit-button'); }",
        arg=answers,
    )
    return answers_in(tab)[-1]


def answers_in(tab: Any) -> list[str]:
    return [text.strip() for text in tab.locator("#talk .bot.message").all_inner_texts()]


def photo_address(tab: Any) -> str:
    return str(tab.locator("#talk img.photo").first.evaluate("image => image.src"))


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return done


def test_six_turns_about_a_photo_that_is_shown_once(open_tab: Open, photo: Callable[[str], Path]) -> None:
    tab = open_tab()
    give(tab, photo("red"))
    first = ask(tab, "What colour is the circle?")
    assert first == "red"
    closed = ask(tab, "Is there a blue star? Answer yes or no.")
    assert closed.startswith("no") and re.search(r"yes \d+ %\s+no \d+ %", closed)
    for question in ("What shape is red?", "Do you see a circle?", "Where is the circle?"):
        assert ask(tab, question)
    assert ask(tab, "What colour is the circle?") == "red"
    assert len(answers_in(tab)) == 6 and tab.locator("#talk img.photo").count() == 1

    tab.click("#undo")
    tab.wait_for_function("document.querySelectorAll('#talk .bot.message').length === 5")
    assert tab.input_value("#question textarea") == "What colour is the circle?"
    give(tab, photo("blue"))  # another photo, in the same talk
    assert ask(tab, "Is there a circle?")
    assert tab.locator("#talk img.photo").count() == 2
    tab.click("#clear")
    tab.wait_for_function("document.querySelectorAll('#talk .message').length === 0")


def test_stop_in_the_middle_and_ask_on(open_tab: Open, page: Page, photo: Callable[[str], Path]) -> None:
    tab = open_tab()
    give(tab, photo("green"))
    page.slow.touch()
    try:
        ask(tab, "Describe the picture.", wait=False)
        tab.wait_for_function("(document.querySelector('#talk .bot.message')?.innerText ?? '').length > 6")
        tab.click("#question .stop-button")
        tab.wait_for_selector("#question .submit-button", timeout=3000)
    finally:
        page.slow.unlink()
    (stopped,) = answers_in(tab)
    assert stopped.endswith("stopped") and stopped.startswith("A ") and "." not in stopped
    assert ask(tab, "What colour is the circle?") == "green"
    tab.click("#retry")
    tab.wait_for_function("document.querySelector('#question .submit-button')")
    assert wait_until(lambda: answers_in(tab)[1:] == ["green"])


def test_visitors_do_not_mix_and_each_has_its_language(
    open_tab: Open, page: Page, photo: Callable[[str], Path]
) -> None:
    tabs = {"red": open_tab("ko-KR"), "blue": open_tab("ru-RU")}
    assert tabs["red"].get_by_role("tab", name="대화").count() == 1
    assert tabs["blue"].get_by_role("tab", name="Беседа").count() == 1
    for colour, tab in tabs.items():
        give(tab, photo(colour))
    page.slow.touch()  # so that they run at the same time
    for tab in tabs.values():
        ask(tab, "What colour is the circle?", wait=False)
    page.slow.unlink()
    for colour, tab in tabs.items():
        tab.wait_for_selector("#question .submit-button")
        assert wait_until(lambda tab=tab, colour=colour: answers_in(tab) == [colour])  # type: ignore[misc]


def test_a_circle_in_a_large_photo(open_tab: Open, page: Page, tmp_path: Path) -> None:
    large = Image.open(REPO / "llava/serve/page/example.jpg").resize((3000, 1902))
    star = [
        (0, -60),
        (15, -20),
        (57, -18),
        (24, 8),
        (35, 48),
        (0, 25),
        (-35, 48),
        (-24, 8),
        (-57, -18),
        (-15, -20),
    ]
    ImageDraw.Draw(large).polygon([(2300 + x, 1500 + y) for x, y in star], fill=(220, 30, 30))
    large.save(tmp_path / "large.jpg")
    tab = open_tab()
    tab.get_by_role("tab", name="Find").click()
    tab.set_input_files("#find-file input[type=file]", str(tmp_path / "large.jpg"))
    tab.wait_for_selector("#find-photo img")
    tab.fill("#find-words :is(input, textarea)", "a red circle")
    tab.click("#find-start")
    tab.wait_for_selector("#find-result img.photo")
    heat_map = tab.locator("#find-result img.photo").get_attribute("src")
    assert httpx.get(f"{page.url}/{heat_map}").headers["content-type"] == "image/jpeg"
    tab.click("#find-stop")  # with what there is
    assert wait_until(lambda: "stopped" in tab.inner_text("#find-result"))
    assert 1 <= tab.locator("#find-result figure").count() <= 5


def test_an_odd_unit_beside_its_neighbours(open_tab: Open) -> None:
    tab = open_tab()
    tab.get_by_role("tab", name="Odd one out").click()
    tab.click("#odd-example")
    tab.wait_for_selector("#odd-result .verdict")
    assert tab.locator("#odd-result polygon.odd").count() == 1
    assert "is unlike its neighbours" in tab.inner_text("#odd-result .verdict")
    points = re.findall(r"[\d.]+", tab.locator("#odd-result polygon.odd").get_attribute("points"))
    x, y = (sum(map(float, points[axis::2])) / len(points[axis::2]) for axis in (0, 1))
    assert (x, y) == pytest.approx((122, 204), abs=12)  # where the example's disc is missing
    assert tab.locator("#odd-result figure img").count() == 4
    tab.locator("#odd-result [data-axis='1']").last.click()
    tab.wait_for_selector("#odd-result button[data-axis='1'][aria-pressed=true]")


@pytest.mark.skipif(not HAS_TOOLS, reason="needs OpenCV and diffusers")
def test_a_click_a_mask_a_word_and_a_picture(
    open_tab: Open, page: Page, photo: Callable[[str], Path]
) -> None:
    tab = open_tab()
    tab.get_by_role("tab", name="Make a defect").click()
    tab.set_input_files("#make-file input[type=file]", str(photo("red")))
    tab.wait_for_selector("#make-cut svg")
    place, seen = (tab.locator(name).bounding_box() for name in ("#make-cut svg", "#make-photo img"))
    assert place == seen  # the drawing lies on the photo
    tab.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    tab.wait_for_selector("#make-cut path.cut")
    clicked = tab.locator("#make-cut circle")
    assert [float(clicked.get_attribute(axis)) for axis in ("cx", "cy")] == pytest.approx((160, 120), abs=1)
    tab.fill("#make-wish :is(input, textarea)", "a burn mark")
    tab.fill("#make-name :is(input, textarea)", "flashover")
    tab.click("#make-start")
    tab.click("#make-keep")
    assert "a photo of a burn mark" in tab.inner_text("#make-result")
    assert tab.locator("#make-result img").count() >= 2
    shown = [image.get_attribute("src") for image in tab.locator("#make-result img").all()]
    made = tab.locator("#make-kept a").get_attribute("href")
    answer = httpx.get(f"{page.url}/{made}")
    assert answer.headers["content-type"] == "application/zip"
    with ZipFile(BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 3 and "made/synthetic.json" in archive.namelist()
    assert not page.files
    tab.close()
    assert wait_until(lambda: all(httpx.get(f"{page.url}/{name}").is_error for name in (made, *shown)))


def test_a_closed_tab_leaves_nothing(
    open_tab: Open, page: Page, photo: Callable[[str], Path], tmp_path: Path
) -> None:
    (folder,) = page.temporary.glob("llava-inspect-web-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    tab = open_tab()
    give(tab, photo("red"))
    assert page.files  # it is read with the question
    assert ask(tab, "What colour is the circle?") == "red"
    assert not page.files
    address = photo_address(tab)
    assert httpx.get(address).status_code == 200
    give(tab, photo("blue"))
    assert page.files
    page.slow.touch()
    ask(tab, "Describe the picture.", wait=False)
    tab.set_input_files("#question input[type=file]", str(photo("green")))  # never sent
    assert wait_until(lambda: bool(page.files))
    time.sleep(0.5)
    tab.close()
    page.slow.unlink()
    assert wait_until(lambda: not page.files and httpx.get(address).status_code == 404)


def test_the_end_leaves_nothing(open_tab: Open, page: Page, photo: Callable[[str], Path]) -> None:
    tab = open_tab()
    give(tab, photo("red"))
    assert page.files
    page.process.send_signal(signal.SIGTERM)
    assert page.process.wait(20) == 0
    assert not list(page.temporary.iterdir()) and not list(page.home.iterdir())
    events = page.log.read_text().splitlines()
    opened = {line.removeprefix("open ") for line in events if line.startswith("open ")}
    assert any(path.startswith(str(page.temporary)) for path in opened)
    strange = {path for path in opened if not path.startswith((str(page.temporary), "/dev/", "/proc/"))}
    assert not {
        path for path in strange if not path.endswith((".pyc", "hash_seed.txt")) and "__pycache__" not in path
    }
    assert not [line for line in events if line.startswith("connect ") and "127.0.0.1" not in line]
