"""What the tab that cuts out and paints does: clicks, masks, pictures one at a time, files to keep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_prep.formats.labelme import read_annotation
from data_prep.synthetic import read_synthetic
from llava.common.errors import InputError
from llava.common.files import sha256
from llava.common.images import open_image
from llava.common.masks import load_mask
from llava.inference.live import LiveEngine
from llava.model.builder import load_model
from llava.painting.diffusion import DiffusionSettings, Wish
from llava.painting.diffusion_model import DiffusionModel
from llava.painting.fitting import fits
from llava.painting.sam import Sam
from llava.painting.segment import GrabCut
from llava.serve.http.limits import Limits
from llava.serve.page.easel import Easel
from llava.serve.page.jobs import Job
from llava.serve.page.making import KeptPictures, Making
from llava.serve.page.pictures import Upload
from llava.serve.page.private_folder import PrivateFolder

if TYPE_CHECKING:
    from llava.serve.page.visitors import Visitors

gr = pytest.importorskip("gradio")
pytest.importorskip("cv2")
pytest.importorskip("diffusers")

CIRCLE = (30, 20, 70, 60)
SOME = DiffusionSettings(steps=3)


def circle() -> Image.Image:
    image = Image.new("RGB", (120, 80), (120, 125, 118))
    ImageDraw.Draw(image).ellipse(CIRCLE, fill="red")
    return image


def making(segmenter: Any, takes_clicks: bool) -> Making:
    pixels = np.asarray(circle())
    photo = Upload(circle(), "circle.png", "0" * 64)
    return Making(photo, pixels, segmenter.look(pixels), takes_clicks=takes_clicks)


# --- clicks ----------------------------------------------------------------------------------------------


def test_two_clicks_are_corners_in_any_order() -> None:
    cut = making(GrabCut(), takes_clicks=False)
    cut.click(76, 66)
    assert cut.mask is None and cut.box is None
    cut.click(25, 15)
    assert cut.box == (25, 15, 76, 66) and cut.mask is not None
    assert cut.mask[40, 50] and not cut.mask[5, 5]
    cut.click(90, 10)  # the next box begins
    assert cut.mask is None and len(cut.clicks) == 1
    with pytest.raises(InputError, match="nothing of the 120 x 80 picture is in it"):
        cut.click(90, 10)
    assert len(cut.clicks) == 1
    cut.clear()
    assert not cut.clicks


def test_clicks_add_and_take_away_and_are_taken_back(sam: Sam) -> None:
    cut = making(sam, takes_clicks=True)
    with pytest.raises(InputError, match="no click on the thing"):
        cut.click(5, 5, inside=False)
    assert not cut.clicks
    cut.click(50, 40)
    first = cut.mask
    assert first is not None and first.any()
    cut.click(60, 50, inside=False)
    assert [click.inside for click in cut.clicks] == [True, False]
    assert cut.mask is not None and not np.array_equal(cut.mask, first)
    cut.undo()
    assert np.array_equal(cut.mask, first)


# --- painting --------------------------------------------------------------------------------------------


def wish(prompt: str = "a burn") -> Wish:
    pixels = np.asarray(circle())
    mask = np.zeros(pixels.shape[:2], bool)
    mask[30:50, 40:60] = True
    return Wish(pixels, mask, prompt, seed=5)


def test_a_picture_comes_step_by_step_with_the_prompt_that_is_read(sd: DiffusionModel) -> None:
    seen = list(Easel(sd).paint(wish("a burn, " + "very dark " * 20), SOME))
    assert [state.step for state in seen] == [0, 1, 2, 3, 3] and {state.steps for state in seen} == {3}
    assert [state.result is None for state in seen] == [True] * 4 + [False]
    result, asked = seen[-1].result, seen[-1].wish
    assert result is not None and (result != asked.pixels).any()
    assert np.array_equal(result[~asked.mask], asked.pixels[~asked.mask])
    assert asked.prompt.startswith("a burn") and fits(asked.prompt, sd.tokenizers)


def test_pictures_wait_for_each_other_and_an_end_lets_the_next_begin(sd: DiffusionModel) -> None:
    easel = Easel(sd)
    first = easel.paint(wish(), SOME)
    assert next(first).step == 0  # it has the model now
    second = Job(easel.paint(wish(), SOME))
    while second.state is None:
        second.wait(1)
    assert second.state.step == 0 and second.running
    first.close()  # type: ignore[attr-defined]
    while second.wait(5):
        pass
    assert second.state.result is not None


def test_what_fails_is_a_sentence(sd: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("CUDA out of memory\nmore")

    easel = Easel(sd)
    with pytest.raises(InputError, match="strength must be above 0"):
        easel.paint(wish(), DiffusionSettings(strength=0))
    monkeypatch.setattr(sd, "predict", fail)
    with pytest.raises(InputError, match=r"cannot be painted \(.*CUDA out of memory"):
        list(easel.paint(wish(), SOME))
    monkeypatch.undo()
    assert list(easel.paint(wish(), SOME))[-1].result is not None


# --- the tab ---------------------------------------------------------------------------------------------


@pytest.fixture
def visitors(tiny_model_dir: Path) -> Iterator[Visitors]:
    from llava.serve.page.visitors import Visitors

    folder = PrivateFolder()
    with LiveEngine(load_model(tiny_model_dir)) as live:
        visitors = Visitors(live, folder, Limits(), idle_seconds=60, per_address=1)
        yield visitors
        visitors.close()
    folder.wipe()


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    return said


REQUEST: Any = SimpleNamespace(session_hash="mine", client=SimpleNamespace(host="::1"), headers={})


def give(visitors: Visitors) -> Upload:
    buffer = BytesIO()
    circle().save(buffer, "PNG")
    path = visitors._folder.path / "upload" / "my circle.png"
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue())
    digest = sha256(path)
    visitor = visitors.of(REQUEST)
    upload = visitors.read_upload(visitor, str(path))
    assert (upload.name, upload.sha256) == ("my circle.png", digest) and not path.exists()
    return visitors.set_photo(visitor, "make", upload)


def click(x: float, y: float) -> Any:
    return SimpleNamespace(x=x, y=y)


def last_of(updates: Iterator[list[Any]]) -> list[Any]:
    return list(updates)[-1]


def test_a_photo_is_clicked_painted_kept_and_downloaded(
    visitors: Visitors, warnings: list[str], sam: Sam, sd: DiffusionModel, tmp_path: Path
) -> None:
    from llava.serve.page.cut_part import CutPart
    from llava.serve.page.paint_part import PaintPart

    with gr.Blocks():
        cut, paint = CutPart(visitors, sam), PaintPart(visitors, Easel(sd))
        paint.build_result()
    asked: tuple[Any, ...] = ("a burn mark", "wet", False, "9", 1.0, 3)
    assert len(list(paint._paint(*asked, REQUEST))) == 1 and warnings.pop() == "Click on the photo first."
    photo = give(visitors)
    looked = list(cut._look(REQUEST))
    assert "Looking" in looked[0] and looked[1].startswith("<svg") and "path" not in looked[1]
    assert cut._clicked(False, click(50, 40), REQUEST).count('class="cut"') == 1
    assert list(paint._paint(" ", *asked[1:], REQUEST)) and warnings.pop() == "Say what shall be there."
    assert list(paint._paint(*asked[:3], "-1", *asked[4:], REQUEST)) and "from 0 to" in warnings.pop()
    shown, keep = last_of(paint._paint(*asked, REQUEST))
    assert "a photo of a burn mark, wet, sharp focus, natural light" in shown and "seed 9" in shown
    assert keep.visible and shown.count("<img") in (2, 4)
    _, keep = paint._keep(" ", REQUEST)
    assert keep.visible and warnings.pop() == "Name its class."
    kept, keep = paint._keep(" flashover", REQUEST)
    assert "1 picture" in kept and not keep.visible
    assert paint._keep("", REQUEST) and "no picture to keep" in warnings.pop()
    last_of(paint._paint("clouds", "", True, "", 0.5, 4, REQUEST))  # the background is new
    kept, _ = paint._keep("", REQUEST)
    (address,) = visitors.of(REQUEST).shown["make-offered"]
    content = visitors.pictures.get(address.removeprefix("shown/"))
    assert content is not None and address in kept
    with ZipFile(BytesIO(content)) as archive:
        archive.extractall(tmp_path)
    burn, clouds = read_synthetic(tmp_path / "made").images
    assert (burn.synthetic.kind, clouds.synthetic.kind) == ("flashover", None)
    assert burn.synthetic.parents[0].sha256 == photo.sha256
    assert burn.synthetic.details == {"model": "tiny-sd", "steps": 3, "strength": 1.0, "guidance": 7.5}
    mask = load_mask(tmp_path / "made" / burn.synthetic.mask)
    result = np.asarray(open_image(tmp_path / "made" / burn.file_name))
    assert np.array_equal(result[~mask], np.asarray(circle())[~mask])
    assert np.array_equal(load_mask(tmp_path / "made" / clouds.synthetic.mask), ~mask)
    visitors.wipe("mine")
    assert visitors.pictures.get(address.removeprefix("shown/")) is None
    assert not warnings


def test_the_photo_is_looked_at_once(visitors: Visitors, warnings: list[str], sam: Sam) -> None:
    from llava.serve.page.cut_part import CutPart

    looked = []
    segmenter: Any = SimpleNamespace(look=lambda pixels: looked.append(pixels) or sam.look(pixels))
    with gr.Blocks():
        cut = CutPart(visitors, segmenter)
    give(visitors)
    for _ in range(2):
        list(cut._look(REQUEST))
        cut._clicked(False, click(50, 40), REQUEST)
    assert len(looked) == 1
    assert "circle" not in (drawn := cut._clear(REQUEST))
    refused = cut._clicked(True, click(50, 40), REQUEST)
    assert "circle" not in refused and refused != drawn  # or the browser's mark would stay
    give(visitors)
    cut._clicked(False, click(50, 40), REQUEST)
    assert len(looked) == 2


def test_the_model_names_keywords(visitors: Visitors, warnings: list[str], sd: DiffusionModel) -> None:
    from llava.serve.page.paint_part import PaintPart

    with gr.Blocks():
        paint = PaintPart(visitors, Easel(sd))
    paint._describe(REQUEST)
    assert warnings.pop() == "Choose a photo first."
    give(visitors)
    assert isinstance(paint._describe(REQUEST), str) and not warnings


def test_clicks_label_a_photo(visitors: Visitors, warnings: list[str], tmp_path: Path) -> None:
    from llava.serve.page.cut_part import CutPart
    from llava.serve.page.label_part import LabelPart

    with gr.Blocks():
        cut = CutPart(visitors, GrabCut())
        label = LabelPart(visitors, cut.drawing)
    label._label("nest", REQUEST)
    assert warnings.pop() == "Click on the photo first."
    give(visitors)
    for x, y in ((25, 15), (76, 66)):
        cut._clicked(False, click(x, y), REQUEST)
    label._label(" ", REQUEST)
    assert warnings.pop() == "Name its class."
    drawing, shown = label._label("<nest>", REQUEST)
    assert "&lt;nest&gt;" in shown and 'download="my circle.json"' in shown
    assert drawing.count('class="labelled"') == 1 and 'class="cut"' not in drawing
    (address,) = visitors.of(REQUEST).shown["make-offered"]
    content = visitors.pictures.get(address.removeprefix("shown/"))
    assert content is not None
    (tmp_path / "my circle.json").write_bytes(content)
    (shape,) = read_annotation(tmp_path / "my circle.json").shapes
    assert shape.box == pytest.approx((30, 20, 71, 61), abs=3)
    drawing, shown = label._unlabel(REQUEST)
    assert "labelled" not in drawing and not shown
    assert visitors.pictures.get(address.removeprefix("shown/")) is None


def test_a_model_that_fails_is_a_sentence(visitors: Visitors, warnings: list[str]) -> None:
    from llava.serve.page.cut_part import CutPart

    def look(pixels: object) -> None:
        raise RuntimeError("CUDA out of memory\nmore")

    with gr.Blocks():
        cut = CutPart(visitors, SimpleNamespace(look=look))  # type: ignore[arg-type]
    give(visitors)
    assert list(cut._look(REQUEST))[-1] == "" and "out of memory more" in warnings.pop()
    assert cut._clicked(False, click(5, 5), REQUEST) == "" and "out of memory" in warnings.pop()


def test_who_is_gone_leaves_nothing_that_ends_later(visitors: Visitors) -> None:
    photo = give(visitors)
    visitor = visitors.of(REQUEST)
    visitors.wipe("mine")
    addresses = [*visitors.show(visitor, "make-result", [photo.image] * 2)]
    addresses += [photo.address, visitors.offer(visitor, "make-offered", b"a zip", "zip")]
    assert [visitors.pictures.get(address.removeprefix("shown/")) for address in addresses] == [None] * 4


def test_what_was_waited_for_is_not_wiped_at_its_end(tiny_model_dir: Path) -> None:
    from llava.serve.page.visitors import Visitors

    folder, ends = PrivateFolder(), Event()
    with LiveEngine(load_model(tiny_model_dir)) as live:
        visitors = Visitors(live, folder, Limits(), idle_seconds=0.4, per_address=1)
        visitor = visitors.of(REQUEST)
        visitor.jobs.append(Job(iter(lambda: ends.wait(), True)))
        time.sleep(1)
        began, _ = time.monotonic(), ends.set()
        while not visitor.gone:
            time.sleep(0.02)
        assert 0.2 < time.monotonic() - began < 30
        visitors.close()
    folder.wipe()


def test_what_is_kept_has_an_end() -> None:
    kept = KeptPictures()
    kept.last: Any = SimpleNamespace(byte_count=300 * 2**20)
    with pytest.raises(InputError, match="over 256 MiB; download them"):
        kept.keep("flashover")
