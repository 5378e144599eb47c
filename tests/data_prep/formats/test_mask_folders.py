"""Masks beside their pictures, or in folders of their own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.formats import find_reader, mask_folders
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from tests.support.read_source import boxes_of, notes_of, problems_of, read_auto

Corners = tuple[int, int, int, int]
A, B, EDGE = (10, 5, 40, 25), (60, 10, 80, 20), (90, 30, 100, 50)


def save_photo(path: Path, seed: int = 0) -> None:
    """Save a noisy picture of 100x50."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save_mask(path: Path, *marks: tuple[int | tuple[int, int, int], Corners], mode: str = "L") -> None:
    """Save a mask of 100x50 that has values or colours in boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (50, 100, 3) if mode == "RGB" else (50, 100)
    pixels = np.zeros(shape, np.uint16 if mode == "I;16" else np.uint8)
    for value, (x1, y1, x2, y2) in marks:
        pixels[y1:y2, x1:x2] = value
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *range(3, 256), *[200] * 506])
    image.convert("1").save(path) if mode == "1" else image.save(path)


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("image/{}.jpg", "masks/{}.png"),
        ("images/{}.jpg", "masks/{}_mask.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("train/images/{}.png", "train/labels/{}.png"),
        ("train/{}.jpg", "train_masks/{}_mask.png"),
        ("train/{}.jpg", "trainannot/{}.png"),
        ("img_dir/train/{}.jpg", "ann_dir/train/{}.png"),
        ("Train/{}.PNG", "Train/Label/{}_label.PNG"),
        ("JPEGImages/{}.jpg", "Ground Truth/{}.bmp"),
        ("{}.jpg", "{}.png"),
        ("{}.png", "{}_GT.png"),
        ("photos/{}.jpg", "photos/{}_label.bmp"),
        ("{}.png", "{}_lab.png"),
        ("{0}/{0}_RAW.jpg", "{0}/{0}_mask.png"),
        ("{}_json/img.png", "{}_json/label.png"),
        ("{0}/images/{0}.png", "{0}/masks/{0}.png"),
        # In folders whose names do not go together, and none of them a class.
        ("Defect_images/{}.png", "Mask_images/{}_mask1.png"),
        ("set one/rails/{}.jpg", "set one/GroundTruth/{}.png"),
        ("roads_image/{}.jpg", "roads_gt/{}.png"),
        ("traincrop/{}.jpg", "traincrop/{}.png"),
    ],
)
@pytest.mark.parametrize("value", [1, 255])
def test_masks_are_found(tmp_path: Path, picture: str, mask: str, value: int) -> None:
    for seed, name in enumerate(("n1", "n2", "n3")):
        save_photo(tmp_path / picture.format(name), seed)
    save_mask(tmp_path / mask.format("n1"), (value, A), (value, EDGE))
    save_mask(tmp_path / mask.format("n2"))
    source = read_auto(tmp_path, "masks")
    found = [boxes for _, boxes in sorted(boxes_of(source).items())]
    assert found == [[("object", A), ("object", EDGE)], []]
    assert [path.name for path in source.unannotated] == [Path(picture.format("n3")).name]
    assert "called 'object'" in notes_of(source)


def test_pictures_that_dagm_lists_as_sound(tmp_path: Path) -> None:
    for number in (575, 576, 577):
        for name in ("Class1", "Class2"):
            save_photo(tmp_path / f"{name}/Train/0{number}.PNG", number)
    for name in ("Class1", "Class2"):
        save_mask(tmp_path / f"{name}/Train/Label/0576_label.PNG", (255, A))
        text = "1\n575\t0\t0575.PNG\t0\t0\n576\t1\t0576.PNG\t1\t0576_label.PNG\n"
        (tmp_path / f"{name}/Train/Label/Labels.txt").write_text(text)
    for name in ("Class1", "Class2"):
        save_mask(tmp_path / f"{name}/Test/Label/0001_label.PNG", (255, B))
        save_photo(tmp_path / f"{name}/Test/0001.PNG")
    source = read_auto(tmp_path, "masks")
    found = boxes_of(source)
    assert found["Class1/Train/0575"] == [] and found["Class2/Train/0576"] == [("Class2", A)]
    assert [path.name for path in source.unannotated] == ["0577.PNG", "0577.PNG"]


@pytest.mark.parametrize(
    ("picture", "crack", "rust"),
    [
        ("images/{}.jpg", "masks/crack/{}.png", "masks/rust/{}.png"),
        ("images/{}.jpg", "masks/{}_crack.png", "masks/{}_rust.png"),
        ("{0}/{0}_RAW.jpg", "{0}/{0}_crack.png", "{0}/{0}_rust.png"),
        ("a/{}.jpg", "a/{}_crack_mask.png", "a/{}_rust_mask.png"),
    ],
)
def test_folders_and_names_state_classes(tmp_path: Path, picture: str, crack: str, rust: str) -> None:
    for name in ("n1", "n2"):
        save_photo(tmp_path / picture.format(name))
        save_mask(tmp_path / crack.format(name), (255, A))
        save_mask(tmp_path / rust.format(name), (255, B), (255, EDGE))
    found = boxes_of(read_auto(tmp_path, "masks"))
    assert list(found.values()) == [[("crack", A), ("rust", B), ("rust", EDGE)]] * 2


def test_the_folder_above_states_the_class(tmp_path: Path) -> None:
    for kind in ("MT_Crack", "MT_Fray"):
        for number in (1, 2):
            save_photo(tmp_path / kind / "Imgs" / f"{number}.jpg")
            save_mask(tmp_path / kind / "Imgs" / f"{number}.png", (255, A))
            save_photo(tmp_path / "data" / f"day{number}" / f"{kind}.jpg")
            save_mask(tmp_path / "data" / f"day{number}" / f"{kind}_label.bmp", (255, A))
    names = [name for boxes in boxes_of(read_auto(tmp_path, "masks")).values() for name, _ in boxes]
    assert names == ["MT_Crack", "MT_Crack", "MT_Fray", "MT_Fray", *["object"] * 4]


@pytest.mark.parametrize(
    "mask",
    ["stage1/p{0}/masks/{1}.png", "masks/p{0}/{1}.png", "masks/p{0}_{1}.png", "masks/p{0}_mask_{1}.png"],
)
def test_a_mask_for_each_object(tmp_path: Path, mask: str) -> None:
    """An object in two pieces is one."""
    is_nested = mask.startswith("stage1")
    for number in (1, 2):
        folder = f"stage1/p{number}/images" if is_nested else "images"
        save_photo(tmp_path / folder / f"p{number}.png")
        save_mask(tmp_path / mask.format(number, 7), (255, A), (255, B), mode="1")
        save_mask(tmp_path / mask.format(number, 8), (255, EDGE), mode="1")
    source = read_auto(tmp_path, "masks")
    assert list(boxes_of(source).values()) == [[("object", (10, 5, 80, 25)), ("object", EDGE)]] * 2
    assert source.images[0].annotations[0].shapes[0].area == 800


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "background\ncrack\nrust\n"),
        ("classes.txt", "crack\nrust\n"),
        ("class_names.txt", "__ignore__\n_background_\ncrack\nrust\n"),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, crack\n2, rust\n"),
        ("labels.csv", "name;id\nrust;2\ncrack;1\n"),
    ],
)
@pytest.mark.parametrize("mode", ["L", "P"])
def test_lists_name_values(tmp_path: Path, put: Callable, name: str, content: str, mode: str) -> None:
    save_photo(tmp_path / "images" / "1.jpg")
    save_mask(tmp_path / "masks" / "1.png", (1, A), (2, B), (255, EDGE), mode=mode)
    put(name, content)
    assert boxes_of(read_auto(tmp_path, "masks")) == {"images/1": [("crack", A), ("rust", B)]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrack:128,0,0::\nrust:0,128,0::\n",
        ),
        ("class_dict.csv", "name,r,g,b\nrust,0,128,0\ncrack,128,0,0\n"),
        ("label_colors.txt", "0 0 0\tVoid\n128 0 0\tcrack\n0 128 0\trust\n"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_lists_name_colours(tmp_path: Path, put: Callable, name: str, content: str, mode: str) -> None:
    save_photo(tmp_path / "images" / "1.jpg")
    values = ((128, 0, 0), (0, 128, 0)) if mode == "RGB" else (1, 2)
    save_mask(tmp_path / "masks" / "1.png", (values[0], A), (values[1], B), mode=mode)
    put(name, content)
    assert sorted(boxes_of(read_auto(tmp_path, "masks"))["images/1"]) == [("crack", A), ("rust", B)]
    if mode == "RGB":
        save_mask(tmp_path / "masks" / "1.png", ((9, 9, 200), A), mode=mode)
        (problem,) = problems_of(tmp_path, "masks")
        assert f"1.png: its colour #0909c8 is not in {tmp_path / name}" in problem


def test_values_and_colours_without_a_list(tmp_path: Path) -> None:
    save_photo(tmp_path / "images" / "1.jpg")
    save_mask(tmp_path / "masks" / "1.png", (1, A), (3, B), (255, EDGE))
    assert boxes_of(read_auto(tmp_path, "masks")) == {"images/1": [("class 1", A), ("class 3", B)]}
    save_mask(tmp_path / "masks" / "1.png", ((255, 0, 0), A), ((0, 255, 0), B), mode="RGB")
    assert boxes_of(read_auto(tmp_path, "masks")) == {"images/1": [("#00ff00", B), ("#ff0000", A)]}


def test_a_list_that_does_not_tell_is_asked_about(tmp_path: Path, put: Callable) -> None:
    save_photo(tmp_path / "images" / "1.jpg")
    save_mask(tmp_path / "masks" / "1.png", (1, A))
    put("classes.txt", "crack\nrust\nspall\n")
    with pytest.raises(InputError, match="write the name of the background"):
        mask_folders.read(SourceFolder.scan(tmp_path))


def test_each_folder_may_have_its_own_list(tmp_path: Path, put: Callable) -> None:
    """LabelMe's labelme_json_to_dataset writes a folder for each picture, with the names in it."""
    for name, classes in {"n1": ["rust"], "n2": ["crack", "rust"]}.items():
        save_photo(tmp_path / f"{name}_json" / "img.png")
        save_mask(tmp_path / f"{name}_json" / "label.png", (len(classes), A), mode="P")
        save_photo(tmp_path / f"{name}_json" / "label_viz.png")
        put(f"{name}_json/label_names.txt", "\n".join(["_background_", *classes]))
    found = boxes_of(read_auto(tmp_path, "masks"))
    assert found == {"n1_json/img": [("rust", A)], "n2_json/img": [("rust", A)]}


