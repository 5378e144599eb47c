"""Pre-labels: our own readers and the tools' libraries read what is written."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from data_prep.annotations import AnnotatedSource, merge_annotations
from data_prep.formats import find_reader
from data_prep.source_folder import SourceFolder
from eval.prelabels.__main__ import main
from eval.prelabels.formats import FORMATS
from llava.common.errors import InputError
from tests.support.found import finding, write_survey
from tests.support.read_source import boxes_of, labels_of

READERS_OF = {"label-studio": "labelstudio"}  # where our reader has another name
KINDS = ("missing disc", "flashover", "pollution")
BOX = (0.125, 0.25, 0.5, 0.755)
IN_PIXELS = (12.5, 12.5, 50, 37.75)


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    """Two boxes, one of them in a photo of a subfolder; a kind without a box; what is not pre-labelled."""
    return write_survey(
        tmp_path,
        finding("1", "a.jpg", kind="flashover", p_yes=0.9, kind_probability=0.5, box=BOX),
        finding("2", "a.jpg", "ask", kind="pollution", p_yes=0.6),
        finding(
            "3", "tower 2/b.jpg", kind="missing disc", box=(0, 0, 0.2, 1), photos=["tower 2/b.jpg", "c.jpg"]
        ),
        finding("4", "d.jpg", kind="pollution", p_yes=0.7),
        finding("5", "e.jpg", "sound", kind="pollution", p_yes=0.1),
        finding("6", "f.jpg", "ask", reason="no answer"),
        kinds=KINDS,
    )


@pytest.fixture
def prelabels(survey: Path) -> Callable[..., Path]:
    def write(*more: str) -> Path:
        assert main(["--findings", str(survey), *more]) == 0
        return survey.parent / "prelabels"

    return write


def read_back(folder: Path, photos: Path, format: str) -> AnnotatedSource:
    reader, _ = find_reader(SourceFolder.scan(folder, photos))
    assert format == reader.NAME
    source, problems = reader.read(SourceFolder.scan(folder, photos))
    assert problems == []
    return source


def submit(tasks: Path) -> None:
    """Do what Label Studio does when a person submits every prediction as it is, and exports."""
    content = json.loads(tasks.read_text())
    for task in content:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"], "was_cancelled": False}]
    tasks.write_text(json.dumps(content))


def test_every_format_is_read_back(prelabels: Callable[..., Path], tmp_path: Path) -> None:
    folder = prelabels()
    submit(folder / "label-studio" / "tasks.json")
    for format in FORMATS:
        source = read_back(folder / format, tmp_path / "photos", READERS_OF.get(format, format))
        boxes = {key: found for key, found in boxes_of(source).items() if found}
        assert boxes.keys() == {"a", "tower 2/b"}, format
        expected = (12, 12, 50, 38) if format == "voc" else IN_PIXELS  # whole pixels, all of the box within
        assert boxes["a"] == [("flashover", pytest.approx(expected, abs=0.01))], format
        assert boxes["tower 2/b"] == [("missing disc", (0, 0, 20, 50))], format
        labels = {key: found for key, found in labels_of(source).items() if found}
        whole = {"a": ["pollution"], "d": ["pollution"]} if FORMATS[format].LABELS_WHOLE_PHOTOS else {}
        assert labels == whole, format


def test_what_is_written_and_what_is_left_out_is_said(
    prelabels: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prelabels("--format", "label-studio", "coco", "coco")
    assert {path.name for path in folder.iterdir()} == {"label-studio", "coco"}
    said = capsys.readouterr().out
    assert "4 of 6 findings are of a kind" in said
    assert "label-studio: 3 photos, 2 boxes, 2 labels of whole photos" in said
    assert "coco: 2 photos, 2 boxes; 2 findings without a box left out" in said


def test_probabilities_are_kept_where_a_format_has_a_place(prelabels: Callable[..., Path]) -> None:
    """That of a box is that of a defect times that of its kind. None is made up where it may lack."""
    folder = prelabels()
    assert (folder / "yolo/labels/a.txt").read_text() == "1 0.312500 0.502500 0.375000 0.505000 0.450000\n"
    assert (folder / "yolo/labels/tower 2/b.txt").read_text() == "0 0.100000 0.500000 0.200000 1.000000\n"
    first, second = json.loads((folder / "coco/results.json").read_text())
    assert (first["score"], second["score"]) == (0.45, 1.0)
    a, b, d = json.loads((folder / "label-studio/tasks.json").read_text())
    (prediction,) = a["predictions"]
    assert prediction["model_version"] == "tuned-v3" and prediction["score"] == 0.45
    assert prediction["result"][0]["score"] == 0.45
    assert "score" not in b["predictions"][0] and d["predictions"][0]["score"] == 0.7
    assert b["data"]["image"] == "/data/local-files/?d=photos/tower%202/b.jpg"
    image = ElementTree.parse(folder / "cvat/annotations.xml").find("image")
    assert image is not None and [one.findtext("attribute") for one in image] == ["0.45", "0.6"]
    shapes = json.loads((folder / "labelme/a.json").read_text())["shapes"]
    assert shapes[0]["description"] == "probability 0.45"
    beside = folder / "labelme" / "tower 2"
    assert (beside / json.loads((beside / "b.json").read_text())["imagePath"]).resolve().is_file()


def test_label_studio_takes_the_tasks(prelabels: Callable[..., Path]) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is absent")
    folder = prelabels("--format", "label-studio") / "label-studio"
    config = interface.LabelInterface((folder / "labeling_config.xml").read_text())
    config.validate()
    for task in json.loads((folder / "tasks.json").read_text()):
        prediction = task.pop("predictions")[0]
        assert config.validate_task(task) and config.validate_prediction(prediction)

    prediction["result"][0]["value"] = {"choices": ["a bird"]}
    assert not config.validate_prediction(prediction)


def test_pycocotools_take_the_results(prelabels: Callable[..., Path]) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools are absent")
    folder = prelabels("--format", "coco") / "coco"
    truth = coco.COCO(str(folder / "instances.json"))
    results = truth.loadRes(str(folder / "results.json"))
    assert [(one["bbox"], one["score"]) for one in results.loadAnns(results.getAnnIds())] == [
        ([12.5, 12.5, 37.5, 25.25], 0.45),
        ([0.0, 0.0, 20.0, 50.0], 1.0),
    ]
    assert [one["name"] for one in truth.loadCats(truth.getCatIds())] == list(KINDS)


def test_globox_reads_the_same_boxes(prelabels: Callable[..., Path], tmp_path: Path) -> None:
    globox = pytest.importorskip("globox", reason="globox is absent")
    folder, photos = prelabels(), tmp_path / "photos"
    read = {
        "coco": globox.AnnotationSet.from_coco(folder / "coco/instances.json"),
        "results": globox.AnnotationSet.from_coco(folder / "coco/instances.json").from_results(
            folder / "coco/results.json"
        ),
        "cvat": globox.AnnotationSet.from_cvat(folder / "cvat/annotations.xml"),
        "yolo": globox.AnnotationSet.from_yolo_v7(folder / "yolo/labels", image_folder=photos),
        "labelme": [globox.Annotation.from_labelme(folder / "labelme/a.json")],
        "voc": [globox.Annotation.from_pascal_voc(folder / "voc/a.xml")],
    }
    for name, annotations in read.items():
        (box,) = next(iter(annotations)).boxes
        expected = (12, 12, 50, 38) if name == "voc" else IN_PIXELS
        assert box.ltrb == pytest.approx(expected, abs=0.01), name
        assert box.label == ("1" if name == "yolo" else "flashover"), name
        assert box.confidence == (0.45 if name in ("coco", "results", "yolo") else None), name


def test_a_survey_without_kinds_is_refused(tmp_path: Path) -> None:
    file = write_survey(tmp_path, finding("1", "a.jpg"))
    with pytest.raises(InputError, match="no finding is of a kind and not sound"):
        main(["--findings", str(file)])
    with pytest.raises(InputError, match=r"none\.json: no such file; a survey writes it"):
        main(["--findings", str(file.with_name("none.json"))])
    file.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match=r"not a survey's findings \(Input should be an object\)"):
        main(["--findings", str(file)])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("p_yes", "NaN", r"findings\.0\.p_yes: Input should be a finite number"),
        ("box", "[0, 0, NaN, 1]", r"findings\.0\.box\.2: Input should be a finite number"),
        ("box", "[0.5, 0.5, 0.1, 0.9]", "the box of finding '1' is not x1, y1, x2, y2 in 0..1"),
        ("box", "[-5, 0, 9, 1]", "the box of finding '1' is not x1, y1, x2, y2 in 0..1"),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path: Path, field: str, value: str, message: str) -> None:
    file = write_survey(tmp_path, finding("1", "a.jpg", kind="flashover"))
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"kind":', f'"{field}": {value}, "kind":', 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        main(["--findings", str(file)])
    assert not (file.parent / "prelabels").exists()


def test_a_format_that_can_hold_nothing_of_it_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_survey(tmp_path, finding("1", "a.jpg", kind="flashover"))
    assert main(["--findings", str(file)]) == 0
    assert {path.name for path in (file.parent / "prelabels").iterdir()} == {
        "label-studio",
        "cvat",
        "labelme",
    }
    assert "yolo: not written; 1 finding without a box left out" in capsys.readouterr().out


def test_photos_that_moved_are_asked_for(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"a\.jpg: no such photo; name the folder .* with --photos"):
        main(["--findings", str(survey)])
    assert main(["--findings", str(survey), "--photos", str(tmp_path / "moved"), "--format", "voc"]) == 0


def test_two_photos_that_would_share_a_file_are_refused(tmp_path: Path) -> None:
    pair = [finding(name, name, kind="flashover", box=BOX) for name in ("a.jpg", "a.png")]
    file = write_survey(tmp_path, *pair)
    with pytest.raises(InputError, match=r"a\.jpg and a\.png would share the labels in a\.txt"):
        main(["--findings", str(file)])
    assert not list((file.parent / "prelabels").iterdir()), "no other format is written either"


def test_nothing_is_written_over(prelabels: Callable[..., Path], survey: Path) -> None:
    prelabels("--format", "voc")
    with pytest.raises(InputError, match="voc exists already"):
        main(["--findings", str(survey)])
    assert [path.name for path in (survey.parent / "prelabels").iterdir()] == ["voc"]


def test_boxes_are_on_the_upright_photo_whatever_its_name(tmp_path: Path) -> None:
    name = "tür #1 'a' & b?.jpg"
    file = write_survey(tmp_path, finding("1", name, kind="nest <b>", box=BOX, width=None, height=None))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (100, 50)).save(tmp_path / "photos" / name, exif=turned)
    assert main(["--findings", str(file)]) == 0
    submit(file.parent / "prelabels" / "label-studio" / "tasks.json")
    for format in FORMATS:
        folder = file.parent / "prelabels" / format
        (image,) = read_back(folder, tmp_path / "photos", READERS_OF.get(format, format)).images
        (shape,), notes = merge_annotations(image, (50, 100), 6)
        assert shape.name == "nest <b>" and notes == [], format
        assert shape.box == pytest.approx((6.25, 25, 25, 75.5), abs=1 if format == "voc" else 0.02), format
