"""`llava-inspect predict` and `survey` of photos on an S3 server on this machine, with outputs sent to it."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.answering.questions import make_answer
from eval.survey.findings import Findings
from llava.common import photo_cache
from llava.common.destination import made_at, send_folder
from llava.common.errors import InputError
from llava.common.images import open_image
from llava.common.photo_cache import photo_at
from llava.common.records import Answer, Question
from llava.common.remote import shown
from llava_inspect import predict, survey
from llava_inspect.predict import find_photos
from tests.support.s3 import BUCKET, s3_server, send
from tests.support.surveyed import exif, write_photo

RECIPE = """
unit: tile
tiles: {side: 200, overlap: 0.25, whole: false}
defects: [{name: crack}, {name: rust}]
families:
  presence: {questions: ["Is there a defect?"]}
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as system:
        yield system


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photo that is cut into tiles, one with time and place, one cut short, and what is no photo."""
    folder = tmp_path / "photos"
    write_photo(folder / "line 3" / "a.jpg", 0, (300, 200))
    write_photo(folder / "b.jpg", 1, made=exif("2026:06:12 09:00:25", (47.5, 8.25), 400))
    write_photo(folder / "cut.png", 2)
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:-90])
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "c.jpg").write_bytes((folder / "b.jpg").read_bytes())
    (tmp_path / "my.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each photo was fetched whole, by its file's name."""
    counted: Counter[str] = Counter()
    read_bytes = photo_cache.read_bytes

    def read(address: str) -> bytes:
        counted[address.rpartition("/")[2]] += 1
        return read_bytes(address)

    monkeypatch.setattr(photo_cache, "read_bytes", read)
    return counted


