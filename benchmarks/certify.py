"""Is the bound that a decision promises broken no more often than it says?

    python -m benchmarks.certify
    python -m benchmarks.certify --answers-file a.jsonl --truth-file t.jsonl

Without files it draws calibrations from simulated populations whose true miss rate is known exactly: 40,000
groups of 1 to 8 pictures whose scores depend on each other, with and without overlap, with coarse
probabilities, and with a rare kind that looks sound. With files it takes the answers about many photos for
the population and draws calibration pictures from these, whole groups at a time. Groups are drawn with
replacement, so that the population's rate is the true one. A promise at 95% may be broken in 5% of the
calibrations; the command fails if the interval of the broken share lies above that.
"""

from __future__ import annotations

import argparse
import math
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from eval.deciding.answered import AnsweredTask, answered_task, yes_no_task
from eval.deciding.bounds import exact_interval
from eval.deciding.certificate import Promise, certify
from eval.deciding.thresholds import lowest_of_groups
from eval.scoring.answers import read_answers, read_truth
from llava.deciding.calls import SCALE, Thresholds, steps

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Population:
    """Holds groups of pictures: P(yes) and whether there is a defect, of each picture of each group."""

    name: str
    p_yes: Sequence[FloatArray]
    defective: Sequence[BoolArray]

    def draw(self, groups: Sequence[int]) -> AnsweredTask:
        """Return the pictures of these groups; a group that is drawn twice is two."""
        sizes = [len(self.p_yes[group]) for group in groups]
        p_yes = np.concatenate([self.p_yes[group] for group in groups]).tolist()
        return AnsweredTask(
            p_yes=[None if math.isnan(value) else value for value in p_yes],
            defective=np.concatenate([self.defective[group] for group in groups]).tolist(),
            groups=np.repeat(np.arange(len(sizes)), sizes).astype(str).tolist(),
            wordings=[""] * sum(sizes),
        )


@dataclass(frozen=True)
class Scores:
    """A distribution of scores (logits of P(yes)): their means, and how far groups and pictures scatter.
    `decimals`: P(yes) is rounded to so many. `hidden`: this share of the groups with a defect looks sound."""

    name: str
    sound: float
    defective: float
    of_groups: float = 1.0
    of_pictures: float = 1.0
    decimals: int = 6
    hidden: float = 0.0

    def population(self, groups: int, generator: np.random.Generator) -> Population:
        """Draw groups of 1 to 8 pictures; half of them hold a defect, in one picture or more."""
        p_yes, defective = [], []
        for group in range(groups):
            size = int(generator.integers(1, 9))
            shows = np.zeros(size, dtype=bool)
            if group % 2:
                shows = generator.random(size) < 0.5
                shows[generator.integers(size)] = True
            looks = shows & (generator.random() >= self.hidden)
            logit = np.where(looks, self.defective, self.sound) + self.of_groups * generator.normal()
            logit += self.of_pictures * generator.normal(size=size)
            p_yes.append(np.round(1 / (1 + np.exp(-logit)), self.decimals))
            defective.append(shows)
        return Population(self.name, p_yes, defective)


SIMULATED = (
    Scores("well apart", -4, 4),
    Scores("overlapping", -1, 1.5),
    Scores("groups alike", -2, 2, of_groups=2, of_pictures=0.2),
    Scores("two decimals", -2, 2, decimals=2),
    Scores("6% look sound", -4, 4, hidden=0.06),
)
SIMULATED_GROUPS = 40_000


class Truth:
    """What is true of a population at any thresholds."""

    def __init__(self, population: Population) -> None:
        whole = population.draw(range(len(population.p_yes)))
        self._misses = lowest_of_groups(whole, defective=True)
        self._alarms = lowest_of_groups(whole, defective=False)
        self._sound = sorted(
            steps(p_yes) for p_yes, shows in zip(whole.p_yes, whole.defective, strict=True) if not shows
        )

    def missed(self, thresholds: Thresholds) -> float:
        """Return the share of the groups with a defect that have one called sound."""
        return bisect_left(self._misses, thresholds.sound_below or 0) / len(self._misses)

    def false_alarms(self, thresholds: Thresholds) -> float:
        """Return the share of the groups with a sound picture that have one called a defect."""
        start = SCALE + 1 if thresholds.defect_from is None else thresholds.defect_from
        return bisect_left(self._alarms, SCALE + 1 - start) / len(self._alarms)

    def cleared(self, thresholds: Thresholds) -> float:
        """Return the share of the sound pictures that are called sound."""
        return bisect_left(self._sound, thresholds.sound_below or 0) / len(self._sound)


