"""Schema of scores.json, and `Case`, one question with its answers, for the report.

Absent values are left out. docs/scoring.md says what each number is.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from llava.common.records import Calls, InputFile, TaskType


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Estimate(_Part):
    """A value and its 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None


class ClassScore(_Part):
    """One class of a closed list: how often it is true (`support`), and how often it was answered."""

    name: str
    support: int
    answered: int
    recall: Estimate | None = None
    precision: float | None = None
    f1: float | None = None


class RocCurve(_Part):
    """The ROC curve of class `name` against the rest; `points` are (false positive rate, true positive rate)
    for falling thresholds, from (0, 0) to (1, 1)."""

    name: str
    auroc: float
    points: list[tuple[float, float]]


class ReliabilityBin(_Part):
    """The questions whose probability lies in [low, high): its mean, and the fraction that came true."""

    low: float
    high: float
    n: int
    probability: float
    true: float


class Threshold(_Part):
    """Where to call "yes" so that at most `miss_rate` of the true "yes" are missed: the highest such
    probability of yes.

    `miss` and `over_call` are what it does on the very questions it was chosen from, which flatters it. The
    cross-fitted ones score each of `folds` parts of the image groups by the threshold that the others choose,
    and are what to expect on new images; absent where too few groups hold a yes or a no.
    """

    miss_rate: float
    threshold: float
    miss: float
    over_call: float
    folds: int = 0
    cross_miss: Estimate | None = None
    cross_over_call: Estimate | None = None

    @property
    def separates(self) -> bool:
        """Whether more of the true "yes" than of the true "no" are called yes, here and cross-fitted: a
        threshold that calls everything yes misses nothing, and is none."""
        rates = [(self.miss, self.over_call)]
        if self.cross_miss and self.cross_over_call:
            rates.append((self.cross_miss.value, self.cross_over_call.value))
        return all(1 - miss > over_call for miss, over_call in rates)


class ChoiceScore(_Part):
    """Metrics of the choices' probabilities, on the `n` questions that have them (`without` have
    none).

    `metrics`: auroc, average_precision, ece, brier, as far as they exist. `reliability` is of P(yes) in
    yes/no tasks, of the probability of the likeliest choice in others. `roc`: one curve for yes, or one per
    class that is both true and untrue somewhere. `threshold`: yes/no alone.
    """

    n: int
    without: int
    metrics: dict[str, Estimate]
    roc: list[RocCurve]
    reliability: list[ReliabilityBin]
    threshold: Threshold | None = None


class SystemScore(_Part):
    """What one answers file scores on one task.

    `missing` questions have no answer; `unreadable` ones were answered with an error, because their
    image could not be read; `unparsed` counts those and every answer that could not be understood.
    `confusion`: a row per true class, a column per answered class, and a last column of the unparsed.
    """

    missing: int
    unreadable: int
    unparsed: int
    metrics: dict[str, Estimate]
    per_class: list[ClassScore] | None = None
    confusion: list[list[int]] | None = None
    choices: ChoiceScore | None = None


class Slice(_Part):
    """Scores of some of the questions.

    By `truth`: those with one true `answer` about images or objects that show one `label`; `tuned` and
    `base` are the fractions answered rightly, with Wilson's intervals (groups for trials). By `size` of the
    box, `source` folder or `language`, or `all`: those that `name` says; `tuned` and `base` are means of
    `CaseAnswer.value`, and `difference` (tuned - base) is paired; intervals are bootstrapped.
    """

    by: Literal["truth", "size", "source", "language", "all"] = "truth"
    name: str
    answer: str | None = None
    label: str | None = None
    n: int
    groups: int
    tuned: Estimate
    base: Estimate | None = None
    difference: Estimate | None = None


ComparisonOutcome = Literal["better", "worse", "same", "undecided", "blind", "alone"]