class Model:
    """Says yes of everything; a keyboard interrupt comes after `patience` answers."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.asked = 0

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        for question in questions[: self.patience]:
            self.asked += 1
            try:
                open_image(photo_at(images[question.images[0]]))
                yield make_answer(question, "yes-man", "yes", choices={"yes": 0.9, "no": 0.1})
            except InputError as problem:
                yield make_answer(question, "yes-man", error=str(problem))
        if len(questions) > self.patience:
            raise KeyboardInterrupt


def flags(model: Path, work: Path, output: Path | str, *more: str) -> list[str]:
    cache = ("--cache-folder", str(work / "cache"))
    return ["--model-path", str(model), "--device", "cpu", "--output", str(output), *cache, *more]


def sent(s3: Any, name: str) -> dict[str, bytes]:
    root = f"{BUCKET}/{name}/"
    s3.invalidate_cache()
    return {path.removeprefix(root): s3.cat_file(path) for path in s3.find(root)}


def test_photos_are_found_as_in_a_folder_here(s3: Any, photos: Path) -> None:
    there = send(s3, photos, "found")
    s3.pipe_file(f"{BUCKET}/found/../secret.jpg", b"not to be named")
    s3.pipe_file(f"{BUCKET}/found/notes/a.txt", b"no photo")
    root, found = find_photos([there])
    assert root == there and found.keys() == find_photos([photos])[1].keys()
    root, found = find_photos([there / "b.jpg", there / "line 3"])
    assert (root, list(found)) == (there, ["b.jpg", "line 3/a.jpg"])
    for others in ([photos], [Path("s3://other-bucket/b.jpg")]):
        s3.mkdirs("other-bucket", exist_ok=True)
        s3.pipe_file("other-bucket/b.jpg", b"")
        with pytest.raises(InputError, match="must all lie in one bucket"):
            find_photos([there, *others])
    with pytest.raises(InputError, match=r"^s3://photos/none: no such photo or folder"):
        find_photos([Path(f"s3://{BUCKET}/none")])
    with pytest.raises(InputError, match=r"no photos in s3://photos/found/notes"):
        find_photos([there / "notes"])


def test_predict_answers_as_about_photos_here(
    s3: Any, tiny_model_dir: Path, photos: Path, tmp_path: Path, fetched: Counter[str], capsys: Any
) -> None:
    there = send(s3, photos, "predicted")
    output = f"s3://{BUCKET}/answers"
    question = ("--question", "Is there rust?", "--choices", "yes", "no")
    for folder, to in ((photos, tmp_path / "out"), (there, output)):
        assert predict.main([str(folder), *flags(tiny_model_dir, tmp_path, to, *question)]) == 0
    assert f"{output}/gallery.html" in capsys.readouterr().err
    files = sent(s3, "answers")
    here = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files.keys() == here.keys()
    for name in files:
        assert files[name].decode() == here[name].decode().replace(str(photos), shown(there)), name
    assert fetched["a.jpg"] == fetched["b.jpg"] == 1, "the gallery takes them from the cache"
    assert not list((tmp_path / "cache" / "unsent").iterdir())
    with pytest.raises(InputError, match=r"^s3://photos/answers holds answers already; .*--overwrite"):
        predict.main([str(there), *flags(tiny_model_dir, tmp_path, output, *question)])
    rows = list(csv.DictReader(files["answers.csv"].decode("utf-8-sig").splitlines()))
    assert [row["photo"] for row in rows if row["problem"]] == ["cut.png"]


def test_a_survey_finds_what_it_finds_in_photos_here(
    s3: Any, tiny_model_dir: Path, photos: Path, tmp_path: Path, fetched: Counter[str], capsys: Any
) -> None:
    there = send(s3, photos, "flight")
    output = f"s3://{BUCKET}/surveys/0612"
    s3.pipe_file(f"{BUCKET}/surveys/0612/thumbnails/00000.jpg", b"of an earlier survey")
    s3.pipe_file(f"{BUCKET}/surveys/0612/mine.txt", b"a person's")
    for folder, to in ((photos, tmp_path / "out"), (there, output)):
        more = ("--photos", str(folder), "--recipe", str(tmp_path / "my.yaml"))
        assert survey.main(flags(tiny_model_dir, tmp_path, to, *more)) == 0
    assert f"{output}/register.html" in capsys.readouterr().err
    files = sent(s3, "surveys/0612")
    here = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files.keys() == {*here, "mine.txt"}
    registers = [Findings.model_validate_json(one["findings.json"]) for one in (here, files)]
    assert registers[0].findings == registers[1].findings and registers[0].survey == registers[1].survey
    assert registers[1].photos_folder == f"s3://{BUCKET}/flight"
    assert {finding.photo for finding in registers[1].findings} == {"b.jpg", "cut.png", "line 3/a.jpg"}
    assert files["findings.csv"] == here["findings.csv"]
    links = set(re.findall('href="([^"]*jpg)"', files["register.html"].decode()))
    assert links == {"../../flight/line%203/a.jpg", "../../flight/b.jpg"}, "within the bucket"
    assert fetched["a.jpg"] == fetched["b.jpg"] == 1
    assert not list((tmp_path / "cache" / "unsent").iterdir())
    with pytest.raises(InputError, match=r"--output s3://photos/flight/out lies among the photos"):
        survey.main(flags(tiny_model_dir, tmp_path, f"{there}/out", *more))


def test_a_survey_that_was_stopped_goes_on_and_is_sent_whole(
    s3: Any, tiny_model_dir: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = send(s3, photos, "stopped")
    output = f"s3://{BUCKET}/stopped_out"
    more = ("--photos", str(there), "--recipe", str(tmp_path / "my.yaml"))
    command = flags(tiny_model_dir, tmp_path, output, *more)
    models = Model(1), Model(99), Model(99)
    remaining = iter(models)
    monkeypatch.setattr("eval.infer.load_answering_model", lambda args, processes: next(remaining))
    with pytest.raises(KeyboardInterrupt):
        survey.main(command)
    assert not sent(s3, "stopped_out")

    def fail(source: Path, target: Path) -> None:
        if target.name == "register.html":
            raise InputError(f"{target}: cannot be reached")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="cannot be reached"):
        patch.setattr("llava.common.destination.send_file", fail)
        survey.main(command)
    assert survey.main(command) == 0
    assert [model.asked for model in models] == [1, 3, 0]
    files = sent(s3, "stopped_out")
    assert {"answers.jsonl", "findings.json", "register.html"} <= files.keys()
    assert len(files["answers.jsonl"].splitlines()) == 4
    assert not list((tmp_path / "cache" / "unsent").iterdir())


def test_a_photo_is_fetched_again_where_the_cache_is_too_small(
    s3: Any, tiny_model_dir: Path, photos: Path, tmp_path: Path, fetched: Counter[str], monkeypatch: Any
) -> None:
    there = send(s3, photos, "uncached")
    monkeypatch.setattr("eval.infer.load_answering_model", lambda args, processes: Model(99))
    more = ("--photos", str(there), "--recipe", str(tmp_path / "my.yaml"), "--cache-gb", "0")
    assert survey.main(flags(tiny_model_dir, tmp_path, tmp_path / "out", *more)) == 0
    assert fetched["a.jpg"] == fetched["b.jpg"] == 2
    assert not (tmp_path / "cache" / "photos").exists()
    page = (tmp_path / "out" / "register.html").read_text("utf-8")
    assert f's3://{BUCKET}/uncached/line%203/a.jpg"' in page


def test_an_output_is_made_at_the_same_place_and_sent_in_order(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made_at(tmp_path / "out", tmp_path / "cache") == tmp_path / "out"
    output = Path(f"s3://{BUCKET}/ordered")
    made = made_at(output, tmp_path)
    assert made == made_at(Path(f"s3://{BUCKET}/ordered"), tmp_path) != made_at(output / "b", tmp_path)
    for name in ("last.html", "a.txt", "b/c.txt", "a.jsonl.partial", ".parts/x.jpg"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    order = list[str]()
    monkeypatch.setattr(
        "llava.common.destination.send_file", lambda source, target: order.append(source.name)
    )
    send_folder(made, output, ["last.html"])
    assert sorted(order) == ["a.txt", "c.txt", "last.html"] and order[-1] == "last.html"
