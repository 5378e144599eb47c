"""Files of existing benchmarks -> our questions and truth, to be answered and scored like any others.

The format is found out by what the file holds:

- MMAD (jam-cc/MMAD, mmad.json): a JSON object, picture -> {"conversation": [{"Question", "Options":
  {"A": ...}, "Answer": "A", "type"}]}; every question is asked of its picture alone, options in their order;
- POPE (RUCAIBox/POPE): {"question_id", "image", "text", "label": "yes"} a line;
- VLMEvalKit (open-compass/VLMEvalKit): a TSV with index, question, answer, image (base64, a list of such, or
  the index of the row that holds it) or image_path, and for multiple choice A, B, ..., hint, category.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import json
import string
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from eval.report.phrases import counted
from llava.common.cli import CommandParser
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_folder, read_json, read_text, write_jsonl
from llava.common.images import open_header
from llava.common.records import YES_NO, Question, TaskType, Truth

NOTES = """Then:
  python -m eval.infer --model-path runs/merged --image-folder MMAD \\
      --question-file runs/mmad/questions.jsonl --answers-file runs/mmad/answers.jsonl
  python -m eval.score --answers-file runs/mmad/answers.jsonl --truth-file runs/mmad/truth.jsonl \\
      --image-folder MMAD --output runs/mmad/scores

The image folder is the benchmark's own; for a TSV that holds its pictures it is the output folder."""

LETTER_INSTRUCTION = "Answer with the option's letter from the given choices directly."  # as LLaVA asks
_MAX_REFERENCE = 64  # characters; a longer image cell is an image, a shorter one the index of its row
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif"}


@dataclass
class BenchmarkQuestion:
    """Holds one question of a benchmark; `options` are letter -> text, empty for yes/no and free text."""

    id: str | int
    images: list[str]
    text: str
    answer: str
    task: str
    options: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    source: str | None = None


def convert(path: Path, folder: Path) -> Counter[str]:
    """Write questions.jsonl, truth.jsonl and, where the file holds them, images/ into `folder`.

    Returns the number of questions by task, and under "" of rows without an answer. InputError names file and
    place.
    """
    skipped = 0
    if path.suffix.casefold() in (".tsv", ".tab"):
        questions, skipped = _vlmevalkit(path, folder)
    elif path.suffix.casefold() == ".jsonl" or _is_pope(path):
        questions = list(_pope(path))
    else:
        questions = list(_mmad(path))
    if not questions:
        raise InputError(f"{path}: no question with an answer in it")
    repeated = [
        name for name, times in Counter(str(question.id) for question in questions).items() if times > 1
    ]
    if repeated:
        raise InputError(f"{path}: question {repeated[0]!r} stands there twice; ids must differ")
    write_jsonl(folder / "questions.jsonl", _to_questions(questions))
    write_jsonl(folder / "truth.jsonl", _to_truths(path, questions))
    return Counter({"": skipped}) + Counter(question.task for question in questions)


