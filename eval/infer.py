"""Answer a question file: `python -m eval.infer`.

Answers are appended to `ANSWERS.partial` batch by batch and reach the disk before the next batch begins; its
first line says which run they belong to. When all are there, they are put in the order of the questions and
renamed to the answers file. The same command after a kill goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llava.errors import InputError, run_command
from llava.files import first_problem, inside, read_jsonl, sha256, to_json, write_jsonl
from llava.flags import FlagParser, add_decoding_flags, add_model_flags
from llava.records import Answer, Question

if TYPE_CHECKING:
    from argparse import Namespace

    from llava.engine import Engine, Result
    from llava.vision import Pixels

EPILOG = """example:
  python -m eval.infer --model-path playground/tiny-llava --image-folder photos \\
      --question-file questions.jsonl --answers-file answers.jsonl

A question: {"question_id": 1, "image": "a.jpg", "text": "Is there a defect?", "choices": ["yes", "no"]}
(`image` may be a list or null; `choices`, optional, asks for a probability of each, under metadata).

Exit code 0 also if some pictures could not be read: those answers are empty, with metadata.error, and are
listed at the end; 2 if none could. After an interrupt the same command goes on; --overwrite starts afresh.
"""

QuestionId = str | int


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = FlagParser(prog="python -m eval.infer", description=__doc__, epilog=EPILOG)
    add_model_flags(parser)
    parser.add_argument("--image-folder", type=Path, required=True, help="picture names are inside it")
    parser.add_argument("--question-file", type=Path, required=True, help="JSONL, a question a line")
    parser.add_argument("--answers-file", type=Path, required=True, help="JSONL to write")
    parser.add_argument("--num-chunks", type=int, default=1, help="split the questions into so many parts")
    parser.add_argument("--chunk-idx", type=int, default=0, help="which part to answer, from 0")
    add_decoding_flags(parser, max_new_tokens=128)
    parser.add_argument("--batch-size", type=int, default=16, help="questions at a time (default: 16)")
    parser.add_argument("--overwrite", action="store_true", help="discard answers that are there already")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    questions = read_questions(args.question_file)
    questions = chunk(questions, args.num_chunks, args.chunk_idx)
    pictures = find_pictures(questions, args.image_folder)
    if args.batch_size < 1:
        raise InputError("--batch-size must be at least 1")
    if args.answers_file.exists() and not args.overwrite:
        raise InputError(f"{args.answers_file} exists already; name another file or add --overwrite")

    # torch is imported, and the model loaded, once everything cheap has been checked
    from llava.engine import Engine
    from llava.model.builder import load_model

    loaded = load_model(
        args.model_path, args.model_base, device=args.device, load_8bit=args.load_8bit,
        load_4bit=args.load_4bit, conv_mode=args.conv_mode,
    )  # fmt: skip
    header = describe_run(args, loaded.template.name)
    with closing(Partial(args.answers_file, header, args.overwrite)) as partial:
        missing = [question for question in questions if question.question_id not in partial.answers]
        if partial.answers:
            print(f"{len(partial.answers)} answers are there already, {len(missing)} to go", file=sys.stderr)
        try:
            answer_all(Engine(loaded), loaded.model_id, missing, pictures, partial, args)
        except KeyboardInterrupt:
            print(f"answers so far are in {partial.path}; the same command goes on", file=sys.stderr)
            raise
        return conclude(questions, partial, args.answers_file)


def read_questions(path: Path) -> list[Question]:
    """The questions of a file; InputError for a bad line, none at all, or an id that comes twice."""
    questions = read_jsonl(path, Question)
    if not questions:
        raise InputError(f"{path} holds no question")
    seen: set[QuestionId] = set()
    for question in questions:
        if question.question_id in seen:
            raise InputError(f"{path}: question_id {question.question_id!r} comes twice; ids must differ")
        seen.add(question.question_id)
    return questions


def chunk(questions: list[Question], parts: int, index: int) -> list[Question]:
    """Part `index` of `parts` nearly equal runs of questions (LLaVA's --num-chunks, --chunk-idx)."""
    if parts < 1 or not 0 <= index < parts:
        raise InputError(f"--chunk-idx {index} is not one of the {parts} chunks, counted from 0")
    size = -(-len(questions) // parts)
    part = questions[index * size : (index + 1) * size]
    if not part:
        raise InputError(f"chunk {index} of {parts} is empty: there are only {len(questions)} questions")
    return part


def find_pictures(questions: Sequence[Question], folder: Path) -> dict[str, Path]:
    """Name -> path of every picture asked about; InputError if a name leaves `folder` or none is there."""
    names = {name for question in questions for name in question.images}
    if names and not folder.is_dir():
        raise InputError(f"{folder}: no such image folder")
    pictures = {name: inside(folder, name) for name in names}
    if pictures and not any(path.is_file() for path in pictures.values()):
        raise InputError(f"none of the {len(pictures)} pictures, such as {min(pictures)}, is in {folder}")
    return pictures


def describe_run(args: Namespace, conv_mode: str) -> dict[str, Any]:
    """What decides the answers: a partial file is continued only by a run that is the same in all of it."""
    return {
        "model": [str(args.model_path), _folder_state(args.model_path)],
        "model_base": args.model_base and [str(args.model_base), _folder_state(args.model_base)],
        "questions": sha256(args.question_file),
        "image_folder": str(args.image_folder.resolve()),
        "chunk": [args.chunk_idx, args.num_chunks],
        "conv_mode": conv_mode,
        "quantised": [args.load_8bit, args.load_4bit],
        "decoding": [args.temperature, args.top_p, args.num_beams, args.max_new_tokens, args.seed],
    }


def _folder_state(folder: str) -> str:
    """Changes when the model in `folder` does: names, sizes and times of its files (empty for a Hub name).
    Reading tens of gigabytes to hash them would cost more than the questions."""
    files = sorted(path for path in Path(folder).glob("*") if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16] if facts else ""


class Partial:
    """The answers so far, in a file beside the final one: a header line, then an answer a line."""

    def __init__(self, answers_file: Path, header: dict[str, Any], overwrite: bool) -> None:
        self.path = answers_file.with_name(answers_file.name + ".partial")
        self.answers: dict[QuestionId, Answer] = {}
        if self.path.exists() and not overwrite:
            self._read(header)
        if not self.answers:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self.path.open("wb")
            self._write(to_json({"run": header}) + "\n")
        else:
            self._file = self.path.open("ab")

    def _read(self, header: dict[str, Any]) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a kill in the middle of a write tears the last line
        if whole.count(b"\n") < 2 and content.startswith(b'{"run"'):
            return  # a run that did not get as far as an answer
        lines = whole.decode("utf-8", errors="replace").split("\n")  # splitlines would split at U+2028 too
        remedy = "use --overwrite to discard it, or another --answers-file"
        try:
            found = json.loads(lines[0])["run"]
            theirs = {key: found.get(key) for key in header}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{self.path} is not a partial answers file; {remedy}") from None
        if theirs != header:
            differing = ", ".join(key for key in header if theirs[key] != header[key])
            raise InputError(f"{self.path} holds answers of another run (other {differing}); {remedy}")
        for number, line in enumerate(lines[1:-1], start=2):
            try:
                answer = Answer.model_validate_json(line)
            except ValidationError as error:
                raise InputError(f"{self.path}, line {number}: {first_problem(error)}; {remedy}") from None
            self.answers[answer.question_id] = answer
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    def add(self, answers: Sequence[Answer]) -> None:
        """Append answers; on return they are on the disk."""
        self._write("".join(to_json(answer) + "\n" for answer in answers))
        self.answers.update((answer.question_id, answer) for answer in answers)

    def _write(self, text: str) -> None:
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def answer_all(
    engine: Engine,
    model_id: str,
    questions: Sequence[Question],
    pictures: dict[str, Path],
    partial: Partial,
    args: Namespace,
) -> None:
    """Answer `questions` batch by batch, those about one picture together, into `partial`."""
    from llava.engine import Request

    columns = (
        TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), disable=not questions) as progress:
        task = progress.add_task("", total=len(questions), rate="")
        begin = time.monotonic()
        for batch, seen in _batches(engine, questions, pictures, args.batch_size):
            unreadable: dict[QuestionId, str] = {}
            requests = []
            for q in batch:
                shown = _pictures_of(q, seen)
                if isinstance(shown, InputError):
                    unreadable[q.question_id] = str(shown)
                else:
                    requests.append(Request(q.question_id, q.text, shown, q.choices))
            results = engine.answer(
                requests,
                batch_size=args.batch_size,
                max_new_tokens=args.max_new_tokens,
                temperature=args.temperature,
                top_p=args.top_p,
                num_beams=args.num_beams,
                seed=args.seed,
            )
            found = {result.question_id: result for result in results}
            partial.add(
                [_answer(q, model_id, found.get(q.question_id), unreadable.get(q.question_id)) for q in batch]
            )
            done = progress.tasks[task].completed + len(batch)
            rate = f"{done / max(time.monotonic() - begin, 1e-9):.1f} questions/s"
            progress.update(task, completed=done, rate=rate)


Seen = dict[tuple[str, bool], "Pixels | InputError"]
"""Pictures by name and whether they are alone in their question (OneVision reads them otherwise)."""


def _batches(
    engine: Engine, questions: Sequence[Question], pictures: dict[str, Path], size: int
) -> Iterator[tuple[list[Question], Seen]]:
    """Batches of questions, one picture's together, with their pictures; the next batch's are read in
    other threads while this one is answered, and no more than two batches' are held."""
    from llava.pictures import open_picture

    def read(name: str, alone: bool) -> Pixels | InputError:
        try:
            return engine.processor.pixels(open_picture(pictures[name]), alone=alone)
        except InputError as error:
            return error

    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(tuple(question.images), []).append(question)
    ordered = [question for group in groups.values() for question in group]
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:

        def begin(batch: list[Question]) -> dict[tuple[str, bool], Future[Pixels | InputError]]:
            wanted = {(name, len(q.images) == 1) for q in batch for name in q.images}
            return {picture: pool.submit(read, *picture) for picture in sorted(wanted)}

        ahead = begin(batches[0]) if batches else {}
        for index, batch in enumerate(batches):
            reading = ahead
            ahead = begin(batches[index + 1]) if index + 1 < len(batches) else {}
            yield batch, {picture: future.result() for picture, future in reading.items()}


def _pictures_of(question: Question, seen: Seen) -> list[Pixels] | InputError:
    """Its pictures, or what is wrong with the first that cannot be read."""
    shown = []
    for name in question.images:
        picture = seen[name, len(question.images) == 1]
        if isinstance(picture, InputError):
            return picture
        shown.append(picture)
    return shown


def _answer(question: Question, model_id: str, result: Result | None, unreadable: str | None) -> Answer:
    metadata: dict[str, Any] = {}
    error = unreadable if result is None else result.error
    if error is not None:
        metadata["error"] = error
    if result is not None and result.choices is not None:
        metadata["choices"] = {choice: round(chance, 6) for choice, chance in result.choices.items()}
    if result is not None and result.truncated:
        metadata["truncated"] = True
    text = "" if result is None else result.text
    facts = json.dumps([model_id, question.question_id, question.text, text])
    return Answer(
        question_id=question.question_id,
        prompt=question.text,
        text=text,
        answer_id=hashlib.sha256(facts.encode()).hexdigest()[:16],
        model_id=model_id,
        metadata=metadata,
    )


def conclude(questions: Sequence[Question], partial: Partial, path: Path) -> int:
    """Write the answers in the order of the questions and say how it went."""
    answers = [partial.answers[question.question_id] for question in questions]
    failed = [answer for answer in answers if "error" in answer.metadata]
    if len(failed) == len(answers):
        partial.path.unlink()
        raise InputError(f"no question could be answered; the first: {failed[0].metadata['error']}")
    write_jsonl(path, answers)
    partial.path.unlink()
    print(f"{len(answers)} answers in {path}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of them are empty, see metadata.error:", file=sys.stderr)
        for answer in failed[:20]:
            print(f"  {answer.question_id}: {answer.metadata['error']}", file=sys.stderr)
        if len(failed) > 20:
            print(f"  and {len(failed) - 20} more", file=sys.stderr)
    cut = sum(bool(answer.metadata.get("truncated")) for answer in answers)
    if cut:
        print(f"{cut} were cut off by --max-new-tokens (metadata.truncated)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_command(main)