def test_a_table_of_pictures_is_no_list_of_classes(tmp_path: Path, put: Callable) -> None:
    save_photo(tmp_path / "p1" / "images" / "p1.png")
    save_mask(tmp_path / "p1" / "masks" / "0.png", (255, A))
    put("stage1_train_labels.csv", f"ImageId,EncodedPixels\np1,{' '.join(map(str, range(100)))}\n")
    assert boxes_of(read_auto(tmp_path, "masks")) == {"p1/images/p1": [("object", A)]}


def test_maps_of_objects(tmp_path: Path) -> None:
    save_photo(tmp_path / "JPEGImages" / "1.jpg")
    save_mask(tmp_path / "SegmentationObject" / "1.png", (1, A), (1, B), (2, EDGE))
    found = boxes_of(read_auto(tmp_path, "masks"))
    assert found == {"JPEGImages/1": [("object", (10, 5, 80, 25)), ("object", EDGE)]}
    save_mask(tmp_path / "SegmentationClass" / "1.png", (1, A))
    save_photo(tmp_path / "SegmentationClassVisualization" / "1.jpg")
    source = read_auto(tmp_path, "masks")
    assert len(source.images) == 1 and source.unannotated == ()


def test_many_values_are_objects(tmp_path: Path) -> None:
    save_photo(tmp_path / "1.jpg")
    marks = [(value, (2 * value, 0, 2 * value + 2, 10)) for value in range(1, 41)]
    save_mask(tmp_path / "1_masks.png", *marks, mode="I;16")
    source = read_auto(tmp_path, "masks")
    assert len(boxes_of(source)["1"]) == 40 and {name for name, _ in boxes_of(source)["1"]} == {"object"}
    assert "each taken as an object" in notes_of(source)


