"""Answer a question file: `python -m eval.infer`.

Answers are appended to `ANSWERS.partial` as they are found. When all are there, they are put in the order of
the questions and renamed to the answers file. The same command after a kill goes on where it stopped. For
an answers file at an address this happens in the cache folder, and the answers are sent when all are there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eval.answering.endpoint import Endpoint
from eval.answering.partial import PartialAnswers
from eval.answering.processes import ProcessGroup, join_process_group
from eval.answering.questions import chunk, find_images, read_questions, shard
from llava.common.cli import (
    CommandParser,
    add_cache_flags,
    add_model_flags,
    add_sampling_flags,
    command_name,
)
from llava.common.destination import made_at
from llava.common.errors import InputError
from llava.common.files import sha256, write_jsonl
from llava.common.launch import run_process
from llava.common.photo_cache import use_cache
from llava.common.records import Answer, Question
from llava.common.remote import address_of, file_at, is_file, resolved, send_file, shown

if TYPE_CHECKING:
    from argparse import Namespace

NOTES = """A question:
  {"question_id": 1, "image": "a.jpg", "text": "Is there a defect?", "choices": ["yes", "no"]}
(`image` may be a list or null; `choices`, optional, asks for a probability of each, under metadata).

Files and the folder may be at addresses (s3://bucket/photos, gs://..., extra `cloud`): each picture is
fetched when it is asked about. Answers for an address are collected in --cache-folder, from which a
killed run goes on, and sent when all are there.

A process for each of four GPUs:
  torchrun --nproc-per-node 4 -m eval.infer ...
  accelerate launch --num_processes 4 -m eval.infer ...

--endpoint asks a server (vLLM, SGLang, llama.cpp's, Ollama, ...; a key it wants is taken from
OPENAI_API_KEY), --ray a Ray cluster, or Ray on this machine (--ray local)."""
EXAMPLES = [
    "--model-path playground/tiny-llava --image-folder photos\n"
    "--question-file questions.jsonl --answers-file answers.jsonl",
    "--endpoint http://localhost:8000/v1 --image-folder photos\n"
    "--question-file questions.jsonl --answers-file answers.jsonl",
    "--model-path runs/merged --image-folder s3://bucket/photos\n"
    "--question-file s3://bucket/questions.jsonl --answers-file s3://bucket/answers.jsonl",
    "--ray auto --model-path /shared/merged ...",
]


class AnsweringModel(Protocol):
    """A model that answers questions: loaded here, behind an endpoint or on a cluster."""

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        """Yield an answer for every question, in the order in which they are finished."""


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = CommandParser("python -m eval.infer", "Answer a question file.", notes=NOTES, examples=EXAMPLES)
    parser.add_argument("--image-folder", type=Path, required=True, help="picture names are inside it")
    parser.add_argument("--question-file", type=Path, required=True, help="JSONL, a question a line")
    parser.add_argument("--answers-file", type=Path, required=True, help="JSONL to write")
    parser.add_argument("--num-chunks", type=int, default=1, help="split the questions into so many parts")
    parser.add_argument("--chunk-idx", type=int, default=0, help="which part to answer, from 0")
    add_answering_flags(parser)
    return parser.parse_args(argv)


def add_answering_flags(parser: CommandParser) -> None:
    """Add the flags that say which model answers, where it runs and how answers are drawn."""
    add_model_flags(parser, required=False)
    parser.add_argument("--endpoint", metavar="URL", help="ask this server instead of a model loaded here")
    parser.add_argument("--endpoint-model", metavar="NAME", help="its model (default: the first it lists)")
    parser.add_argument(
        "--concurrency", type=int, default=8, help="questions it is asked at a time (default: 8)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="answer on a Ray cluster: auto, local or ray://HOST:PORT"
    )
    parser.add_argument(
        "--ray-workers", type=int, metavar="N", help="models on it (default: one for each GPU, or else CPU)"
    )
    add_sampling_flags(parser, max_new_tokens=128)
    parser.add_argument("--batch-size", type=int, help="questions at a time (default: what memory allows)")
    parser.add_argument(
        "--novelty",
        type=Path,
        metavar="BANK",
        help="also say how new each photo is, by this file of `novelty` (metadata.novelty)",
    )
    parser.add_argument("--overwrite", action="store_true", help="discard answers that are there already")
    add_cache_flags(parser)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    check_arguments(args)
    questions = read_questions(args.question_file)
    questions = chunk(questions, args.num_chunks, args.chunk_idx)
    images = find_images(questions, args.image_folder)
    partial = answer_questions(args, questions, images)
    return write_answers(questions, partial, args.answers_file, args.cache_folder) if partial else 0


def answer_questions(
    args: Namespace, questions: Sequence[Question], images: Mapping[str, Path]
) -> PartialAnswers | None:
    """Answer what is not answered yet.

    Args:
        args: The flags of eval.infer.
        questions: What to answer.
        images: The path of each image by its name in the questions.

    Returns:
        All the answers, in files that the caller discards when they are written elsewhere; None in all but
        the main process.
    """
    processes = join_process_group(args.device)
    is_main = processes.rank == 0
    server = Endpoint(args) if args.endpoint else None
    run = describe_run(args, server)
    partial = PartialAnswers(made_at(args.answers_file, args.cache_folder), processes.rank)
    if not args.overwrite:
        partial.read(run)
    elif is_main:
        partial.discard()
    missing = [question for question in questions if question.question_id not in partial.answers]
    if partial.answers and is_main:
        print(f"{len(partial.answers)} answers are there already, {len(missing)} to go", file=sys.stderr)
    model = server or load_answering_model(args, processes)
    processes.barrier()  # all have read what is there: now all may append
    with partial.open(run):
        processes.barrier()
        partial.require_files(processes.world_size)
        questions_here = shard(missing, processes.world_size, processes.rank)
        try:
            answer_all(model, questions_here, images, partial, len(missing), processes)
        except KeyboardInterrupt:
            if is_main:
                print(f"answers so far are in {partial.path}; the same command goes on", file=sys.stderr)
            raise
    return partial if is_main else None


def check_arguments(args: Namespace) -> None:
    """Raise InputError for flags that do not go together; takes the cache folder into use."""
    use_cache(args.cache_folder, args.cache_gb)
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError("--batch-size must be at least 1")
    if args.concurrency < 1:
        raise InputError("--concurrency must be at least 1")
    if args.answers_file.is_dir():
        raise InputError(f"--answers-file {args.answers_file} is a folder; name a file")
    if not args.overwrite and is_file(args.answers_file):
        raise InputError(f"{shown(args.answers_file)} exists already; name another file or add --overwrite")
    if (args.endpoint or args.ray) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--endpoint and --ray need no launcher: one process asks them")
    if args.ray and args.device not in (None, "cpu", "cuda"):
        raise InputError(f"--device {args.device}: Ray gives each worker its own; say cuda, cpu or nothing")
    if args.ray_workers is not None and not args.ray:
        raise InputError("--ray-workers is for --ray; add it, or leave this out")
    if args.endpoint_model and not args.endpoint:
        raise InputError("--endpoint-model is for --endpoint; add it, or leave this out")
    if args.novelty:
        _check_novelty_arguments(args)
    if args.endpoint is not None:
        _check_endpoint_arguments(args)
    elif args.model_path is None:
        raise InputError("say which model answers: --model-path, or --endpoint for a server's")


def _check_novelty_arguments(args: Namespace) -> None:
    """Raise InputError for flags with which no photo can be measured here."""
    if args.num_beams != 1:
        raise InputError("--novelty goes with greedy answers or sampling; leave --num-beams out")
    if not args.novelty.is_file():
        raise InputError(
            f"--novelty {args.novelty}: no such file; "
            f"{command_name('novelty', 'python -m eval.novelty')} makes one"
        )


def _check_endpoint_arguments(args: Namespace) -> None:
    """Raise InputError for flags that a server decides, or does not have."""
    loading = (
        "model_path",
        "model_base",
        "conv_mode",
        "device",
        "load_8bit",
        "load_4bit",
        "batch_size",
        "ray",
        "novelty",
    )
    for name in loading:
        if getattr(args, name):
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} is for a model loaded here; with --endpoint the server decides it")
    if args.num_beams != 1:
        raise InputError("--num-beams: servers have no beam search; leave it out with --endpoint")


def load_answering_model(args: Namespace, processes: ProcessGroup) -> AnsweringModel:
    """Load the model here or on the cluster; torch is imported only now that all cheap checks are done."""
    if args.ray:
        from eval.answering.cluster import Cluster

        return Cluster(args)
    from eval.answering.local import LocalModel

    return LocalModel(args, processes.device)


def describe_run(args: Namespace, server: Endpoint | None) -> dict[str, Any]:
    """Return what decides the answers: a run continues a partial file only if all of it is the same."""
    model = (
        [server.url, server.model_id] if server else [args.model_path, _folder_fingerprint(args.model_path)]
    )
    return {
        "model": model,
        "model_base": args.model_base and [str(args.model_base), _folder_fingerprint(args.model_base)],
        "questions": sha256(file_at(args.question_file)),
        "image_folder": shown(resolved(args.image_folder)),
        "chunk": [args.chunk_idx, args.num_chunks],
        "conv_mode": args.conv_mode,
        "quantised": [args.load_8bit, args.load_4bit],
        "novelty": args.novelty and sha256(args.novelty),
        "decoding": [args.temperature, args.top_p, args.num_beams, args.max_new_tokens, args.seed],
    }


def _folder_fingerprint(folder: str) -> str:
    """Return a hash that changes with the model in `folder`: of its files' names, sizes and times.

    Empty for a Hub name. Hashing tens of gigabytes of contents would cost more than the questions.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.is_file())
    files_state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(files_state).encode()).hexdigest()[:16] if files_state else ""


