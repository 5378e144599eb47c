"""VisA: tables of images, masks whose values are kinds of defect."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import AnnotatedSource, Annotation, Shape
from data_prep.formats import find_reader, visa
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

Box = tuple[int, int, int, int]
IMAGES, MASKS = "Data/Images", "Data/Masks"


class Visa:
    """Writes objects as VisA lays them out: images of 20x10, their masks, rows of the two tables."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows = ["object,split,label,image,mask"]
        self.kinds: dict[str, list[str]] = {}

    def save(self, name: str, values: np.ndarray) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(self.root / name)

    def sound(self, thing: str, number: int) -> None:
        name = f"{thing}/{IMAGES}/Normal/{number:04d}.JPG"
        self.save(name, np.full((10, 20), 80, np.uint8))
        self.rows.append(f"{thing},train,normal,{name},")
        self.kinds.setdefault(thing, []).append(f"{name},normal,")

    def bad(self, thing: str, number: int, label: str, *marks: tuple[int, Box]) -> str:
        """Returns the image's key."""
        name, mask = (
            f"{thing}/{IMAGES}/Anomaly/{number:03d}.JPG",
            f"{thing}/{MASKS}/Anomaly/{number:03d}.png",
        )
        values = np.zeros((10, 20), np.uint8)
        for value, (x1, y1, x2, y2) in marks:
            values[y1:y2, x1:x2] = value
        self.save(name, np.full((10, 20), 80, np.uint8))
        if marks:
            self.save(mask, values)
        row = f"{name},{{}},{mask if marks else ''}"
        self.rows.append(f"{thing},test,anomaly,{name},{mask if marks else ''}")
        self.kinds.setdefault(thing, []).append(row.format(f'"{label}"' if "," in label else label))
        return name.removesuffix(".JPG")

    def write(self, *, split: bool = True, kinds: bool = True) -> SourceFolder:
        if split:
            (self.root / "split_csv").mkdir(exist_ok=True)
            (self.root / "split_csv" / "1cls.csv").write_text("\n".join(self.rows) + "\n")
        for thing, rows in self.kinds.items() if kinds else ():
            (self.root / thing / "image_anno.csv").write_text(
                "\r\n".join(["image,label,mask", *rows]) + "\r\n"
            )
        return SourceFolder.scan(self.root)


@pytest.fixture
def made(tmp_path: Path) -> Visa:
    (tmp_path / "VisA").mkdir()
    return Visa(tmp_path / "VisA")


def read(folder: SourceFolder) -> AnnotatedSource:
    source, problems = visa.read(folder)
    assert problems == []
    return source


def annotated(source: AnnotatedSource, key: str) -> Annotation:
    (annotation,) = next(image for image in source.images if image.key == key).annotations
    return annotation


A, B, C = (0, 0, 4, 4), (10, 0, 20, 3), (6, 6, 9, 10)


def test_kinds_and_masks_are_joined(made: Visa) -> None:
    made.sound("pcb1", 1)
    one = made.bad("pcb1", 0, "bent", (1, A), (1, C))
    two = made.bad("pcb1", 1, "bent,melt", (1, A), (2, B))
    other = made.bad("pcb2", 0, "scratch", (1, A))
    folder = made.write()
    assert find_reader(folder)[0] is visa
    source = read(folder)
    assert len(source.images) == 4 and source.unannotated == ()  # masks are no images
    assert annotated(source, one).shapes == (Shape("bent", A, 16), Shape("bent", C, 12))
    assert annotated(source, two).shapes == (Shape("bent", A, 16), Shape("melt", B, 30))
    assert annotated(source, two).labels == () and annotated(source, two).size == (20, 10)
    assert annotated(source, other).shapes == (Shape("scratch", A, 16),), "values are told apart by object"
    sound = annotated(source, "pcb1/Data/Images/Normal/0001")
    assert sound.shapes == sound.labels == ()
    assert {image.split for image in source.images} == {None}
    assert any("split was not used" in note for note in source.notes)


def test_values_that_nothing_names(made: Visa) -> None:
    made.bad("pcb1", 0, "bent", (1, A))
    left_over = made.bad("pcb1", 1, "melt,bent", (7, A), (1, B))
    open_two = made.bad("pcb1", 2, "melt,scratch", (5, A), (6, B))
    no_place = made.bad("pcb1", 3, "bent,scratch", (1, A))
    source = read(made.write())
    assert {shape.name for shape in annotated(source, left_over).shapes} == {"melt", "bent"}
    assert annotated(source, left_over).labels == ()
    unnamed = annotated(source, open_two)
    assert [shape.name for shape in unnamed.shapes] == ["anomaly", "anomaly"]
    assert unnamed.labels == ("melt", "scratch") and "'melt', 'scratch'" in unnamed.notes[0]
    assert [shape.name for shape in annotated(source, no_place).shapes] == ["bent"]
    assert annotated(source, no_place).labels == ("scratch",)