class TaskScore(_Part):
    """Scores of one task.

    `majority` and `random` are what blind guessing earns, and `blind` what guessing from the questions' words
    and boxes does (the truths' meta `blind`; empty where they have none). `difference` is tuned minus base,
    paired on the same resamples; `verdict` says in words what it means for the `headline` metric, `outcome`
    in one word (`blind`: above base, but not shown to be above blind guessing, so no verdict against base;
    `alone`: there is no base). `needed_groups`: how many groups, roughly, would decide a difference of this
    size. `sees`: whether the whole interval of tuned is above blind guessing (True), not above it at all
    (False) or neither (absent).

    `choices_difference` is tuned minus base of `ChoiceScore.metrics`, on the questions where both have them.
    `ceiling` (boxes): what the true box itself scores when it is written with the decimals of the truth.
    `about`: what all questions ask for (the truth's meta `about`, such as "defect"), where it is one thing.
    """

    task: str
    type: TaskType
    n: int
    groups: int
    small: bool
    headline: str
    classes: list[str] | None = None
    tuned: SystemScore
    base: SystemScore | None = None
    majority: dict[str, float]
    random: dict[str, float]
    blind: dict[str, float] = Field(default_factory=dict)
    difference: dict[str, Estimate] | None = None
    choices_difference: dict[str, Estimate] | None = None
    ceiling: dict[str, float] | None = None
    verdict: str
    outcome: ComparisonOutcome
    needed_groups: int | None = None
    sees: bool | None = None
    about: str | None = None
    slices: list[Slice]

    @property
    def best_guess(self) -> float:
        """What the best guess without looking scores in the headline metric."""
        return max(guess.get(self.headline, 0.0) for guess in (self.majority, self.random, self.blind))


class Probe(_Part):
    """Scores on general questions that have nothing to do with the tuning: what it cost. `whole` is the
    fraction of right answers to all of them."""

    truth: InputFile
    answers: InputFile
    baseline_answers: InputFile | None = None
    whole: Slice
    outcome: ComparisonOutcome
    verdict: str
    tasks: list[TaskScore]


class Bootstrap(_Part):
    resamples: int
    seed: int
    unit: Literal["group"] = "group"
    level: float = 0.95


class DecisionScore(_Part):
    """What a certified decision (decision.json) does on the answers to its task.

    `missed` is the share of the groups with a defect of which a picture is called sound, `false_alarms` that
    of the groups with a sound picture of which such a one is called a defect (exact intervals, groups for
    trials); `to_person` is the share of all answers that a person is asked about (Wilson's, groups for
    trials). `defective` and `sound` are the calls of what is truly so. `own_pictures`: these are the pictures
    that the decision was made with, which flatters it.
    """

    task: str
    guarantee: str
    certified: bool
    miss: float
    missed: Estimate | None = None
    false_alarms: Estimate | None = None
    to_person: Estimate
    defective: Calls
    sound: Calls
    own_pictures: bool


class Scores(_Part):
    format: Literal["llava-inspect scores"] = "llava-inspect scores"
    version: Literal[2] = 2
    truth: InputFile
    answers: InputFile
    baseline_answers: InputFile | None = None
    bootstrap: Bootstrap
    verdict: str
    warnings: list[str]
    tasks: list[TaskScore]
    slices: list[Slice]
    probe: Probe | None = None
    decision: DecisionScore | None = None


# --- one question, for the report -------------------------------------------------------------------


Corners = tuple[float, float, float, float]


class CaseAnswer(_Part):
    """One answer to the question of a case.

    `text` is None where the answer is missing. `value`, 0..1, says how good it is: 1 or 0 where an answer is
    right or wrong, IoU of a box, word F1 of a text, fraction of right fields of a report. `choices` are the
    probabilities; `box` is as in `Case`; `error`: why the image could not be read.
    """

    text: str | None
    parsed: bool
    right: bool
    value: float
    choices: dict[str, float] | None = None
    box: Corners | None = None
    error: str | None = None


class Case(_Part):
    """One question. Boxes are x1, y1, x2, y2 as fractions (0..1) of the image itself, in whichever frame they
    were written; `asked_box` is one that the question names. `slices` maps `by` of a Slice (size,
    source, language) to the name of the one that the question is in. `names` are the photos' own, one for
    each of `images`."""

    question_id: str
    task: str
    type: TaskType
    group: str
    label: str | None
    images: list[str]
    names: list[str]
    question: str
    truth: str
    tuned: CaseAnswer
    base: CaseAnswer | None = None
    truth_box: Corners | None = None
    asked_box: Corners | None = None
    slices: dict[str, str] = Field(default_factory=dict)