def _is_pope(path: Path) -> bool:
    """Return whether the first line is a question by itself (POPE's JSON Lines files are called .json)."""
    try:
        first = json.loads(read_text(path).lstrip().split("\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "question_id" in first


def _mmad(path: Path) -> Iterator[BenchmarkQuestion]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: neither MMAD's JSON (picture -> conversation), POPE's JSONL nor a .tsv")
    for image, entry in content.items():
        conversation = entry.get("conversation") if isinstance(entry, dict) else None
        if not isinstance(conversation, list):
            raise InputError(f"{path}: {image!r} has no list `conversation`")
        parts = image.split("/")
        for number, turn in enumerate(conversation):
            place = f"{path}: {image!r}, question {number}"
            question, options, answer = (
                _require(turn, key, place) for key in ("Question", "Options", "Answer")
            )
            if not isinstance(options, dict) or len(options) < 2 or str(answer) not in options:
                raise InputError(f"{place}: `Answer` {answer!r} is none of its `Options`")
            yield BenchmarkQuestion(
                id=f"{image}#{number}",
                images=[image],
                text=str(question).strip(),
                answer=str(answer),
                task=str(turn.get("type") or path.stem),
                options={str(letter): str(text) for letter, text in options.items()},
                label=parts[1] if len(parts) > 2 else None,  # DATASET/PRODUCT/...
                source=image,
            )


def _pope(path: Path) -> Iterator[BenchmarkQuestion]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            raise InputError(f"{place}: not valid JSON") from None
        label = str(_require(row, "label", place)).strip().casefold()
        if label not in YES_NO:
            raise InputError(f"{place}: `label` is {label!r}, neither yes nor no")
        image, text = str(_require(row, "image", place)), str(_require(row, "text", place))
        yield BenchmarkQuestion(_require(row, "question_id", place), [image], text, label, path.stem)


def _require(row: Any, key: str, place: str) -> Any:
    if not isinstance(row, dict) or row.get(key) in (None, ""):
        raise InputError(f"{place}: no `{key}`")
    return row[key]


# --- VLMEvalKit --------------------------------------------------------------------------------------


def _vlmevalkit(path: Path, folder: Path) -> tuple[list[BenchmarkQuestion], int]:
    """Return the questions, and how many rows have no answer. Images are written as they are read."""
    images: dict[str, list[str]] = {}  # names of the images, by index of the row that holds them
    references: dict[
        str, str
    ] = {}  # index of the row that holds the images, by index of the row that uses them
    questions: list[BenchmarkQuestion] = []
    skipped = 0
    for number, row in enumerate(_rows(path), start=2):
        place = f"{path}, row {number}"
        index = _require(row, "index", place)
        cell = row.get("image") or ""
        if len(cell) > _MAX_REFERENCE:
            images[index] = [_write_image(text, folder, place) for text in _parse_list(cell)]
        elif cell:
            references[index] = cell
        else:
            images[index] = _parse_list(_require(row, "image_path", place))
        if (question := _vlmevalkit_question(row, path, place)) is None:
            skipped += 1
        else:
            questions.append(question)
    for question in questions:
        name = references.get(str(question.id), str(question.id))
        if name not in images:
            raise InputError(
                f"{path}: row {question.id!r} borrows the picture of row {name!r}, which has none"
            )
        question.images = images[name]
    return questions, skipped


def _vlmevalkit_question(row: Mapping[str, str], path: Path, place: str) -> BenchmarkQuestion | None:
    """Return a row's question, its images still to be set; None where it has no answer."""
    answer = (row.get("answer") or "").strip()
    if not answer:
        return None
    options = {letter: text for letter in string.ascii_uppercase if (text := row.get(letter) or "")}
    if options and answer not in options:
        raise InputError(f"{place}: `answer` {answer!r} is none of its options {', '.join(options)}")
    hint = (row.get("hint") or "").strip()
    return BenchmarkQuestion(
        id=row["index"],
        images=[],
        text="\n".join(filter(None, (hint, str(_require(row, "question", place)).strip()))),
        answer=answer,
        task=(row.get("category") or "").strip() or path.stem,
        options=options if len(options) > 1 else {},
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    limit = csv.field_size_limit(sys.maxsize)  # an image is one field
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # strict: a quote that is not closed is an error, and does not swallow the rows after it
            reader = csv.DictReader(file, delimiter="\t", strict=True)
            absent = {"index", "question", "answer"} - set(reader.fieldnames or ())
            if absent:
                raise InputError(f"{path}: no column {min(absent)!r}; VLMEvalKit's TSV has one")
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise InputError(f"{path}, row {number}: not as many cells as there are columns")
                yield row
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: a cell's quotes are not closed or not doubled ({error})") from None
    finally:
        csv.field_size_limit(limit)


def _parse_list(cell: str) -> list[str]:
    """Split a cell that is a list as Python writes it: neither base64 nor a sane file name holds a quote."""
    cell = cell.strip()
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell]
    return [part.strip().strip("'\"") for part in cell[1:-1].split(",")]


def _write_image(text: str, folder: Path, place: str) -> str:
    """Write the image of a base64 text under a name made of its content, and return that."""
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise InputError(f"{place}: `image` is no base64") from None
    try:
        with open_header(BytesIO(content)) as image:
            suffix = _SUFFIXES.get(image.format or "")
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    if suffix is None:
        raise InputError(f"{place}: `image` is a picture of a kind that is not read here")
    name = f"images/{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        file.write_bytes(content)
    return name


# --- question file and truth file --------------------------------------------------------------------


def _to_questions(questions: Sequence[BenchmarkQuestion]) -> Iterator[Question]:
    types = _task_types(questions)
    for question in questions:
        text = question.text
        if question.options:
            text = "\n".join(
                [
                    text,
                    *(f"{letter}. {option}" for letter, option in question.options.items()),
                    LETTER_INSTRUCTION,
                ]
            )
        choices = list(question.options) or (list(YES_NO) if types[question.task] == "yesno" else None)
        yield Question(
            question_id=question.id,
            image=question.images[0] if len(question.images) == 1 else question.images,
            text=text,
            category=question.task,
            choices=choices,
        )


def _to_truths(path: Path, questions: Sequence[BenchmarkQuestion]) -> Iterator[Truth]:
    """Yield the truths; questions of one task have one list of letters, all that any of them has."""
    types = _task_types(questions)
    letters: dict[str, set[str]] = {}
    for question in questions:
        letters.setdefault(question.task, set()).update(question.options)
    for question in questions:
        task_type = types[question.task]
        if task_type == "class" and not question.options:
            raise InputError(
                f"{path}: question {question.id!r} of {question.task!r} has no options, others of it have"
            )
        yield Truth(
            question_id=question.id,
            answer=question.answer,
            task=question.task,
            type=task_type,
            group=" ".join(question.images),
            classes=sorted(letters[question.task]) if task_type == "class" else None,
            label=question.label,
            meta={
                **({"options": list(question.options.values())} if question.options else {}),
                **({"source": question.source} if question.source else {}),
            },
        )


def _task_types(questions: Sequence[BenchmarkQuestion]) -> dict[str, TaskType]:
    """Return the type by task: multiple choice where a question has options, yes/no where all answers are yes
    or no, else free text."""
    types: dict[str, TaskType] = {}
    for task in dict.fromkeys(question.task for question in questions):
        of_task = [question for question in questions if question.task == task]
        if any(question.options for question in of_task):
            types[task] = "class"
        else:
            yes_no = all(question.answer.casefold().strip(" .!") in YES_NO for question in of_task)
            types[task] = "yesno" if yes_no else "text"
    return types


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        "python -m eval.benchmarks",
        __doc__ or "",
        notes=NOTES,
        examples=["MMAD/mmad.json --output runs/mmad"],
    )
    parser.add_argument("file", type=Path, help="mmad.json, a POPE file, or a TSV of VLMEvalKit")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args(argv)
    with atomic_folder(arguments.output) as folder:
        counts = convert(arguments.file, folder)
        has_images = (folder / "images").exists()
    skipped = counts.pop("", 0)
    for task, number in counts.items():
        print(f"{task}: {counted(number, 'question')}")
    if skipped:
        print(f"left out: {counted(skipped, 'row')} without an answer")
    images = arguments.output if has_images else "the benchmark's image folder"
    print(f"{arguments.output}/questions.jsonl, truth.jsonl; pictures: {images}")
    return 0


if __name__ == "__main__":
    run_command(main)
