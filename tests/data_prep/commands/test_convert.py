"""Annotated photos -> conversation JSON, as a user of the command sees it."""

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.formats import voc
from data_prep.images.store import ImageStore
from data_prep.images.units import prepare_image
from data_prep.recipe.schema import Recipe
from data_prep.report.summary import group_similar
from data_prep.source_folder import SourceFolder
from data_prep.splits.assign import assign_splits
from llava.common.boxes import from_frame, parse_box
from llava.common.errors import InputError
from llava.common.files import read_json_list, read_jsonl
from llava.common.records import Question, Record, Truth
from llava.common.settings import load_settings
from tests.support.photos import KINDS, Boxes, contents, write_boxes, write_pair, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture
def convert(repo: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs the command; `recipe` names one of the shipped ones."""

    def run(source: Path, *more: str, recipe: str = "insulator", output: str = "out") -> Path:
        file = repo / "configs" / "recipes" / f"{recipe}.yaml"
        target = tmp_path / output
        code = data_prep(
            ["convert", "--source", str(source), "--recipe", str(file), "--output", str(target), *more]
        )
        assert code == 0
        return target

    return run


@pytest.fixture(scope="module")
def converted(repo: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / "out"
    recipe = repo / "configs" / "recipes" / "insulator.yaml"
    data_prep(["convert", "--source", str(photos), "--recipe", str(recipe), "--output", str(output)])
    return output


def load(output: Path) -> tuple[dict[str, list[Record]], list[Question], list[Truth]]:
    records = {split: read_json_list(output / f"{split}.json", Record) for split in ("train", "val", "test")}
    questions = read_jsonl(output / "questions_test.jsonl", Question)
    return records, questions, read_jsonl(output / "truth_test.jsonl", Truth)


def test_every_file_follows_its_schema_and_they_agree(converted: Path) -> None:
    records, questions, truths = load(converted)
    test = {record.id: record for record in records["test"]}
    assert [q.question_id for q in questions] == [t.question_id for t in truths] == list(test)
    for question, truth in zip(questions, truths, strict=True):
        record = test[str(question.question_id)]
        assert record.conversations[0].value == f"<image>\n{question.text}"
        assert record.conversations[1].value == truth.answer
        assert question.images == record.images
        if truth.type == "class":
            assert truth.answer in (truth.classes or [])
    for record in (record for split in records.values() for record in split):
        with Image.open(converted / record.images[0]) as image:
            assert image.size == (80, 48)
    ids = [record.id for split in records.values() for record in split]
    assert len(set(ids)) == len(ids)
    written = {f"images/{path.name}" for path in (converted / "images").iterdir()}
    assert written == {record.images[0] for split in records.values() for record in split}


def test_answers_are_what_was_annotated(converted: Path) -> None:
    """The source's file names say what each picture shows; here they check it."""
    records, _, _ = load(converted)
    for record in (record for split in records.values() for record in split):
        kind = record.meta["source"].split("/")[-1].rsplit("_", 1)[0].replace("_", " ")
        task = record.meta["task"]
        if task == "dialogue":  # tested against the single questions below
            continue
        question, answer = (turn.value for turn in record.conversations)
        assert record.meta["label"] == ("none" if kind == "sound" else kind)
        if task == "presence":
            assert answer == ("no" if kind == "sound" else "yes")
        elif task == "presence_of":
            assert answer == ("yes" if kind in question else "no")
        elif task == "kind":
            assert answer == ("none" if kind == "sound" else kind)
        elif task == "count":
            assert answer == ("0" if kind == "sound" else "1")
        elif task == "describe":
            assert (kind in answer) != (answer == "An insulator without defects.")
        else:
            assert task == "where" and kind in question


def test_dialogues_repeat_single_questions_of_their_image(converted: Path) -> None:
    records, _, _ = load(converted)
    single = {
        (record.images[0], record.conversations[0].value.removeprefix("<image>\n")): record
        for record in records["train"]
        if record.meta["task"] != "dialogue"
    }
    conversations = [record for record in records["train"] if record.meta["task"] == "dialogue"]
    # One about each picture, but for those of which the first answer says all.
    assert 0.9 < len(conversations) / len({record.images[0] for record in records["train"]}) <= 1
    for talk in conversations:
        turns = [turn.value for turn in talk.conversations]
        assert turns[0].startswith("<image>\n")
        questions = [turns[0].removeprefix("<image>\n"), *turns[2::2]]
        asked = [single[talk.images[0], question] for question in questions]
        assert [record.conversations[1].value for record in asked] == turns[1::2]
        assert len({record.meta["task"] for record in asked}) == len(asked) in (2, 3)
    assert not any(r.meta["task"] == "dialogue" for split in ("val", "test") for r in records[split])


@pytest.mark.parametrize("recipe", ["insulator", "insulator_full"])
def test_nothing_leaks_the_answer(photos: Path, convert: Callable[..., Path], recipe: str) -> None:
    converted = convert(photos, recipe=recipe)
    records, questions, truths = load(converted)
    for split in records.values():
        for record in split:
            data = (converted / record.images[0]).read_bytes()
            assert record.images[0] == f"images/{hashlib.sha1(data).hexdigest()[:16]}.jpg"
            assert len(record.id) == 16 and set(record.id) <= set("0123456789abcdef")
    prompts = "\n".join(
        json.dumps([question.question_id, question.image, question.category]) for question in questions
    )
    assert not any(word in prompts for kind in (*KINDS, "sound") for word in kind.split())
    # Neither the order of the file nor that of the ids tells sound from defective.
    for ordered in (truths, sorted(truths, key=lambda truth: str(truth.question_id))):
        presence = [truth.answer == "yes" for truth in ordered if truth.task == "presence"]
        changes = sum(a != b for a, b in pairwise(presence))
        assert changes >= 2
    # One picture's questions stay together, so that the engine reads it once.
    images = [question.image for question in questions]
    assert sum(a != b for a, b in pairwise(images)) == len(set(map(str, images))) - 1


def test_same_seed_same_bytes(photos: Path, converted: Path, convert: Callable[..., Path]) -> None:
    assert contents(convert(photos, "--workers", "1")) == contents(converted)
    assert contents(convert(photos, "--workers", "5", output="five")) == contents(converted)
    other = convert(photos, "--seed", "1", output="other")
    assert contents(other)["train.json"] != contents(converted)["train.json"]


def test_train_is_balanced_and_test_is_whole(converted: Path) -> None:
    records, _, truths = load(converted)
    for task, phrased in (("presence", False), ("presence_of", True)):
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for record in records["train"]:
            if record.meta["task"] == task:
                answers[record.meta["about"] if phrased else ""][record.conversations[1].value] += 1
        assert all(count["yes"] == count["no"] > 0 for count in answers.values()), answers
    images = {truth.meta["source"] for truth in truths}
    for task in ("presence", "kind", "count", "describe"):
        asked = [truth.meta["source"] for truth in truths if truth.task == task]
        assert sorted(asked) == sorted(images), f"{task}: every test picture, once"
    texts = {(truth.task, truth.meta["about"]) for truth in truths}
    assert len(texts) >= 10


def test_questions_name_the_photo_as_its_owner_does(converted: Path, photos: Path) -> None:
    _, questions, truths = load(converted)
    own = {path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")}
    assert own and {question.source for question in questions} <= own
    source_of = {truth.question_id: truth.meta["source"] for truth in truths}
    assert all(question.source == f"{source_of[question.question_id]}.jpg" for question in questions)


def test_splits_are_stratified(converted: Path) -> None:
    manifest = json.loads((converted / "manifest.json").read_text())
    splits = manifest["splits"]
    assert [splits[split]["pictures"] for split in ("train", "val", "test")] == [42, 9, 9]
    for split in ("val", "test"):
        assert splits[split]["labels"]["none"] == 3
        assert len(splits[split]["labels"]) >= 5
    for name, digest in manifest["sha256"].items():
        if name != "images":
            assert hashlib.sha256((converted / name).read_bytes()).hexdigest() == digest


def test_groups_are_never_divided(photos: Path, tmp_path: Path, convert: Callable[..., Path]) -> None:
    output = convert(photos, r"group.pattern=_(\d\d)\d$")
    split_of: dict[str, set[str]] = defaultdict(set)
    for image in json.loads((output / "manifest.json").read_text())["pictures"].values():
        split_of[image["source"][-3:-1]].add(image["split"])
    assert len(split_of) == 6 and all(len(splits) == 1 for splits in split_of.values())

    # A re-encoded, scaled copy is found by how it looks.
    source = write_photos(tmp_path / "twins", 12)
    for xml in sorted((source / "annotations").glob("*.xml")):
        with Image.open(source / "images" / f"{xml.stem}.jpg") as image:
            image.save(source / "images" / f"copy_of_{xml.stem}.jpg", quality=60)
        (xml.parent / f"copy_of_{xml.name}").write_text(xml.read_text())
    images = json.loads((convert(source, output="t") / "manifest.json").read_text())["pictures"].values()
    splits = {image["source"].removeprefix("images/"): image["split"] for image in images}
    assert len(splits) == 24
    assert all(splits[name] == splits[f"copy_of_{name}"] for name in splits if "copy_of" not in name)


def test_shares_of_every_label_hold_over_splits() -> None:
    groups = {
        f"g{i}": [("a", "b", "c", "rare")[min(i % 7, 3) if i % 10 else 0]] * (1 + i % 3) for i in range(300)
    }
    splits = assign_splits(groups, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert set(splits) == set(groups)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, labels in groups.items():
        counts[labels[0]][splits[name]] += len(labels)
    for count in counts.values():
        total = sum(count.values())
        assert abs(count["train"] - 0.7 * total) <= 3 and abs(count["test"] - 0.2 * total) <= 3


def test_a_calibration_split_on_request(photos: Path, converted: Path, convert: Callable[..., Path]) -> None:
    """It is asked as the test is, shares no group with another split, and is nowhere without a share."""
    assert not [path for path in converted.iterdir() if "calibration" in path.name]
    assert "calibration" not in (converted / "manifest.json").read_text(encoding="utf-8")
    output = convert(photos, "splits.calibration=0.3", "--splits", "0.5,0.1,0.1")
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    assert {split: summary["pictures"] for split, summary in manifest["splits"].items()} == {
        "train": 30, "val": 6, "calibration": 18, "test": 6,
    }  # fmt: skip
    split_of = defaultdict(set)
    for picture in manifest["pictures"].values():
        split_of[picture["group"]].add(picture["split"])
    assert all(len(splits) == 1 for splits in split_of.values())
    questions = read_jsonl(output / "questions_calibration.jsonl", Question)
    truths = read_jsonl(output / "truth_calibration.jsonl", Truth)
    assert [q.question_id for q in questions] == [t.question_id for t in truths]
    assert {split_of[t.group].copy().pop() for t in truths} == {"calibration"}
    _, asked_in_test, _ = load(output)
    assert {q.text for q in questions if q.category == "presence"} == {
        q.text for q in asked_in_test if q.category == "presence"
    }
    assert convert(photos, "splits.calibration=0.3", "--splits", "0.5,0.1,0.1", "--overwrite") == output


def test_a_source_for_testing_alone(photos: Path, tmp_path: Path, convert: Callable[..., Path]) -> None:
    other = write_photos(tmp_path / "other", 20, seed=7)
    # One training picture is slipped into the test source: it must leave training.
    for folder, name in (("images", "sound_000.jpg"), ("annotations", "sound_000.xml")):
        (other / folder / f"again_{name}").write_bytes((photos / folder / name).read_bytes())
    output = convert(photos, "--test-source", str(other))
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["splits"]["test"]["pictures"] == 21
    assert manifest["splits"]["train"]["pictures"] + manifest["splits"]["val"]["pictures"] == 59
    assert manifest["left_out"]["training pictures akin to a test picture"] == 1
    assert any("sound_000" in warning for warning in manifest["warnings"])


def test_object_crops_show_their_own_defects(tmp_path: Path, convert: Callable[..., Path]) -> None:
    source = tmp_path / "objects"
    for index in range(12):
        boxes: Boxes = [("insulator", (10, 10, 110, 60)), ("insulator", (10, 90, 60, 190))]
        if index % 2:
            boxes.append(("defect", (70, 20, 90, 40)))
        write_pair(source, f"p{index}", boxes, seed=index, size=(200, 200))
    output = convert(source, "crops.context=0.1", recipe="defect")
    _, _, truths = load(output)
    manifest = json.loads((output / "manifest.json").read_text())
    assert sum(part["pictures"] for part in manifest["splits"].values()) == 24
    assert sum(part["labels"].get("defect", 0) for part in manifest["splits"].values()) == 6
    boxes_asked = [truth for truth in truths if truth.task == "box"]
    assert boxes_asked
    for truth in boxes_asked:
        # The crop reaches 10 px beyond the box: it begins at (0, 0) and is 120x70.
        box = parse_box(truth.answer)
        assert box is not None and (truth.meta["width"], truth.meta["height"]) == (120, 70)
        assert from_frame(box, 120, 70, truth.meta["frame"]) == pytest.approx((70, 20, 90, 40), abs=0.1)
    assert all(truth.answer == "right" for truth in truths if truth.task == "where")
    for truth in truths:
        split_groups = {
            p["split"] for p in manifest["pictures"].values() if p["source"] == truth.meta["source"]
        }
        assert split_groups == {"test"}, "crops of one picture stay together"


def test_windows_set_sound_and_defective_parts_side_by_side(
    tmp_path: Path, convert: Callable[..., Path]
) -> None:
    source = tmp_path / "windows"
    for index in range(12):
        boxes: Boxes = [("insulator", (0, 50, 200, 100)), ("defect", (60, 60, 80, 80))]
        write_pair(source, f"p{index}", boxes, seed=index, size=(200, 200))
    output = convert(source, "crops.context=0", "crops.windows=4", recipe="defect")
    splits = json.loads((output / "manifest.json").read_text())["splits"].values()
    # The defect lies within the second of four windows of 50x50.
    assert sum(part["labels"]["defect"] for part in splits) == 12
    assert sum(part["labels"]["none"] for part in splits) == 36
    assert {truth.answer for truth in load(output)[2] if truth.task == "box"} == {
        "[0.200, 0.200, 0.600, 0.600]"
    }


def test_one_box_under_two_names_of_a_class_is_one(tmp_path: Path, repo: Path) -> None:
    box = (30, 20, 39, 27)
    write_pair(tmp_path, "a", [("missing disc", box), ("missing cap", box), ("Missing_Disc", box)], seed=0)
    recipe = load_settings(Recipe, repo / "configs" / "recipes" / "insulator_full.yaml")
    (image,) = voc.read(SourceFolder.scan(tmp_path))[0].images
    store = ImageStore(tmp_path, recipe.pictures)
    (unit,) = prepare_image(image, recipe, recipe.known_names(), store).units
    assert [(shape.name, shape.box) for shape in unit.defects] == [("missing disc", box)]


def test_several_kinds_in_one_image(
    tmp_path: Path, convert: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_photos(tmp_path / "several", 20)
    nest_and_burn: Boxes = [("bird nest", (2, 2, 30, 20)), ("flashover", (60, 30, 70, 40))]
    for index in range(10):
        write_pair(source, f"both_{index}", nest_and_burn, seed=500 + index)
    for several, asked in (("skip", 0), ("largest", 10)):
        output = convert(source, f"several={several}", "families.kind.times=1", output=several)
        records = [
            record
            for split in load(output)[0].values()
            for record in split
            if "both" in record.meta["source"]
        ]
        kinds = [record.conversations[1].value for record in records if record.meta["task"] == "kind"]
        assert kinds == ["bird nest"] * asked
        left_out = json.loads((output / "manifest.json").read_text())["left_out"]
        assert left_out.get("kind: several kinds of defect", 0) == 10 - asked
        line = "not asked: 10 x kind (several kinds of defect)\n"
        assert (line in capsys.readouterr().out) == (asked == 0)
        described = {r.conversations[1].value for r in records if r.meta["task"] == "describe"}
        assert described == {
            "An insulator with flashover in the bottom right and a bird nest in the top left."
        }
        assert {r.conversations[1].value for r in records if r.meta["task"] == "count"} == {"2"}


def test_images_without_a_question_are_left_out(
    photos: Path, convert: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    families = ("kind", "count", "where", "describe", "presence_of")
    alone = [f"families.{name}=null" for name in families]
    output = convert(
        photos, *alone, "families.presence.balance=0", "families.presence.times=1", "dialogues=0"
    )
    records = load(output)[0]
    assert Counter(record.conversations[1].value for record in records["train"]) == {"yes": 14, "no": 14}
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["splits"]["train"]["pictures"] == 28 == len(records["train"])
    left = sum(manifest["left_out"].values())
    assert left == 60 - sum(map(len, records.values())) > 0
    assert f"left out: {left} pictures that the balance of answers leaves without" in capsys.readouterr().out
    used = {name for split in records.values() for record in split for name in record.images}
    assert used == {f"images/{path.name}" for path in (output / "images").iterdir()}
    assert used == manifest["pictures"].keys()

    # `where` alone asks nothing of sound pictures, in any split.
    families = ("kind", "count", "presence", "describe", "presence_of")
    output = convert(photos, *(f"families.{name}=null" for name in families), "dialogues=0", output="where")
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["left_out"] == {"pictures that no family asks about": 20}
    assert all("none" not in split["labels"] for split in manifest["splits"].values())


def test_a_split_without_images_has_no_file(
    photos: Path, convert: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    output = convert(photos)
    assert f"val_path={output / 'val.json'} " in capsys.readouterr().out
    convert(photos, "--overwrite", "splits.val=0", "splits.test=0")
    assert {path.name for path in output.glob("*.json*")} == {"cache.json", "manifest.json", "train.json"}
    shown = capsys.readouterr().out
    assert "val_path=null " in shown and "val.json" not in shown


def test_images_are_scaled_down_with_their_boxes(tmp_path: Path, convert: Callable[..., Path]) -> None:
    source = tmp_path / "large"
    for index in range(8):
        write_pair(source, f"p{index}", [("missing disc", (300, 0, 400, 100))], index, size=(400, 200))
    more = ["pictures.max_side=100", "families.box.family=where", "families.box.type=box"]
    output = convert(source, *more, "families.box.questions=[Where is its box?]", "families.presence=null")
    truth = next(truth for truth in load(output)[2] if truth.task == "box")
    assert (truth.meta["width"], truth.meta["height"]) == (100, 50)
    # The 100x50 picture lies at 25..75 of the square; the box is its upper right quarter.
    assert truth.answer == "[0.750, 0.250, 1.000, 0.500]"


def test_overwrite_replaces_only_earlier_conversions(
    photos: Path, tmp_path: Path, convert: Callable[..., Path]
) -> None:
    output = convert(photos)
    (output / "stray.txt").write_text("old")
    with pytest.raises(InputError, match="--overwrite"):
        convert(photos)
    with pytest.raises(InputError, match=r"stray\.txt is not a conversion's file"):
        convert(photos, "--overwrite", "--seed", "2")
    assert (output / "stray.txt").read_text() == "old"
    (output / "stray.txt").unlink()
    before = (output / "train.json").read_bytes()
    convert(photos, "--overwrite", "--seed", "2")
    assert (output / "train.json").read_bytes() != before
    # Nothing that is read may lie in what is replaced.
    with pytest.raises(InputError, match="one inside the other"):
        convert(photos, "--overwrite", "--image-folder", str(output / "images"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep")
    with pytest.raises(InputError, match="not an earlier conversion"):
        convert(photos, "--overwrite", output="mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_data_prep_never_loads_torch() -> None:
    code = "import sys, data_prep.commands.convert, data_prep.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_steel_and_insulators(shared_data: Path, convert: Callable[..., Path]) -> None:
    steel = json.loads(
        (convert(shared_data / "neu_det", recipe="steel_surface") / "manifest.json").read_text()
    )
    assert steel["splits"]["train"]["pictures"] >= 120
    # 30 of each kind, but for two copies of one picture that are annotated differently.
    assert set(steel["splits"]["test"]["labels"].values()) <= {5, 6}
    assert "presence" not in steel["splits"]["test"]["tasks"]

    cplid = convert(shared_data / "cplid", recipe="defect", output="cplid")
    images = json.loads((cplid / "manifest.json").read_text())["pictures"].values()
    assert len(images) == 136
    group_of = {image["source"].split("/")[-1]: image["group"] for image in images}
    for first, second in (("1608", "1938"), ("2984", "0150"), ("0852", "1876")):
        if first in group_of and second in group_of:  # exact copies are left out altogether
            assert group_of[first] == group_of[second]


def test_warnings_are_told_by_kind_and_all_are_kept(
    tmp_path: Path, convert: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photos(tmp_path / "photos", count=30)
    for file in (photos / "annotations").glob("*.xml"):
        file.write_text(file.read_text().replace("<xmax>75", "<xmax>95"))
    (photos / "alone.jpg").write_bytes(b"")
    output = convert(photos)
    shown = capsys.readouterr().out
    assert shown.count("reached outside") == 1 and "clipped (and 29 more like this)" in shown
    assert "1 picture(s) without annotation left out" in shown
    assert f"all 31 warnings: {output / 'manifest.json'}" in shown
    warnings = json.loads((output / "manifest.json").read_text())["warnings"]
    assert sum("reached outside; clipped" in warning for warning in warnings) == 30


def test_kinds_of_notes() -> None:
    notes = [
        "/a/1.xml: box 3 (crack) was reversed; put right",
        "/b/2.xml: box 12 (rust (old)) was reversed; put right",
        "/b/2.xml: box of 'crack' is empty or outside; left out",
        "/b/x.png: made for 640x480, scaled to 320x240",
        "/c d/y.png: made for 64x48, scaled to 32x24",
        "a/b: left out, the same picture as c/d",
        "x: left out, the same picture as e/f",
        "2 XML file(s) that are not Pascal VOC passed over, for instance a.xml",
        "75 XML file(s) that are not Pascal VOC passed over, for instance c/b.xml",
    ]
    assert [len(kind) for kind in group_similar(notes)] == [2, 1, 2, 2, 2]
    assert group_similar(notes)[0] == notes[:2]
    assert sorted(note for kind in group_similar(notes) for note in kind) == sorted(notes)


def test_what_cannot_be_trained_is_not_asked_either(
    convert: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a sound picture every answer to "Is there a defect?" would be yes: training learns nothing
    of it, so the test must not score it."""
    kinds = [[("insulator", (5, 5, 75, 43)), (kind, (9, 9, 30, 30))] for kind in KINDS]
    output = convert(write_boxes(tmp_path / "photos", *kinds, count=30))
    records, questions, _ = load(output)
    assert "presence" not in {record.meta["task"] for split in records.values() for record in split}
    assert "presence" not in {question.category for question in questions}
    assert {question.category for question in questions} >= {"kind", "presence_of"}
    said = capsys.readouterr().out
    assert "warning: count, presence and where are neither trained nor asked" in said
    assert "(families.count=null families.presence=null families.where=null)" in said
