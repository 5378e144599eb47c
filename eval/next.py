"""Say which photos of a survey to label next: `python -m eval.next --survey OUT --count 50`.

Every finding stands for a group of photos that show the same, of which one is labelled. Findings are taken in
turn from each kind, from the sound photos and from those like nothing that the model knows; of each, those
first that the model is least sure of ("least confidence": Settles, "Active Learning Literature Survey", 2009,
section 3.1). Without the turns one confusing kind would fill the list.
"""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.prelabels.formats import add_format_flags, write_formats
from eval.prelabels.labels import prelabels_of, read_findings
from eval.report.phrases import counted
from eval.survey.findings import Finding
from llava.common.cli import CommandParser
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_path

NOTES = """Taken in turn: of each kind, of the sound photos and of those like nothing in training, the photos
that the model is least sure of; one of a burst. What the model found is drawn in already."""
EXAMPLES = ["--survey runs/survey --count 50", "--survey runs/survey --count 50 --format cvat --output next"]
COLUMNS = ("rank", "photo", "of", "uncertainty", "decision", "kind", "p_yes", "novelty", "photos")
NEVER_SEEN = "never seen"
_NOVEL = 0.05  # as unlike training as this share of the sound calibration photos, at most


@dataclass(frozen=True)
class Candidate:
    """A finding whose photo may be labelled. `of` is what it is taken as: a kind, `sound`, `never seen` or
    `no kind`; `uncertainty` is the model's own probability that its answer is wrong."""

    finding: Finding
    of: str
    uncertainty: float


def choose(findings: Sequence[Finding], count: int) -> list[Candidate]:
    """Return up to `count` findings whose photos to label, the first ones first.

    No two have a photo in common; those that could not be read or answered are passed over.
    """
    candidates = [_candidate(finding) for finding in findings if not finding.problem]
    queues: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=_rank):
        queues.setdefault(candidate.of, []).append(candidate)
    waiting = [iter(queue) for queue in queues.values()]
    chosen: list[Candidate] = []
    taken: set[str] = set()
    while waiting and len(chosen) < count:
        for queue in tuple(waiting):
            first = next((one for one in queue if taken.isdisjoint(one.finding.photos)), None)
            if first is None:
                waiting.remove(queue)
            else:
                chosen.append(first)
                taken.update(first.finding.photos)
    return chosen[:count]


def _candidate(finding: Finding) -> Candidate:
    if finding.reason == NEVER_SEEN or (finding.novelty is not None and finding.novelty <= _NOVEL):
        of = NEVER_SEEN
    else:
        of = "sound" if finding.decision == "sound" else finding.kind or "no kind"
    return Candidate(finding, of, _uncertainty(finding))


def _uncertainty(finding: Finding) -> float:
    """Return the probability that the likeliest answer, no defect or one of this kind, is wrong.

    It is 0.5 where the survey has no probabilities.
    """
    if finding.p_yes is None and finding.kind_probability is None:
        return 0.5
    p_yes = 1.0 if finding.p_yes is None else finding.p_yes
    of_kind = 1.0 if finding.kind_probability is None else finding.kind_probability
    return 1 - max(1 - p_yes, p_yes * of_kind)


def _rank(candidate: Candidate) -> tuple[float, float]:
    """Return the sort key within one queue: of what was never seen, the most unlike first."""
    novelty = candidate.finding.novelty if candidate.of == NEVER_SEEN else None
    return (0.0 if novelty is None else novelty), -candidate.uncertainty


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = CommandParser(
        "python -m eval.next",
        "Choose the photos of a survey whose labels would teach most, and write them for labelling tools.",
        notes=NOTES,
        examples=EXAMPLES,
    )
    parser.add_argument("--survey", type=Path, required=True, help="folder of a survey")
    parser.add_argument("--count", type=int, default=50, help="how many photos (default: 50)")
    add_format_flags(parser)
    parser.add_argument("--output", type=Path, help="folder to write (default: next in the survey's)")
    args = parser.parse_args(argv)
    if args.count < 1:
        raise InputError(f"--count {args.count}: must be 1 or more")
    args.output = args.output or args.survey / "next"
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    file = args.survey / "findings.json"
    findings = read_findings(file)
    chosen = choose(findings.findings, args.count)
    if not chosen:
        raise InputError(f"{file}: no photo could be read and answered, so there is none to label")
    if (table := args.output / "next.csv").exists():
        raise InputError(f"{table} exists already; name another --output or remove it first")
    labels = prelabels_of(findings, args.photos or Path(findings.photos_folder))
    write_formats(
        labels.only(one.finding.photo for one in chosen), args.output, args.format, every_photo=True
    )
    _write_table(table, chosen)
    parts = ", ".join(f"{count} {of}" for of, count in Counter(one.of for one in chosen).items())
    print(f"{table}: {counted(len(chosen), 'photo')} to label: {parts}")
    return 0


def _write_table(path: Path, chosen: Sequence[Candidate]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rank, candidate in enumerate(chosen, start=1):
            one = candidate.finding
            facts = (one.decision, one.kind, one.p_yes, one.novelty, "; ".join(one.photos))
            writer.writerow((rank, one.photo, candidate.of, f"{candidate.uncertainty:.4f}", *facts))


if __name__ == "__main__":
    run_command(main)