def test_grey_edges_and_noise_are_cut(tmp_path: Path) -> None:
    for name in "ab":
        save_photo(tmp_path / "images" / f"{name}.jpg")
    pixels = np.zeros((50, 100), np.uint8)
    pixels[5:25, 10:40] = 255
    blurred = Image.fromarray(pixels).resize((99, 49)).resize((100, 50))
    (tmp_path / "masks").mkdir()
    blurred.save(tmp_path / "masks" / "a.jpg", quality=60)
    save_mask(tmp_path / "masks" / "b.png", (255, EDGE))
    source = read_auto(tmp_path, "masks")
    ((name, box),) = boxes_of(source)["images/a"]
    assert name == "object" and box == pytest.approx(A, abs=1)
    assert "not binary" in notes_of(source)


@pytest.mark.parametrize("change", ["shape", "cut"])
def test_masks_that_do_not_fit_are_named(tmp_path: Path, change: str) -> None:
    for number in range(9):
        save_photo(tmp_path / "images" / f"{number}.jpg")
        save_mask(tmp_path / "masks" / f"{number}.png", (1, A))
    bad = tmp_path / "masks" / "3.png"
    if change == "cut":
        bad.write_bytes(bad.read_bytes()[:60])
        (problem,) = mask_folders.read(SourceFolder.scan(tmp_path))[1]
        assert problem.startswith(str(bad))
    else:
        Image.new("L", (50, 50)).save(bad)
        with pytest.raises(InputError, match=r"made for a picture of 50x50, but 3\.jpg is 100x50"):
            boxes_of(mask_folders.read(SourceFolder.scan(tmp_path))[0])


@pytest.mark.parametrize(
    "names",
    [
        ["ok/1.jpg", "label/2.jpg"],
        ["ok/1.png", "label/1.png"],
        ["a/1.jpg", "a/1.png"],
        ["a/1.jpg", "a/1_2.jpg"],
        ["a/p.png", "a/p_1.png"],
        ["images/1.jpg"],
    ],
)
def test_photos_are_no_masks(tmp_path: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        save_photo(tmp_path / name, seed)
    assert mask_folders.detect(SourceFolder.scan(tmp_path)) is None


def test_annotations_say_more_than_masks(tmp_path: Path, put: Callable) -> None:
    save_photo(tmp_path / "images" / "1.jpg")
    save_mask(tmp_path / "masks" / "1.png", (1, A))
    assert find_reader(SourceFolder.scan(tmp_path))[0].NAME == "masks"
    put(
        "a.json",
        {"images": [{"id": 1, "file_name": "images/1.jpg"}], "annotations": [], "categories": []},
    )
    assert find_reader(SourceFolder.scan(tmp_path))[0].NAME == "coco"
