"""What the answers about a photo, or about a tile of it, say is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from eval.predict import AskedQuestion
from eval.scoring.parse import parse_class, parse_count, same_text
from eval.survey.findings import NoveltyMap, Reason
from llava.common.boxes import Box, parse_box
from llava.common.records import Call
from llava.novelty.pvalue import NEVER_SEEN

DEFECT = "defect"  # what a question about any defect is about
_ALSO = 0.2  # a further kind's probability among the kinds, at least


class DecisionRule(Protocol):
    """Says what a probability of yes means. `certified` is its guarantee in words, None without one."""

    @property
    def certified(self) -> str | None: ...

    def decide(self, p_yes: float) -> Call:
        """Return the decision for a photo with this probability of a defect."""


class Likelier:
    """Decides by which answer is likelier; nothing is certified by that."""

    certified = None

    def decide(self, p_yes: float) -> Call:
        return "defect" if p_yes >= 0.5 else "sound"


@dataclass(frozen=True)
class Part:
    """What questions are asked about: a photo, or a tile of it.

    `name` is its own, `photo` the photo's name below the survey's folder, `path` the file to open, and `crop`
    the tile in pixels of the upright photo.
    """

    name: str
    photo: str
    path: Path
    crop: Box | None = None


@dataclass(frozen=True)
class Wordings:
    """What a recipe's answers mean: the name of each kind of defect by its word, and the answer where what is
    asked for is absent."""

    kinds: Mapping[str, str]
    absent: str


@dataclass(frozen=True)
class Sighting:
    """What was answered about one thing in one part; the fields are those of `Finding`.

    `tile` is where the part is, in 0..1 of the photo.
    """

    tile: Box
    about: str
    decision: Call
    reason: Reason | None = None
    p_yes: float | None = None
    kind: str | None = None
    kind_probability: float | None = None
    box: Box | None = None
    place: str | None = None
    count: int | None = None
    report: str | None = None
    novelty: float | None = None
    novelty_maps: tuple[NoveltyMap, ...] = ()
    problem: str | None = None

    @property
    def region(self) -> Box:
        """Where it is, as far as that is known."""
        return self.box or self.tile


def read_answers(
    part: Part,
    size: tuple[int, int],
    rows: Sequence[AskedQuestion],
    words: Wordings,
    rule: DecisionRule,
    parts: int = 1,
) -> list[Sighting]:
    """Return what the answers say: first of any defect, then of each further kind that they say is there.

    Args:
        part: What was asked about.
        size: The (width, height) of its photo.
        rows: All questions about the part, with their answers.
        words: What the answers mean.
        rule: Turns the probability of a defect into a decision.
        parts: How many parts of the photo are asked about: so much more likely is one of them to be unusual
            (Bonferroni).
    """
    answers = _Answers(part, size, rows, words)
    if answers.error:
        return [Sighting(answers.tile, DEFECT, "ask", "no answer", problem=answers.error)]
    p_yes, says = answers.presence()
    decision, reason = _decide(p_yes, says, rule)
    novelty = answers.novelty(parts)
    maps: tuple[NoveltyMap, ...] = ()
    if novelty is not None and novelty <= NEVER_SEEN:
        decision, reason, maps = "ask", "never seen", answers.novelty_maps()
    seen = Sighting(
        answers.tile, DEFECT, decision, reason, p_yes,
        count=answers.count(), report=answers.report(), novelty=novelty, novelty_maps=maps,
    )  # fmt: skip
    if decision == "sound":
        return [seen]
    kinds = answers.kinds()
    kind = max(kinds, key=lambda name: kinds[name] or 0.0, default=None)
    box, place = answers.where(kind)
    main = replace(seen, kind=kind, kind_probability=kinds[kind] if kind else None, box=box, place=place)
    further = [
        Sighting(answers.tile, name, decision, reason, row.p_yes, name, kinds.get(name), *answers.where(name))
        for name, row in answers.kinds_asked_for().items()
        if name != kind and row.says == "yes" and not _unlikely(kinds.get(name))
    ]
    return [main, *further]


def _unlikely(probability: float | None) -> bool:
    return probability is not None and probability < _ALSO


def _decide(p_yes: float | None, says: str | None, rule: DecisionRule) -> tuple[Call, Reason | None]:
    """Decide. A guarantee holds for probabilities: without one, a certified rule leaves it to a person."""
    if p_yes is not None:
        decision = rule.decide(p_yes)
        return decision, "uncertain" if decision == "ask" else None
    if says is None or rule.certified:
        return "ask", "no answer"
    return ("defect" if says == "yes" else "sound"), None


@dataclass(frozen=True)
class _Answers:
    """All answers about one part."""

    part: Part
    size: tuple[int, int]
    rows: Sequence[AskedQuestion]
    words: Wordings

    @property
    def crop(self) -> Box:
        width, height = self.size
        return self.part.crop or (0.0, 0.0, float(width), float(height))

    @property
    def tile(self) -> Box:
        width, height = self.size
        x1, y1, x2, y2 = self.crop
        return x1 / width, y1 / height, x2 / width, y2 / height

    @property
    def error(self) -> str:
        return next((row.error for row in self.rows if row.error), "")

    def _of(self, family: str, about: str = DEFECT) -> AskedQuestion | None:
        return next(
            (row for row in self.rows if (row.asked.family, row.asked.about) == (family, about)), None
        )

    def kinds_asked_for(self) -> dict[str, AskedQuestion]:
        """Return the question whether there is each kind, by kind."""
        found = {kind: self._of("presence", kind) for kind in self.words.kinds.values()}
        return {kind: row for kind, row in found.items() if row is not None}

    def presence(self) -> tuple[float | None, str | None]:
        """Return the probability that there is a defect, and yes or no as answered.

        Asked for any defect, else for each kind (that of the likeliest), else what is wrong (anything but
        nothing).
        """
        if overall := self._of("presence"):
            return overall.p_yes, overall.says
        if rows := self.kinds_asked_for().values():
            likeliest = max(rows, key=lambda row: (row.p_yes or 0.0, row.says == "yes"))
            return likeliest.p_yes, likeliest.says
        row = self._of("kind")
        if row is None:
            return None, None
        if row.probabilities:
            return sum(self._kind_probabilities(row).values()), None
        named = self._named_kind(row)
        return None, "yes" if named else "no" if row.answer.text.strip() else None

    def kinds(self) -> dict[str, float | None]:
        """Return the kinds that may be what is there, with the probability of each among all kinds where what
        is wrong was asked with choices: all of them then, else the one that was named, else those that are
        there by the questions about each."""
        row = self._of("kind")
        if row is not None and (probabilities := self._kind_probabilities(row)):
            total = sum(probabilities.values()) or 1.0
            return {kind: value / total for kind, value in probabilities.items()}
        if row is not None and (named := self._named_kind(row)):
            return {named: None}
        asked = self.kinds_asked_for()
        present = [kind for kind, row in asked.items() if row.says == "yes"]
        return dict.fromkeys(sorted(present, key=lambda kind: -(asked[kind].p_yes or 0.0)))

    def _kind_probabilities(self, row: AskedQuestion) -> dict[str, float]:
        """Return the probability of each kind, without that of none."""
        kinds = self.words.kinds
        return {kinds[word]: value for word, value in row.probabilities.items() if word in kinds}

    def _named_kind(self, row: AskedQuestion) -> str | None:
        word = parse_class(row.answer.text, list(self.words.kinds))
        return None if word is None else self.words.kinds[word]

    def where(self, kind: str | None) -> tuple[Box | None, str | None]:
        """Return where a kind is: its box in 0..1 of the photo, and the place in words."""
        x1, y1, x2, y2 = self.crop
        box, place = None, None
        for row in self.rows:
            if row.asked.family != "where" or row.asked.about not in (kind, DEFECT):
                continue
            text = row.answer.text.strip()
            if parse_box(text) is not None:
                box = box or row.box(round(x2 - x1), round(y2 - y1))
            elif text and not same_text(text, self.words.absent):
                place = place or text
        if self.part.crop is not None:
            tile = f"x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f}"
            place = f"{place} of {tile}" if place else tile
        return None if box is None else self._in_photo(box), place

    def _in_photo(self, box: Box) -> Box:
        x1, y1, x2, y2 = self.tile
        across, down = x2 - x1, y2 - y1
        return x1 + box[0] * across, y1 + box[1] * down, x1 + box[2] * across, y1 + box[3] * down

    def count(self) -> int | None:
        row = self._of("count")
        return None if row is None else parse_count(row.answer.text)

    def novelty(self, parts: int) -> float | None:
        """Return the share of sound calibration pictures that are as unlike what training held."""
        measured = (row.answer.metadata.get("novelty") for row in self.rows)
        values = [novelty["p_value"] for novelty in measured if novelty]
        return min(1.0, parts * min(values)) if values else None

    def novelty_maps(self) -> tuple[NoveltyMap, ...]:
        """Return where the part is unlike what training held, as far as that was measured."""
        measured = (row.answer.metadata.get("novelty") or {} for row in self.rows)
        found = next((NoveltyMap.model_validate(one["map"]) for one in measured if "map" in one), None)
        return () if found is None else (NoveltyMap(box=self._in_photo(found.box), rows=found.rows),)

    def report(self) -> str | None:
        row = self._of("report") or self._of("describe")
        return row.answer.text.strip() or None if row else None
