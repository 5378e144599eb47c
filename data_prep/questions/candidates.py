"""Finds what a recipe's families can ask of units, with the answers; what is asked is chosen later."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from data_prep.annotations import Shape
from data_prep.images.units import Unit
from data_prep.questions.blind import NONE
from data_prep.recipe.english import at_place
from data_prep.recipe.families import DefectKind, FamilyName, KindWords, QuestionFamily
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import QUESTIONED, Split
from llava.common.boxes import Box, area, format_box, holds_centre, intersection, iou, to_frame
from llava.common.records import TaskType

UNPLACED = "defects without boxes"
NEARLY_EQUAL = 0.7  # IoU: boxes of different kinds are then two opinions of one thing
_TRIES = 100
_SHIFT = 0.3
_DOUBTFUL = "nearly equal boxes of different kinds"


@dataclass(slots=True)  # a table may make a million
class Candidate:
    """A possible question about a unit, with its answer.

    `about` is what it is asked about; `wordings` are questions in the order in which they are used, of
    which the first `times_asked` are. `yes` is set where a yes/no question is answered with yes. `label`
    is what the object really shows where that is not what the unit shows; `turns` follow the first
    question and answer; `language` is that of a conversation of the source, where it is stated. `box` is the
    one that the question names.
    """

    unit: Unit
    task: str
    type: TaskType
    family: FamilyName
    about: str
    answer: str
    wordings: list[str]
    times_asked: int = 1
    yes: bool = False
    label: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    language: str = ""
    box: Box | None = None

    @property
    def says_nothing(self) -> bool:
        """Whether its sentence only says, in whichever words, that nothing is there."""
        kinds = self.unit.kinds
        return self.family == "describe" and not (kinds if self.about == "defect" else self.about in kinds)


class EvenSampler:
    """Draws the numbers 0..n-1 evenly, apart for each key: after any number of draws, two numbers of a key
    were drawn equally often, or one of them once more."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.remaining: dict[str, list[int]] = {}
        self.rounds: Counter[str] = Counter()

    def draw(self, key: str, n: int) -> int:
        numbers = self.remaining.setdefault(key, [])
        if not numbers:
            numbers.extend(range(n))
            random.Random(f"{self.seed}/{key}/{self.rounds[key]}").shuffle(numbers)
            self.rounds[key] += 1
        return numbers.pop()