def test_images_that_disagree_name_nothing(made: Visa) -> None:
    made.bad("pcb1", 0, "bent", (1, A))
    made.bad("pcb1", 1, "melt", (1, A))
    both = made.bad("pcb1", 2, "bent, Melt", (1, A), (2, B))
    source = read(made.write())
    assert {shape.name for shape in annotated(source, both).shapes} == {"anomaly"}
    assert annotated(source, both).labels == ("bent", "Melt")


def test_without_the_tables_of_kinds(made: Visa) -> None:
    made.sound("pcb1", 1)
    key = made.bad("pcb1", 0, "bent", (1, A), (2, B))
    bare = made.bad("pcb1", 1, "bent")
    source = read(made.write(kinds=False))
    assert [shape.name for shape in annotated(source, key).shapes] == ["anomaly", "anomaly"]
    assert annotated(source, bare).labels == ("anomaly",) and "no mask" in annotated(source, bare).notes[0]


def test_one_object_alone(made: Visa, monkeypatch: pytest.MonkeyPatch) -> None:
    made.sound("pcb1", 1)
    made.bad("pcb1", 0, "bent", (3, A))
    made.write(split=False)
    folder = SourceFolder.scan(made.root / "pcb1")
    assert visa.detect(folder)
    assert annotated(read(folder), "Data/Images/Anomaly/000").shapes == (Shape("bent", A, 16),)
    monkeypatch.chdir(made.root / "pcb1")
    assert len(read(SourceFolder.scan(Path())).images) == 2


def test_specks_and_empty_masks(made: Visa) -> None:
    speck = made.bad("pcb1", 0, "bent", (1, A), (1, (15, 5, 17, 6)))
    empty = made.bad("pcb1", 1, "melt", (0, A))
    source = read(made.write())
    assert len(annotated(source, speck).shapes) == 1 and "1 speck(s)" in annotated(source, speck).notes[0]
    assert (
        annotated(source, empty).labels == ("melt",)
        and "does not tell where 'melt'" in annotated(source, empty).notes[0]
    )


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (edit("Anomaly/000.JPG", "Anomaly/009.JPG"), "line 3: no picture 'pcb1/Data/Images/Anomaly/009.JPG'"),
        (edit("Anomaly/000.png", "Anomaly/009.png"), "line 3: no mask 'pcb1/Data/Masks/Anomaly/009.png'"),
        (edit("pcb1/Data/Images/Anomaly/000.JPG", "pcb1/image_anno.csv"), "line 3: no picture"),
        (edit("bent", ""), "line 3: no label"),
        (edit("pcb1/Data/Images/Anomaly/000.JPG", ""), "line 3: no image"),
        (edit("bent", "normal"), "normal, but with a mask"),
        (edit("normal", "melt"), "says otherwise"),
        (lambda file: file.write_bytes(b"image,label,mask\n\xff\xfe\n"), "not UTF-8"),
        (lambda file: file.write_text("image,label,mask\n" + "x" * 200_000), "not valid CSV"),
        (
            lambda file: Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).save(
                file.parent / MASKS / "Anomaly" / "000.png"
            ),
            "199 different values",
        ),
        (lambda file: (file.parent / MASKS / "Anomaly" / "000.png").write_bytes(b"no"), "not a picture"),
    ],
)
def test_a_problem_is_a_line_that_names_it(made: Visa, spoil: Callable[[Path], None], words: str) -> None:
    made.sound("pcb1", 1)
    made.bad("pcb1", 0, "bent", (1, A))
    made.write()
    spoil(made.root / "pcb1" / "image_anno.csv")
    _, problems = visa.read(SourceFolder.scan(made.root))
    assert any(words in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_other_tables_are_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image,label,mask\na.jpg,normal,\n")
    (tmp_path / "image_anno.csv").write_text("picture,question\n")
    folder = SourceFolder.scan(tmp_path)
    assert visa.detect(folder) is None
    with pytest.raises(InputError, match=r"image_anno\.csv"):
        visa.read(folder)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, headed: bool
) -> None:
    root = tmp_path_factory.mktemp("visa")
    (root / "image_anno.csv").write_bytes(b"image,label,mask\n" * headed + data)
    folder = SourceFolder.scan(root)
    try:
        source, problems = visa.read(folder)
    except InputError as error:
        assert str(root) in str(error)
    else:
        assert not source.images and all("\n" not in line for line in problems)
