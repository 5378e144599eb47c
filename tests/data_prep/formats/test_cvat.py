"""CVAT's XML for images, with every shape that CVAT draws."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import (
    AnnotatedImage,
    AnnotatedSource,
    Annotation,
    Shape,
    merge_annotations,
)
from data_prep.formats import cvat
from data_prep.formats.cvat import read_entries
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError


def tag(kind: str, inner: str = "", /, **facts: Any) -> str:
    written = " ".join(f"{key}={quoteattr(str(value))}" for key, value in facts.items())
    return f"<{kind} {written}>{inner}</{kind}>"


def box(x1: Any, y1: Any, x2: Any, y2: Any, label: str = "x", **more: Any) -> str:
    return tag("box", label=label, xtl=x1, ytl=y1, xbr=x2, ybr=y2, occluded=1, **more)


def image(*shapes: str, name: str = "a.jpg", **more: Any) -> str:
    return tag("image", "".join(shapes), **({"id": 0, "name": name, "width": 100, "height": 50} | more))


def document(*images: str) -> str:
    head = '<?xml version="1.0" encoding="utf-8"?>\n<!-- exported -->\n'
    return f"{head}<annotations><version>1.1</version><meta/>{''.join(images)}</annotations>"


@pytest.fixture
def one(put: Callable[..., Path]) -> Callable[..., Annotation]:
    """What is read of one image that holds the given shapes."""

    def read(*shapes: str) -> Annotation:
        entries, problems, _ = read_entries(put("a.xml", document(image(*shapes))))
        assert problems == []
        return entries[0].annotation

    return read


def find_source(folder: Path) -> tuple[AnnotatedSource, list[str]]:
    return cvat.read(SourceFolder.scan(folder))


def test_every_shape_becomes_a_box(one: Callable) -> None:
    cuboid = {
        f"{axis}{corner}{face}": value + 3 * (face == "2")
        for face in "12"
        for corner, (x, y) in {"tl": (5, 6), "bl": (5, 16), "tr": (25, 7), "br": (25, 17)}.items()
        for axis, value in (("x", x), ("y", y))
    }
    annotation = one(
        box(10.5, 5, 30, 40.25),
        tag("polygon", label="y", points="0.00,0.00;10.00,0.00;0.00,8.00"),
        tag("ellipse", label="z", cx=50, cy=20, rx=10, ry=4),
        tag("cuboid", label="c", **cuboid),
        tag("tag", label="rusty"),
        tag("tag", label="rusty"),
    )
    assert annotation.shapes == (
        Shape("x", (10.5, 5, 30, 40.25)),
        Shape("y", (0, 0, 10, 8), 40),
        Shape("z", (40, 16, 60, 24), math.pi * 40),
        Shape("c", (5, 6, 28, 20)),
    )
    assert annotation.labels == ("rusty",)
    assert (annotation.image, annotation.size) == ("a.jpg", (100, 50))
    (note,) = annotation.notes
    assert "<cuboid> 4 (c): the box around its eight corners" in note


def test_turned_boxes_and_ellipses_become_the_boxes_around_them(one: Callable) -> None:
    annotation = one(
        box(40, 20, 60, 30, rotation=90),
        box(40, 20, 60, 30, rotation=30, label="y"),
        tag("ellipse", label="z", cx=50, cy=25, rx=20, ry=10, rotation=90),
    )
    quarter, slanted, ellipse = annotation.shapes
    assert quarter.box == pytest.approx((45, 15, 55, 35)) and quarter.area == pytest.approx(200)
    across = 20 * math.cos(math.pi / 6) + 10 * math.sin(math.pi / 6)
    down = 20 * math.sin(math.pi / 6) + 10 * math.cos(math.pi / 6)
    right = (50 - across / 2, 25 - down / 2, 50 + across / 2, 25 + down / 2)
    assert slanted.box == pytest.approx(right) and slanted.area == pytest.approx(200)
    assert ellipse.box == pytest.approx((40, 5, 60, 45))
    assert ["turned by 90 degrees" in annotation.notes[0], "by 30 degrees" in annotation.notes[1]] == [
        True
    ] * 2


def test_a_mask_is_the_box_around_its_pixels(one: Callable) -> None:
    # 0 0 1 0
    # 1 1 0 0   in the rectangle from (10, 20), 4 wide and 3 high
    # 0 0 0 0
    annotation = one(
        tag("mask", label="x", rle="2, 1, 1, 2, 6", left=10, top=20, width=4, height=3),
        tag("mask", label="y", rle="0, 12", left=0, top=0, width=4, height=3),
        tag("mask", label="z", rle="12", left=0, top=0, width=4, height=3),
    )
    assert annotation.shapes == (Shape("x", (10, 20, 13, 22), 3), Shape("y", (0, 0, 4, 3), 12))
    assert "1 empty mask" in annotation.notes[0]


@given(st.data())
@settings(max_examples=60)
def test_any_mask_is_its_pixels(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    pixels = data.draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height))
    lengths, colour = [0], False
    for pixel in pixels:
        if pixel != colour:
            lengths.append(0)
            colour = pixel
        lengths[-1] += 1
    facts = {"left": 3, "top": 4, "width": width, "height": height}
    path = tmp_path_factory.mktemp("mask") / "a.xml"
    path.write_text(document(image(tag("mask", label="x", rle=",".join(map(str, lengths)), **facts))))
    entries, _, _ = read_entries(path)
    painted = Image.new("1", (width, height))
    painted.putdata(pixels)
    inner = painted.getbbox()
    shapes = entries[0].annotation.shapes
    if inner is None:
        assert shapes == ()
    else:
        right = (3 + inner[0], 4 + inner[1], 3 + inner[2], 4 + inner[3])
        assert shapes == (Shape("x", right, sum(pixels)),)


def test_what_has_no_area_or_is_out_of_view_is_left_out(one: Callable) -> None:
    joint = tag("points", label="joint", points="1,2", outside=0)
    annotation = one(
        tag("polyline", label="x", points="1,2;3,4"),
        tag("points", label="x", points="1,2"),
        tag("skeleton", joint, label="x"),
        box(1, 2, 3, 4, outside=1),
        box(5, 5, 9, 9, outside=0),
    )
    assert annotation.shapes == (Shape("x", (5, 5, 9, 9)),)
    assert annotation.notes[0].endswith("left out: 1 out of view, 1 points, 1 polyline, 1 skeleton")


def test_boxes_are_put_right_and_reported(one: Callable) -> None:
    annotation = one(box(30, 20, 10, 5), box(30, 20, 10, 5), box(90, 40, 120, 60, label="y"))
    shapes, notes = merge_annotations(AnnotatedImage(Path("a.jpg"), "a", [annotation]), (100, 50))
    assert shapes == [Shape("x", (10, 5, 30, 20)), Shape("y", (90, 40, 100, 50))]
    assert ["was reversed" in note for note in notes] == [True, True, False, False]
    assert "is there twice" in notes[2] and "clipped" in notes[3]


def test_images_and_their_splits(tmp_path: Path, put: Callable) -> None:
    for name in ("one/a.jpg", "two/a.jpg", "b.jpg", "c.jpg", "lonely.jpg"):
        put(name)
    note = tag("attribute", "yes", name="rust")
    put(
        "project.xml",
        document(
            image(box(1, 1, 9, 9), name="one/a.jpg", subset="Train"),
            image(name="two/a.jpg", subset="Validation"),
            image(tag("box", note, label="x", xtl=1, ytl=1, xbr=9, ybr=9), name="b.jpg", subset="round 2"),
            image(tag("tag", label="wet"), name="c.jpg", subset="default"),
        ),
    )
    put("voc.xml", "<annotation/>")
    source, problems = find_source(tmp_path)
    assert problems == []
    splits = {image.key: image.split for image in source.images}
    assert splits == {"b": None, "c": None, "one/a": "train", "two/a": "val"}
    assert [path.name for path in source.unannotated] == ["lonely.jpg"]
    empty, attributes, subsets, others = source.notes
    assert "1 picture(s) without a shape or tag" in empty
    assert "attributes of shapes and tags are not used ('rust')" in attributes
    assert "subset(s) 'round 2' are no split" in subsets
    assert "not CVAT passed over, for instance voc.xml" in others


def test_every_problem_is_reported(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("a.xml", document(image(subset="train"), image(name="b.jpg"), image(box("left", 1, 2, 3))))
    put("again.xml", document(image(subset="test")))
    put("cut.xml", document(image())[:-20])
    put("video.xml", document(tag("track", tag("box", frame=0), id=0, label="x")))
    _, problems = find_source(tmp_path)
    assert len(problems) == 5
    text = "\n".join(problems)
    assert "a.xml, image 'a.jpg': <box> 1 (x) has no readable xtl (found 'left')" in text
    assert "a.xml: no picture named 'b.jpg'" in text
    assert "again.xml: a.jpg is in two subsets, train and test" in text
    assert "cut.xml, line 3" in text and "cut short" in text
    assert "video.xml: holds the tracks of a video, but no picture here is named by the number" in text


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (tag("box", xtl=1, ytl=1, xbr=2, ybr=2), "<box> 1 has no label"),
        (box(1, 1, math.inf, 2), "no readable xbr"),
        (box(1, 1, 2, 2, rotation="left"), "no readable rotation"),
        (tag("polygon", label="x", points="1,2;3,4"), r"has 2 point\(s\), expected at least 3"),
        (tag("polygon", label="x", points="1,2;3;4,5"), "unreadable point '3'"),
        (tag("polygon", label="x"), "unreadable point ''"),
        (tag("ellipse", label="x", cx=1, cy=1, rx=2), "no readable ry"),
        (tag("mask", label="x", rle="1,2", left=0, top=0, width=2, height=2), "does not fill its 2x2 pixels"),
        (
            tag("mask", label="x", rle="5,-1", left=0, top=0, width=2, height=2),
            "does not fill its 2x2 pixels",
        ),
        (tag("mask", label="x", left=0, top=0, width=0, height=2), "does not fill its 0x2 pixels"),
        (tag("cuboid", label="x", xtl1=1), "no readable ytl1"),
        (tag("star", label="x"), "of an unknown kind"),
    ],
)
def test_a_bad_shape_is_one_line_that_names_it(put: Callable, shape: str, message: str) -> None:
    entries, problems, _ = read_entries(put("bad.xml", document(image(shape))))
    assert entries == [] and len(problems) == 1
    with pytest.raises(InputError, match=message):
        raise InputError(problems[0])
    assert "bad.xml, image 'a.jpg'" in problems[0] and "\n" not in problems[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation/>", "not CVAT"),
        ("<!DOCTYPE a []><annotations/>", "has a DOCTYPE, which CVAT does not use"),
        ("", "cut short"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(put: Callable, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"bad\.xml.*{message}"):
        read_entries(put("bad.xml", text))


def test_folders_that_cannot_work(tmp_path: Path, put: Callable) -> None:
    with pytest.raises(InputError, match="no CVAT annotations"):
        find_source(tmp_path)
    put("a.xml", document(image()))
    with pytest.raises(InputError, match="--image-folder"):
        find_source(tmp_path)


KINDS = st.sampled_from(["box", "polygon", "ellipse", "mask", "cuboid", "points", "tag", "star"])
NUMBERS = st.one_of(st.floats(), st.integers(-9, 99), st.sampled_from(["", "1e999", "1,2", "0,4", "٣"]))
NAMES = (
    *("label", "xtl", "ytl", "xbr", "ybr", "rotation", "cx", "cy", "rx", "ry"),
    *("points", "rle", "left", "top", "width", "height", "outside", "subset"),
)
FACTS = st.dictionaries(
    st.sampled_from(NAMES), NUMBERS.map(str) | st.sampled_from(["x", "two\nlines", "0,0;9,0;0,9", "1, 3"])
)


@given(st.lists(st.tuples(KINDS, FACTS), max_size=4), FACTS)
def test_any_shapes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[str, dict[str, str]]], facts: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("xml") / "a.xml"
    path.write_text(document(image(*(tag(kind, **of) for kind, of in shapes), **facts)), encoding="utf-8")
    entries, problems, notes = read_entries(path)
    assert len(entries) + len(problems) == 1
    assert "\n" not in "".join(
        [*problems, *notes, *(note for entry in entries for note in entry.annotation.notes)]
    )
    for found in entries[0].annotation.shapes if entries else ():
        x1, y1, x2, y2 = found.box
        assert x1 <= x2 and y1 <= y2 and math.isfinite(x2 - x1 + y2 - y1)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("xml") / "a.xml"
    path.write_bytes(data)
    try:
        read_entries(path)
    except InputError as error:
        assert "a.xml" in str(error)


def test_real_files_are_read(shared_data: Path) -> None:
    folder = shared_data / "formats"
    source, problems = cvat.read(SourceFolder.scan(folder / "cvat", folder / "images"))
    assert problems == [] and len(source.images) == 12 and source.unannotated == ()
    (first,) = source.images[0].annotations
    assert first.shapes == (Shape("insulator", (250, 427, 1010, 579)), Shape("defect", (706, 507, 776, 551)))


def test_a_missing_image_is_not_its_namesake(tmp_path: Path, put: Callable) -> None:
    put("day1/001.jpg")
    shapes = (box(1, 2, 30, 40),)
    put("a.xml", document(image(*shapes, name="day1/001.jpg"), image(*shapes, name="day2/001.jpg")))
    _, problems = cvat.read(SourceFolder.scan(tmp_path))
    assert len(problems) == 1 and "'day1/001.jpg' and 'day2/001.jpg' would both be" in problems[0]


def track(*shapes: str, label: str = "x", **more: Any) -> str:
    return tag("track", "".join(shapes), id=0, label=label, **more)


def key(frame: int, *corners: float, **more: Any) -> str:
    x1, y1, x2, y2 = corners or (10, 10, 20, 20)
    return tag("box", frame=frame, keyframe=1, xtl=x1, ytl=y1, xbr=x2, ybr=y2, **({"outside": 0} | more))


def video(*tracks: str, start: int = 0, stop: int = 9, step: int = 1, source: str = "line3.mp4") -> str:
    filtered = f"<frame_filter>step={step}</frame_filter>" if step > 1 else "<frame_filter></frame_filter>"
    meta = (
        f"<meta><task><id>5</id><name>t</name><start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame>"
        f"{filtered}<original_size><width>100</width><height>50</height></original_size>"
        f"</task><source>{source}</source></meta>"
    )
    return f"<annotations><version>1.1</version>{meta}{''.join(tracks)}</annotations>"


def boxes_of(source: AnnotatedSource) -> dict[str, list[tuple]]:
    return {
        image.file.stem: [shape.box for item in image.annotations for shape in item.shapes]
        for image in source.images
    }


def test_tracks_of_a_video_are_boxes_of_its_frames(tmp_path: Path, put: Callable) -> None:
    """Between key frames boxes move evenly, out of view there is none, and the last one stays."""
    for number in (0, 2, 4, 6, 8, 9):
        put(f"images/frame_{number:06}.PNG".lower())
    moving = track(key(2, 10, 10, 20, 20), key(6, 30, 10, 40, 20), key(8, outside=1))
    staying = track(tag("attribute", "7", name="speed"), key(8, 0, 0, 5, 5), label="y")
    turning = track(
        key(4, 30, 35, 70, 45, rotation=350), key(8, 30, 35, 70, 45, rotation=10), key(9, outside=1)
    )
    put("annotations.xml", video(moving, staying, turning))
    source, problems = find_source(tmp_path)
    assert problems == []
    found = boxes_of(source)
    assert found["frame_000000"] == []
    assert found["frame_000002"] == [(10, 10, 20, 20)]
    assert found["frame_000004"][0] == (20, 10, 30, 20)
    assert found["frame_000006"] == [(30, 10, 40, 20), (30, 35, 70, 45)]  # turned by 0 degrees
    assert found["frame_000008"][0] == found["frame_000009"][0] == (0, 0, 5, 5)
    assert source.images[0].annotations[0].size == (100, 50)
    assert {image.group for image in source.images} == {None}
    text = "\n".join(source.notes)
    assert "4 frame(s) of its video have no picture here" in text and "not used ('speed')" in text
    assert "1 picture(s) without a shape or tag" in text


@pytest.mark.parametrize(
    ("numbers", "numbering"),
    [
        (range(20, 41, 5), None),
        ((25, 40), None),
        (range(5), "one by one from 0"),
        (range(1, 6), "one by one from 1"),
        (range(21, 42, 5), "by their frames, counted from 1"),
    ],
)
def test_frames_are_found_however_they_are_numbered(
    tmp_path: Path, put: Callable, numbers: Any, numbering: str | None
) -> None:
    for number in numbers:
        put(f"line3_{number}.png")
    put(
        "a.xml",
        video(track(*(key(frame, frame, 0, 50, 9) for frame in range(20, 41, 5))), start=20, stop=40, step=5),
    )
    source, problems = find_source(tmp_path)
    assert problems == []
    by_number = sorted((int(stem.split("_")[1]), box[0][0]) for stem, box in boxes_of(source).items())
    expected = [25, 40] if len(by_number) == 2 else [20, 25, 30, 35, 40]
    assert [left for _, left in by_number] == expected
    assert any("its pictures are numbered" in note for note in source.notes) == bool(numbering)
    assert not numbering or any(numbering in note for note in source.notes)


def test_a_job_counts_its_frames_otherwise_than_its_tracks(tmp_path: Path, put: Callable) -> None:
    """CVAT writes first and last frame of a job by their place in the task, 4 to 6, in steps of 5."""
    for number in (20, 25, 30):
        put(f"frame_{number:06}.png")
    shapes = track(key(20, 20, 0, 50, 9), key(30, 30, 0, 50, 9), key(35, outside=1))
    put("a.xml", video(shapes, start=4, stop=6, step=5).replace("task>", "job>"))
    source, problems = find_source(tmp_path)
    assert problems == []
    assert [box[0][0] for box in boxes_of(source).values()] == [20, 25, 30]


def test_each_video_has_frames_and_a_group_of_its_own(tmp_path: Path, put: Callable) -> None:
    for name in ("one", "two"):
        for number in range(3):
            put(f"frames/{name}/{number:03}.jpg")
    put("labels/a.xml", video(track(key(0, 1, 1, 9, 9)), stop=2, source="one.mp4"))
    put("labels/two.xml", video(track(key(0, 2, 2, 9, 9)), stop=2, source="export.mp4"))
    source, problems = find_source(tmp_path)
    assert problems == []
    assert {(image.key.split("/")[1], image.group) for image in source.images} == {
        ("one", "labels/a.xml"),
        ("two", "labels/two.xml"),
    }
    assert {image.annotations[0].shapes[0].box[0] for image in source.images if "one" in image.key} == {1}
    put("labels/third.xml", video(track(key(0)), stop=2, source="third.mp4"))
    (problem,) = find_source(tmp_path)[1]
    assert "third.xml: " in problem and "could both be frames of its video" in problem


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        (["p0", "p70"], video(track(key(0))), "its frames 0 to 9, every 1 do not fit the pictures 0 to 70"),
        ([f"p{n}" for n in range(1, 10)], video(track(key(0))), "counted from 1; add the missing one"),
        (["p0"], video(track(key(0, rotation="left"))), "no readable rotation"),
        (["p0"], video(track(tag("box", xtl=1))), "track 1: <box> has no readable frame"),
        (["p0"], video(tag("track", key(0), id=1)), "track 1 has no label"),
    ],
)
def test_a_video_that_cannot_be_read_is_one_line(
    tmp_path: Path, put: Callable, names: list[str], content: str, message: str
) -> None:
    for name in names:
        put(f"{name}.jpg")
    put("a.xml", content)
    (problem,) = find_source(tmp_path)[1]
    assert problem.startswith(str(tmp_path / "a.xml")) and message in problem


def test_frames_between_outlines_in_key_frames_are_left_out(tmp_path: Path, put: Callable) -> None:
    for number in range(4):
        put(f"{number}.jpg")
    outline = {"points": "0,0;10,0;0,8", "outside": 0}
    put("a.xml", video(track(*(tag("polygon", frame=frame, **outline) for frame in (0, 2))), stop=3))
    source, problems = find_source(tmp_path)
    assert problems == [] and list(boxes_of(source)) == ["0", "2", "3"]
    assert any(
        "1 frame(s) between key frames of shapes that are no boxes left out" in n for n in source.notes
    )