@dataclass
class CandidateFinder:
    """Finds the candidates of one family among the units of one split, in the words of `recipe` (one
    language). `skipped` counts what could not be asked, by reason.
    """

    task: str
    family: QuestionFamily
    recipe: Recipe
    split: Split
    seed: int
    skipped: Counter[str]

    def find(self, units: Sequence[Unit]) -> list[Candidate]:
        self.sentences = EvenSampler(f"{self.seed}/{self.split}/{self.task}/sentences")
        method = {
            "presence": self._presence,
            "kind": self._kind,
            "choice": self._kind,
            "count": self._count,
            "where": self._where,
            "region": self._region if self.family.of == "defect" else self._component_region,
            "describe": self._describe,
            "report": self._report,
            "talk": self._talk,
        }[self.family.family]
        found = [candidate for unit in units for candidate in method(unit)]
        for candidate in found if self.split == "train" else []:
            candidate.times_asked = min(self.family.times, len(candidate.wordings))
        return found

    def find_absent(self, units: Sequence[Unit], present: Sequence[Candidate]) -> list[Candidate]:
        """Ask about what is not there; the family's `negatives` are their share beside `present`."""
        share = self.family.negatives
        if not share:
            return []
        absent = self._boxes_of_nothing if self.family.family == "region" else self._absent_kinds
        return absent(units, present, share / (1 - share))

    def _candidate(
        self, unit: Unit, about: str, answer: str, fields: Mapping[str, str] | None = None, label: str = ""
    ) -> Candidate:
        words = {"choices": join_words(self.recipe.kind_answers, self.recipe.or_word), "options": "{options}"}
        filled = {**self._words(about).fields(), **words, **(fields or {})}
        wordings = [text.format(**filled) for text in self.family.questions]
        kind = self.family
        assert kind.type is not None
        return Candidate(unit, self.task, kind.type, kind.family, about, answer, wordings, label=label)

    def _words(self, about: str) -> KindWords:
        known = {kind.name: kind for kind in self.recipe.kinds}
        return known.get(about, self.recipe.any_defect)

    def _skip(self, reason: str) -> None:
        self.skipped[f"{self.task}: {reason}"] += 1

    # --- a family each ------------------------------------------------------------------------------

    def _presence(self, unit: Unit) -> Iterator[Candidate]:
        if self.family.of != "each":
            present = bool(unit.kinds if self.family.of == "defect" else shapes_of(unit, self.family.of))
            subjects = [(self.family.of, present)]
        else:
            absent = [name for name in self.recipe.kind_names if name not in unit.kinds]
            rng = random.Random(f"{self.seed}/{unit.image}/{self.task}")
            chosen = rng.sample(absent, min(self.family.absent, len(absent)))
            subjects = [*((name, True) for name in unit.kinds), *((name, False) for name in chosen)]
        for about, present in subjects:
            candidate = self._candidate(unit, about, self.recipe.yes_word if present else self.recipe.no_word)
            candidate.yes = present
            yield candidate

    def _kind(self, unit: Unit) -> Iterator[Candidate]:
        if len(unit.kinds) > 1 and self.recipe.several == "skip":
            self._skip("several kinds of defect")
        elif unit.kinds:
            yield self._candidate(unit, "defect", self._words(unit.kinds[0]).word)
        elif self.recipe.none_word is not None:
            yield self._candidate(unit, "defect", self.recipe.none_word)

    def _count(self, unit: Unit) -> Iterator[Candidate]:
        if unplaced(unit):
            self._skip(UNPLACED)
        else:
            yield self._candidate(unit, self.family.of, str(len(shapes_of(unit, self.family.of))))

    def _where(self, unit: Unit) -> Iterator[Candidate]:
        doubtful = _of_doubtful_kind(unit)
        for about in unit.kinds if self.family.of == "each" else [self.family.of]:
            shapes = shapes_of(unit, about)
            if about in unplaced(unit) or (about == "defect" and unplaced(unit)):
                self._skip(UNPLACED)
            elif len(shapes) > 1:  # "the defect" would be ambiguous
                self._skip("several boxes of what is asked for")
            elif shapes and shapes[0] in doubtful:
                self._skip(_DOUBTFUL)
            elif shapes:
                box = shapes[0].box
                is_box = self.family.type == "box"
                yield self._candidate(unit, about, self._box(box, unit) if is_box else self._place(box, unit))

    def _region(self, unit: Unit) -> Iterator[Candidate]:
        doubtful = _of_doubtful_kind(unit)
        for text, shape in {self._box(shape.box, unit): shape for shape in unit.defects}.items():
            if shape in doubtful:
                self._skip(_DOUBTFUL)
            else:
                answer = self._stated_groups(shape.name, shape.box, unit)
                candidate = self._candidate(unit, shape.name, answer, {"box": text}, shape.name)
                candidate.box = shape.box
                yield candidate

    def _component_region(self, unit: Unit) -> Iterator[Candidate]:
        shapes = shapes_of(unit, self.family.of)
        if shapes and unplaced(unit):
            self._skip(UNPLACED)
            return
        for shape in shapes:
            inside = {defect.name for defect in unit.defects if holds_centre(shape.box, defect.box)}
            if len(inside) > 1:
                self._skip("several kinds of defect")
            elif not inside and any(intersection(shape.box, defect.box) > 0 for defect in unit.defects):
                self._skip("a defect at the edge of the box")
            elif inside or self.recipe.none_word is not None:
                name = next(iter(inside), NONE)
                answer = self._stated_groups(name, shape.box, unit)
                yield self._candidate(unit, self.family.of, answer, {"box": self._box(shape.box, unit)}, name)

    def _describe(self, unit: Unit) -> Iterator[Candidate]:
        each = self.family.of == "each"
        for about in unit.kinds if each else ["defect"]:
            sentences = self.family.answers if unit.kinds else self.family.whole
            if about in unplaced(unit) if each else unplaced(unit):
                sentences = [sentence for sentence in sentences if "{places}" not in sentence]
                if not sentences:
                    self._skip(UNPLACED)
                    continue
            sentence = self._sentence(sentences, "defect" if unit.kinds else NONE)
            kinds = [kind for kind in self.recipe.defects if kind.name in ([about] if each else unit.kinds)]
            yield self._candidate(unit, about, self._described(sentence, kinds, unit))

    def _report(self, unit: Unit) -> Iterator[Candidate]:
        if unplaced(unit):
            self._skip(UNPLACED)
            return
        entries: list[dict[str, str | None]] = []
        for kind in self.recipe.defects:
            shapes = [shape for shape in unit.defects if shape.name == kind.name]
            for shape in sorted(shapes, key=lambda shape: (-area(shape.box), shape.box)):
                entry: dict[str, str | None] = {
                    "component": self._component_at(shape.box, unit),
                    "defect": kind.word,
                    "severity": kind.severity,
                    "location": self._place(shape.box, unit),
                    "action": kind.action,
                }
                if entry not in entries:
                    entries.append(entry)
        if not entries and self.recipe.none_word is not None:
            sound = {"defect": self.recipe.none_word, "severity": None, "location": None, "action": None}
            entries = [{"component": self._usual_component(unit), **sound}]
        if entries:
            report = entries[0] if len(entries) == 1 else entries
            yield self._candidate(unit, "defect", json.dumps(report, ensure_ascii=False))

    def _talk(self, unit: Unit) -> Iterator[Candidate]:
        for conversation in unit.conversations:
            (question, answer), *later = conversation.turns
            yield Candidate(
                unit,
                conversation.task,
                "text",
                "talk",
                conversation.task,
                answer,
                [question],
                turns=tuple(later),
                language=conversation.language or "",
            )

    # --- what is not there ---------------------------------------------------------------------------

    def _absent_kinds(
        self, units: Sequence[Unit], present: Sequence[Candidate], ratio: float
    ) -> list[Candidate]:
        """Ask for every kind where it is absent, `ratio` times as often as where it is present: the name of a
        kind must not tell whether it is there."""
        found: list[Candidate] = []
        counts = Counter[str]()
        for candidate in present:
            counts[candidate.about] += candidate.times_asked
        for kind in self.recipe.defects:
            lacking = [unit for unit in units if kind.name not in unit.kinds]
            wanted = min(round(counts[kind.name] * ratio), len(lacking))
            rng = random.Random(f"{self.seed}/{self.split}/{self.task}/{kind.name}/absent")
            for unit in rng.sample(lacking, wanted):
                answer = self.recipe.absent_word
                if self.family.family == "describe":
                    answer = _capital(self._sentence(self.family.whole, NONE).format(**kind.fields()))
                found.append(self._candidate(unit, kind.name, answer))
        return found

    def _boxes_of_nothing(
        self, units: Sequence[Unit], present: Sequence[Candidate], ratio: float
    ) -> list[Candidate]:
        """Ask about boxes that meet no defect. Each is that of a defect in another image, a little shifted,
        so that neither place nor size tells the answer; where that lies on a component, it does so here
        too, if there is such an image. All defects and all images serve in turn."""
        models = [(c.unit, c.box) for c in present for _ in range(c.times_asked) if c.box is not None]
        wanted = round(len(models) * ratio)
        rng = random.Random(f"{self.seed}/{self.split}/{self.task}/absent")
        free = [unit for unit in units if not unplaced(unit)]
        taken: dict[str, list[Box]] = {unit.image: [] for unit in free}
        found: list[Candidate] = []
        while len(found) < wanted:
            before = len(found)
            for model, box in rng.sample(models, min(len(models), wanted - len(found))):
                others = rng.sample(free, min(len(free), _TRIES))
                others.sort(key=lambda unit: len(taken[unit.image]))
                box = _shifted(box, model.size, rng)
                if (placed := _place_elsewhere(box, model, others, taken)) is not None:
                    unit, box = placed
                    taken[unit.image].append(box)
                    answer = self._stated_groups(NONE, box, unit)
                    found.append(self._candidate(unit, NONE, answer, {"box": self._box(box, unit)}, NONE))
            if len(found) == before:
                break
        return found

    # --- words ---------------------------------------------------------------------------------------

    def _box(self, box: Box, unit: Unit) -> str:
        return format_box(to_frame(box, *unit.size, self.recipe.boxes.frame), self.recipe.boxes.decimals)

    def _place(self, box: Box, unit: Unit) -> str:
        return place_of(box, unit.size, self.recipe.places)

    def _place_fields(self, box: Box, unit: Unit) -> dict[str, str]:
        place = self._place(box, unit)
        return {"place": place, "at_place": at_place(place) if self.recipe.language == "en" else place}

    def _sentence(self, sentences: Sequence[str], shows: str) -> str:
        """Choose a sentence. Train and val draw them evenly, so that each (and its length) is as frequent as
        the others for what the unit `shows`, "defect" or none; test takes the first."""
        if self.split in QUESTIONED:
            return sentences[0]
        return sentences[self.sentences.draw(f"{shows} of {len(sentences)}", len(sentences))]

    def _stated_groups(self, name: str, box: Box, unit: Unit) -> str:
        """Answer a question about a box that shows the kind `name`, or none."""
        if self.family.type == "class":
            assert self.recipe.none_word is not None or name != NONE
            return self.recipe.none_word or "" if name == NONE else self._words(name).word
        sentences = self.family.whole if name == NONE else self.family.answers
        sentence = self._sentence(sentences, NONE if name == NONE else "defect")
        fields = {} if name == NONE else self._words(name).fields() | self._place_fields(box, unit)
        return _capital(sentence.format(**fields))

    def _described(self, sentence: str, kinds: Sequence[DefectKind], unit: Unit) -> str:
        """Fill `sentence` with `kinds`, each once, at its largest box."""
        places = []
        for kind in kinds:
            if boxes := [shape.box for shape in unit.defects if shape.name == kind.name]:
                place = self._place_fields(max(boxes, key=area), unit)
                places.append(self.recipe.place_phrase.format(**kind.fields(), **place))
        joiner = self.recipe.and_word
        phrases = [kind.phrase for kind in kinds]
        return _capital(sentence.format(kinds=join_words(phrases, joiner), places=join_words(places, joiner)))

    def _component_at(self, box: Box, unit: Unit) -> str:
        """Name the smallest component that holds the centre of `box`."""
        around = [shape for shape in unit.components if holds_centre(shape.box, box)]
        if not around:
            return self._usual_component(unit)
        return self._words(min(around, key=lambda shape: (area(shape.box), shape.name)).name).word

    def _usual_component(self, unit: Unit) -> str:
        named = {shape.name for shape in unit.components} or {kind.name for kind in self.recipe.components}
        return self._words(named.pop()).word if len(named) == 1 else self.family.component