@dataclass
class Tally:
    """Counts what became of the calibrations. `broken`: more is missed than was promised; `both_broken`: a
    promise on misses and false alarms, made together, is broken in either."""

    name: str
    calibrations: int = 0
    certified: int = 0
    broken: int = 0
    both_broken: int = 0
    missed: float = 0.0
    cleared: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        sums = {key: value + getattr(other, key) for key, value in vars(self).items() if key != "name"}
        return Tally(self.name, **sums)

    def cells(self) -> list[str]:
        shares = (self.certified, self.missed, self.cleared)
        certified, missed, cleared = (f"{value / self.calibrations:.1%}" for value in shares)
        broken, both = (self._interval(number) for number in (self.broken, self.both_broken))
        return [self.name, f"{self.calibrations:,}", certified, broken, both, missed, cleared]

    def _interval(self, broken: int) -> str:
        low, high = exact_interval(broken, self.calibrations)
        return f"{broken / self.calibrations:.1%} [{low:.1%}, {high:.1%}]"


def redraw(
    population: Population, sizes: Sequence[int], draws: int, miss: float, false_alarm: float, seed: int
) -> Tally:
    """Draw calibrations from a population, and see what becomes of the promises.

    Args:
        population: What is drawn from.
        sizes: The numbers of groups of the calibrations, in turn.
        draws: How many calibrations.
        miss: The share that is promised at most to be missed.
        false_alarm: What is promised of false alarms, in a second decision on the same pictures.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    truth, tally = Truth(population), Tally(population.name)
    for number in range(draws):
        groups = generator.integers(len(population.p_yes), size=sizes[number % len(sizes)]).tolist()
        answered = population.draw(groups)
        one = certify(answered, Promise(miss))
        both = certify(answered, Promise(miss, false_alarm=false_alarm)).thresholds
        missed = truth.missed(one.thresholds)
        tally += Tally(
            population.name,
            calibrations=1,
            certified=one.certified,
            broken=missed > miss,
            both_broken=truth.missed(both) > miss or truth.false_alarms(both) > false_alarm,
            missed=missed,
            cleared=truth.cleared(one.thresholds),
        )
    return tally


def read_population(answers_file: Path, truth_file: Path, task: str, sizes: bool, seed: int) -> Population:
    """Return the answers to a task as a population. With `sizes`, groups of one photo are joined at random to
    groups of 1 to 8, as photos of one pole would be."""
    _, truths = read_truth(truth_file)
    truths = yes_no_task(task, truths, str(truth_file))
    answers = read_answers(answers_file, "tuned", truths, truth_file)
    answered = answered_task(task, truths, answers, str(answers_file))
    members: dict[str, list[int]] = {}
    for index, group in enumerate(answered.groups):
        members.setdefault(group, []).append(index)
    groups = list(members.values())
    if sizes:
        generator = np.random.default_rng(seed)
        order = iter(generator.permutation(len(groups)).tolist())
        joined = []
        while taken := list(islice(order, int(generator.integers(1, 9)))):
            joined.append([index for group in taken for index in groups[group]])
        groups = joined
    p_yes = np.array([np.nan if value is None else value for value in answered.p_yes])
    defective = np.array(answered.defective)
    name = f"{len(answered.groups):,} answers in {len(groups):,} groups" + (" of 1 to 8" if sizes else "")
    return Population(name, [p_yes[group] for group in groups], [defective[group] for group in groups])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--answers-file", type=Path, help="answers about many photos")
    parser.add_argument("--truth-file", type=Path, help="their truth")
    parser.add_argument("--task", default="presence")
    parser.add_argument("--calibrations", type=int, default=200, help="of each population (default: 200)")
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[150, 300, 600], help="of a calibration, in turn"
    )
    parser.add_argument("--miss", type=float, default=0.05)
    parser.add_argument("--false-alarm", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.answers_file:
        populations = [
            read_population(args.answers_file, args.truth_file, args.task, sizes, args.seed)
            for sizes in (False, True)
        ]
    else:
        generator = np.random.default_rng(args.seed)
        populations = [scores.population(SIMULATED_GROUPS, generator) for scores in SIMULATED]
    tallies = [
        redraw(population, args.groups, args.calibrations, args.miss, args.false_alarm, args.seed + number)
        for number, population in enumerate(populations, start=1)
    ]
    overall = sum(tallies[1:], tallies[0])
    overall.name = "all"
    print_tallies([*tallies, overall] if len(tallies) > 1 else tallies, args.miss)
    lows = [
        exact_interval(broken, overall.calibrations)[0] for broken in (overall.broken, overall.both_broken)
    ]
    return int(max(lows) > 0.05)


def print_tallies(tallies: Sequence[Tally], miss: float) -> None:
    table = Table(box=MARKDOWN)
    for head in (
        "population", "calibrations", "certified", f"over {miss:.0%} missed [95%]",
        "misses or false alarms over [95%]", "missed, mean", "sound called sound, mean",
    ):  # fmt: skip
        table.add_column(head, justify="left" if head == "population" else "right", no_wrap=True)
    for tally in tallies:
        table.add_row(*tally.cells())
    Console(width=200, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
