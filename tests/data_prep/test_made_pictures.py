"""Whatever made pictures are made of, photos are split as without them, and none is tested on."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from data_prep.annotations import AnnotatedImage, Shape
from data_prep.commands.convert import write_questions
from data_prep.images.fingerprint import FINGERPRINT_SIDE
from data_prep.images.store import CachedImage
from data_prep.images.units import PreparedImage, Unit
from data_prep.made_folders import MadeFolder, MadePicture, open_made_folders
from data_prep.made_pictures import MadeUnits, add_made, draw_made, of_training_photos
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SPLITS, Split
from data_prep.splits.assign import Conversion, split_units
from llava.common.errors import InputError
from llava.common.files import read_json, read_json_list, write_json
from llava.common.records import Record
from llava.common.settings import validate_settings
from llava.common.synthetic import Facts, Parent
from tests.support.made_folder import Made, write_made
from tests.support.photos import write_photos

CONTENTS = 16  # of files; two photos with one content are copies
NEST = Shape("nest", (2.0, 2.0, 6.0, 6.0))
_LOOKS = np.random.default_rng(5).integers(
    40, 216, (4 * CONTENTS, FINGERPRINT_SIDE // 4, FINGERPRINT_SIDE // 4)
)


@dataclass(frozen=True)
class Photo:
    content: int
    has_nest: bool
    group: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Making:
    """A made picture: the contents of its parents (unknown ones too), and the photo that it looks like."""

    parents: tuple[int, ...]
    kind: str | None
    looks_like: int | None = None


# A split without photos is refused, so there are some of each, akin to nothing else.
FIRST = [
    Photo(number, bool(number % 2), f"first {number}", split)
    for number, split in enumerate(("train", "train", "val", "val", "test", "test"))
]


def recipe_of(**changes: object) -> Recipe:
    values = {
        "defects": [{"name": "nest"}, {"name": "rust"}],
        "families": {"presence": {"questions": ["?"]}},
    }
    return validate_settings(Recipe, values | changes, "test.yaml")


def digest(content: int) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def looks(number: int) -> CachedImage:
    cells = _LOOKS[number].astype(np.uint8).repeat(4, 0).repeat(4, 1)
    return CachedImage(size=(10, 10), orientation=1, fingerprint=cells.tobytes())


def prepared(number: int, photo: Photo) -> PreparedImage:
    key = f"photo {number}"
    unit = Unit(
        key, key, f"images/{photo.content}.jpg", (10, 10), (), (NEST,) if photo.has_nest else (),
        crop=(0.0, 0.0, 10.0, 10.0),
    )  # fmt: skip
    return PreparedImage(
        key, (unit,), Path(unit.image), (), (), {}, photo.group, photo.split,
        digest(photo.content), looks(photo.content),
    )  # fmt: skip


def made_picture(number: int, made: Making) -> MadePicture:
    facts = Facts(
        parents=[Parent(name=f"{content}.jpg", sha256=digest(content)) for content in made.parents],
        method="paste",
        kind=made.kind,
        mask="masks/m.png",
        seed=number,
    )
    boxes = (NEST.box,) if made.kind else ()
    return MadePicture(AnnotatedImage(Path(f"{number}.png"), f"made/{number}"), facts, boxes)


def prepared_made(number: int, picture: MadePicture, made: Making) -> PreparedImage:
    key = picture.image.key
    defects = (Shape(made.kind, NEST.box),) if made.kind else ()
    unit = Unit(key, key, f"images/made{number}.jpg", (10, 10), (), defects, crop=(0.0, 0.0, 10.0, 10.0))
    seen = looks(2 * CONTENTS + number if made.looks_like is None else made.looks_like)
    return PreparedImage(
        key, (unit,), picture.image.file, (), (), {}, None, None, digest(1000 + number), seen
    )


def add(
    conversion: Conversion, sources: list[list[PreparedImage]], made: list[Making], seed: int = 0
) -> None:
    """Do with made pictures what `convert` does."""
    pictures = [made_picture(number, item) for number, item in enumerate(made)]
    folder = MadeFolder(Path("made"), tuple(pictures))
    chosen = of_training_photos([folder], conversion, sources)
    numbers = [pictures.index(picture) for picture in chosen]
    written = [prepared_made(number, pictures[number], made[number]) for number in numbers]
    add_made([folder], chosen, written, conversion, sources, seed)


some_photos = st.lists(
    st.builds(
        Photo,
        st.integers(len(FIRST), CONTENTS - 3),
        st.booleans(),
        st.sampled_from([None, None, "a", "b", "c"]),
        st.sampled_from([None, *SPLITS]),
    ),
    max_size=10,
)
some_made = st.lists(
    st.builds(
        Making,
        st.lists(st.sampled_from([0, 1, 0, 1, *range(CONTENTS)]), min_size=1, max_size=3).map(tuple),
        st.sampled_from(["nest", "rust", None]),
        st.sampled_from([None] * 8 + [0, 4, 6]),
    ),
    max_size=12,
)


@given(
    some_photos,
    some_made,
    st.sampled_from(["shares", "keep", "test source", "calibration"]),
    st.sampled_from([0.3, 0.5, 0.9]),
    st.integers(0, 3),
)
# A photo that is in no split, because it is akin to one that is held out.
@example([Photo(8, True, "a", "train"), Photo(9, True, "a", "test")], [Making((8,), "nest")], "keep", 0.9, 0)
# Copies that are annotated differently: none of them is in a split.
@example([Photo(8, True), Photo(8, False)], [Making((0, 8), "nest")], "shares", 0.9, 0)
@settings(deadline=None, max_examples=30)
def test_made_pictures_move_no_photo_and_are_never_tested_on(
    photos: list[Photo], made: list[Making], how: str, share: float, seed: int
) -> None:
    splits = {"given": "keep"} if how == "keep" else {"given": "ignore"}
    if how == "calibration":
        splits["calibration"] = 0.3
    if how == "test source":  # photos beside it make train and val
        sources = [
            [prepared(number, photo) for number, photo in enumerate([*FIRST[:4], *photos[::2]])],
            [prepared(number + 50, photo) for number, photo in enumerate([*FIRST[4:], *photos[1::2]])],
        ]
    else:
        sources = [[prepared(number, photo) for number, photo in enumerate([*FIRST, *photos])]]
    recipe = recipe_of(splits=splits, synthetic={"share": share})
    try:
        conversion, alone = split_units(sources, recipe, seed), split_units(sources, recipe, seed)
    except InputError:
        event("no photo is left for a split")
        return
    add(conversion, sources, made, seed)

    real = {split: [unit for unit in conversion.units[split] if not unit.origin] for split in SPLITS}
    assert real == alone.units, "photos are where they are without made pictures"
    assert all(conversion.group_of[image] == group for image, group in alone.group_of.items())
    assert not any(unit.origin for split in SPLITS[1:] for unit in conversion.units[split])
    used = [unit for unit in conversion.units["train"] if unit.origin]
    event(f"{min(len(used), 3)} used")
    assert len(used) <= share / (1 - share) * len(real["train"]) + 1e-6
    left_out = sum(count for what, count in conversion.left_out.items() if what.startswith("made pictures"))
    assert len(used) + left_out == len(made)

    held_out = {unit.image for split in SPLITS[1:] for unit in real[split]}
    held_groups = {conversion.group_of[image] for image in held_out}
    # Known from the photos alone: those held out, and those of whose stated group one is.
    held = {digest(p.content) for p in [*FIRST, *photos] if f"images/{p.content}.jpg" in held_out}
    akin = {p.group for p in [*FIRST, *photos] if digest(p.content) in held} - {None}
    held |= {digest(p.content) for p in [*FIRST, *photos] if p.group in akin}
    trained = {digest(p.content) for p in [*FIRST, *photos]} - held
    for unit in used:
        assert unit.origin is not None
        assert set(unit.origin.parents) <= trained
        assert conversion.group_of[unit.image] == unit.origin.groups[0]
        assert not held_groups & set(unit.origin.groups)

    with TemporaryDirectory() as name:
        try:
            write_questions(conversion, Path(name), seed)
        except InputError:  # all training photos have one answer
            event("nothing is asked")
            return
        for split in SPLITS:
            if not (Path(name) / f"{split}.json").is_file():
                continue
            for record in read_json_list(Path(name) / f"{split}.json", Record):
                groups = {record.meta["group"], *record.meta.get("groups", ())}
                assert (split == "train") or not record.is_synthetic
                assert (split == "train") == (not groups & held_groups)


# --- the share -------------------------------------------------------------------------------------------


def found(kind: str | None, *numbers: int, parts: int = 1) -> list[MadeUnits]:
    def unit(number: int, part: int) -> Unit:
        return Unit(f"m{number}#{part}", f"m{number}", f"images/{number}_{part}.jpg", (9, 9), (), ())

    return [
        MadeUnits(
            made_picture(number, Making((0,), kind)), tuple(unit(number, part) for part in range(parts))
        )
        for number in numbers
    ]


def real_units(nests: int, sound: int) -> list[Unit]:
    items = [prepared(n, Photo(n % CONTENTS, n < nests)) for n in range(nests + sound)]
    return [unit for item in items for unit in item.units]


def kinds_of(drawn: list[MadeUnits]) -> Counter[str]:
    return Counter(entry.picture.kind for entry in drawn)


def test_the_kind_that_train_has_least_of_is_drawn_first() -> None:
    pictures = [*found("nest", *range(20)), *found("rust", *range(20, 40))]
    assert kinds_of(draw_made(pictures, real_units(6, 4), 0.5, seed=0)) == {"rust": 8, "nest": 2}
    assert kinds_of(draw_made(pictures, real_units(2, 2), 0.5, seed=0)) == {"rust": 3, "nest": 1}
    few = [*found("nest", *range(20)), *found("rust", 20)]
    assert kinds_of(draw_made(few, real_units(6, 4), 0.5, seed=0)) == {"rust": 1, "nest": 9}


def test_the_draw_is_of_the_seed_alone_and_keeps_the_order() -> None:
    pictures = found("nest", *range(30))
    drawn = [draw_made(pictures, real_units(5, 5), 0.5, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == [entry for entry in pictures if entry in drawn[0]]


@given(st.integers(0, 12), st.integers(1, 12), st.sampled_from([0, 0.1, 0.25, 0.5, 0.8]), st.integers(1, 4))
def test_pictures_of_many_units_stay_in_the_share(made: int, real: int, share: float, parts: int) -> None:
    drawn = draw_made(found("nest", *range(made), parts=parts), real_units(0, real), share, seed=0)
    units = sum(len(entry.units) for entry in drawn)
    assert units <= share * (units + real) + 1e-9
    assert len(drawn) == made or units + parts > share * (units + parts + real) - 1e-9


# --- what a file says ------------------------------------------------------------------------------------


Content = dict[str, Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["images"].append(file["images"][0]), "is there twice"),
        (lambda file: file["annotations"][0].update(image_id=9), "0: its image_id or category_id"),
        (lambda file: file["annotations"][0].update(category_id=9), "0: its image_id or category_id"),
        (lambda file: file["annotations"][0].update(bbox=[1, 1, 0, 5]), "0: its bbox is empty"),
        (lambda file: file["annotations"][1].update(made=False), "a rust made and no annotation of it"),
        (lambda file: file["images"][0].update(file_name="../photo.jpg"), "outside"),
        (lambda file: file["images"][0]["synthetic"].pop("seed"), "images.0.synthetic.seed"),
        (lambda file: file["images"][0]["synthetic"].update(parents=[]), "images.0.synthetic.parents"),
        (lambda file: file["info"].update(format="coco"), "info.format"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[Content], object], message: str
) -> None:
    (photo,) = (write_photos(tmp_path / "photos", 1) / "images").iterdir()
    folder = write_made(tmp_path / "made", [Made(photo, "rust")], component=("nest", (5, 5, 30, 30)))
    content = read_json(folder / "synthetic.json")
    change(content)
    write_json(folder / "synthetic.json", content)
    with pytest.raises(InputError, match=message):
        open_made_folders([folder], recipe_of())


def test_two_folders_of_one_name_have_keys_of_their_own(tmp_path: Path) -> None:
    (photo,) = (write_photos(tmp_path / "photos", 1) / "images").iterdir()
    folders = [
        write_made(tmp_path / place / "made", [Made(photo, "rust")], component=None) for place in ("a", "b")
    ]
    keys = [folder.pictures[0].image.key for folder in open_made_folders(folders, recipe_of())]
    assert keys == ["made_1/images/00000_rust", "made_2/images/00000_rust"]