def shapes_of(unit: Unit, about: str) -> list[Shape]:
    """Return the boxes of any defect, or of one class."""
    if about == "defect":
        return list(unit.defects)
    return [shape for shape in (*unit.components, *unit.defects) if shape.name == about]


def unplaced(unit: Unit) -> list[str]:
    """Return the kinds of defect that the unit shows without a box."""
    placed = {shape.name for shape in unit.defects}
    return [name for name in unit.labels if name not in placed]


def place_of(box: Box, size: tuple[int, int], places: Sequence[str]) -> str:
    """Return which of the nine `places` of a 3x3 grid over an image of `size` the centre of `box` is in."""
    column = min(2, int((box[0] + box[2]) / 2 * 3 / size[0]))
    row = min(2, int((box[1] + box[3]) / 2 * 3 / size[1]))
    return places[3 * row + column]


def join_words(words: Sequence[str], joiner: str) -> str:
    """Write a list as a sentence does: `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joiner} {words[-1]}" if words else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _of_doubtful_kind(unit: Unit) -> list[Shape]:
    """Return the defects with a box that another kind has too, nearly: which of them it shows is a matter of
    opinion."""
    found: list[Shape] = []
    ordered = sorted(unit.defects, key=lambda shape: shape.box)
    for index, shape in enumerate(ordered):
        x1, _, x2, _ = shape.box
        for other in ordered[index + 1 :]:
            if other.box[0] > x1 + (1 - NEARLY_EQUAL) * (x2 - x1):
                break  # it, and all that follow, share too little of the width
            if other.name != shape.name and iou(other.box, shape.box) > NEARLY_EQUAL:
                found += (shape, other)
    return found


def _shifted(box: Box, size: tuple[int, int], rng: random.Random) -> Box:
    """Move a box by a part of its sides, so that its numbers are not those of the defect. What touches an
    edge of the image goes on doing so, and nothing else begins to."""
    moves = []
    for low, high, side in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        move = rng.uniform(-_SHIFT, _SHIFT) * (high - low)
        ways = [way for way in (move, -move) if low + way > 0 and high + way < side]
        moves.append(ways[0] if ways and low > 0 and high < side else 0.0)
    return box[0] + moves[0], box[1] + moves[1], box[2] + moves[0], box[3] + moves[1]


def _place_elsewhere(
    box: Box, model: Unit, others: Sequence[Unit], taken: Mapping[str, Sequence[Box]]
) -> tuple[Unit, Box] | None:
    """Return the first of the `others` where a box of `model`, scaled, meets no defect and none of the boxes
    `taken`, with that box; None if there is none. A box on a component goes to a component first."""
    on_component = any(holds_centre(shape.box, box) for shape in model.components)
    second = None
    for unit in others:
        across, down = unit.size[0] / model.size[0], unit.size[1] / model.size[1]
        placed = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        if (
            unit is model
            or any(intersection(placed, shape.box) > 0 for shape in unit.defects)
            or any(iou(placed, known) > NEARLY_EQUAL for known in taken[unit.image])
        ):
            continue
        if on_component <= any(holds_centre(shape.box, placed) for shape in unit.components):
            return unit, placed
        second = second or (unit, placed)
    return second