def answer_all(
    model: AnsweringModel,
    questions: Sequence[Question],
    images: Mapping[str, Path],
    partial: PartialAnswers,
    total: int,
    processes: ProcessGroup,
) -> None:
    """Answer this process's questions. The main process shows the progress of all, and waits for them.

    Args:
        model: What answers.
        questions: The questions of this process.
        images: Path of each image by name.
        partial: Where the answers are appended.
        total: Number of questions of all processes together.
        processes: This process among the others.
    """
    columns = (
        TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    is_main = processes.rank == 0
    with Progress(*columns, console=Console(stderr=True), disable=not (total and is_main)) as progress:
        task = progress.add_task("", total=total, rate="")
        before, begin, last_read = len(partial.answers), time.monotonic(), 0.0

        def show() -> None:
            nonlocal last_read
            now = time.monotonic()
            if processes.world_size > 1 and now - last_read > 0.5:
                partial.read_others(processes.world_size)
                last_read = now
            done = len(partial.answers) - before
            rate = f"{done / max(now - begin, 1e-9):.1f} questions/s"
            progress.update(task, completed=done, rate=rate)

        for answer in model.answers(questions, images):
            partial.add(answer)
            if is_main:
                show()
        while is_main and len(partial.answers) - before < total:
            time.sleep(0.2)  # the launcher ends this process if another fails
            show()


def write_answers(questions: Sequence[Question], partial: PartialAnswers, path: Path, cache: Path) -> int:
    """Write the answers in the order of the questions, and report errors and truncated answers.

    Args:
        questions: What was asked.
        partial: The answers.
        path: The answers file.
        cache: The folder in which it is made if it belongs to an address.
    """
    answers = in_order(questions, partial)
    failed = [answer for answer in answers if "error" in answer.metadata]
    made = made_at(path, cache)
    if address_of(path) is None:
        save_answers(answers, partial, made)
    else:
        save_answers(answers, partial, made, lambda: send_file(made, path))
        made.unlink()
    print(f"{len(answers)} answers in {shown(path)}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of them are empty, see metadata.error:", file=sys.stderr)
        for answer in failed[:20]:
            photo = f" ({answer.metadata['source']})" if "source" in answer.metadata else ""
            print(f"  {answer.question_id}{photo}: {answer.metadata['error']}", file=sys.stderr)
        if len(failed) > 20:
            print(f"  and {len(failed) - 20} more", file=sys.stderr)
    report_truncated(answers)
    return 0


def in_order(questions: Sequence[Question], partial: PartialAnswers) -> list[Answer]:
    """Return the answers in the order of the questions; InputError if all of them are errors."""
    answers = [partial.answers[question.question_id] for question in questions]
    if all("error" in answer.metadata for answer in answers):
        partial.discard()
        raise InputError(f"no question could be answered; the first: {answers[0].metadata['error']}")
    return answers


def save_answers(
    answers: Sequence[Answer], partial: PartialAnswers, path: Path, send: Callable[[], None] | None = None
) -> None:
    """Write the answers file, and discard the partial ones when it is on the disk, or sent with `send`."""
    write_jsonl(path, answers)
    with path.open("rb") as file:
        os.fsync(file.fileno())  # before the only other copy goes
    if send is not None:
        send()
    partial.discard()


def report_truncated(answers: Sequence[Answer]) -> None:
    """Print how many answers were cut off."""
    truncated = sum(bool(answer.metadata.get("truncated")) for answer in answers)
    if truncated:
        print(f"{truncated} were cut off by --max-new-tokens (metadata.truncated)", file=sys.stderr)


if __name__ == "__main__":
    run_process(main)
