"""A recipe says, as data, how annotated boxes become questions and answers.

It names the classes, the question families with their wordings, and how pictures are cut, grouped and
split. Any field can be overridden on the command line, for instance `families.count.times=2`,
`splits.test=0.2`, or `families.count=null` to leave a family out.
"""

from __future__ import annotations

import math
import re
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from data_prep.annotations import plain_name
from llava.boxes import Frame
from llava.records import IMAGE_PLACEHOLDER, TaskType
from llava.settings import Settings

FamilyName = Literal["presence", "kind", "count", "where", "describe"]
PLACES = (
    *("top left", "top centre", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom centre", "bottom right"),
)

_TYPES: dict[FamilyName, tuple[TaskType, ...]] = {
    "presence": ("yesno",),
    "kind": ("class",),
    "count": ("count",),
    "where": ("class", "box"),
    "describe": ("text",),
}


def _pattern(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression ({error})") from None
    if groups != 1:
        raise ValueError(f"{value!r}: mark the part that names the group with one pair of brackets")
    return value


class Kind(Settings):
    """A class of box. `name` is the word in answers; `aliases` are other names of it in annotation files
    (case, spaces, underscores and hyphens make no difference); `phrase` is how a sentence says it."""

    name: str = Field(min_length=1)
    aliases: list[str] = Field(default_factory=list)
    phrase: str = ""

    @model_validator(mode="after")
    def _default_phrase(self) -> Kind:
        if not self.phrase:
            article = "an" if self.name[0].lower() in "aeiou" else "a"
            self.phrase = f"{article} {self.name}"
        return self


class Family(Settings):
    """One question family. Its key in the recipe is the `task` that scores are reported under.

    The fields a question may use: {kind} and {phrase}, what is asked about, in `presence`, `count` and
    `where`; {choices}, the list of possible answers, in `kind`.
    """

    # What is asked. Left out, it is the family's key in the recipe.
    family: FamilyName = "presence"
    # How answers are read: only `where` has a choice, `class` (a 3x3 grid of words) or `box`.
    type: TaskType | None = None
    # What is asked about: `defect` is any defect, `each` every kind of defect by name, otherwise a component.
    of: str = "defect"
    # Wordings. Test questions use the first, so that scores of two runs compare like with like.
    questions: list[str] = Field(min_length=1)
    # Sentences that `describe` answers with; {kinds} "a missing disc and a bird nest", {places} the same
    # with places. `whole` is for a picture without defects.
    answers: list[str] = Field(default_factory=list)
    whole: list[str] = Field(default_factory=list)
    # How many wordings of each question a training picture is asked.
    times: int = Field(default=1, ge=1)
    # presence of each kind: how many absent kinds are asked about per picture.
    absent: int = Field(default=1, ge=0)
    # presence: in train, even out yes and no for each thing asked about. The rarer answer is asked in up to
    # this many wordings more per picture; what is still in excess is left out. 0 leaves out only; null
    # leaves the balance as it is.
    balance: Annotated[int, Field(ge=0)] | None = 0
    # Ask the engine for a probability per possible answer (test questions of types yesno and class).
    choices: bool = False

    def fields(self) -> set[str]:
        if self.family == "kind":
            return {"choices"}
        return {"kind", "phrase"} if self.family in ("presence", "count", "where") else set()

    @model_validator(mode="after")
    def _check(self) -> Family:
        allowed = _TYPES[self.family]
        self.type = self.type or allowed[0]
        if self.type not in allowed:
            raise ValueError(f"a {self.family} question has type {' or '.join(allowed)}, not {self.type}")
        if (self.family == "describe") != bool(self.answers) or (self.family == "describe") != bool(
            self.whole
        ):
            raise ValueError("`answers` and `whole` are the sentences of a describe family, and only of one")
        if self.family in ("kind", "describe") and self.of != "defect":
            raise ValueError(f"a {self.family} family is about any defect; leave out `of`")
        if self.family == "count" and self.of == "each":
            raise ValueError("count defects or a component, not each kind")
        for text in self.questions:
            _check_fields(text, self.fields())
        for text in self.answers:
            _check_fields(text, {"kinds", "places"})
        for text in self.whole:
            _check_fields(text, set())
        return self


def _check_fields(text: str, allowed: set[str]) -> None:
    try:
        used = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    if used - allowed:
        names = ", ".join(f"{{{name}}}" for name in sorted(allowed)) or "none"
        raise ValueError(f"{text!r} uses {{{min(used - allowed)}}}; the fields it may use: {names}")
    if not text.strip() or IMAGE_PLACEHOLDER in text:
        raise ValueError(f"{text!r}: write the words only; the {IMAGE_PLACEHOLDER} mark is added")


class Grouping(Settings):
    """Pictures that are not independent share a group, and a group is never divided between splits.

    `pattern`: a regular expression with one pair of brackets, searched in the picture's path below the
    source without suffix (`line3/tower12_004`); what the brackets match names the group. Without it, or
    where it does not match, every picture is a group of its own.
    `twins`: pictures whose perceptual hashes (dHash, 256 bits) differ in at most so many bits are joined
    to one group as well; null does not look.
    """

    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    twins: Annotated[int, Field(ge=0, le=64)] | None = 8


class Shares(Settings):
    """The share of the pictures in each split; they are scaled to a sum of 1."""

    train: float = Field(default=0.7, gt=0)
    val: float = Field(default=0.15, ge=0)
    test: float = Field(default=0.15, ge=0)

    @field_validator("*")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("write a number")
        return value


class Pictures(Settings):
    """How pictures are written: re-encoded as JPEG, all alike, so that no codec trace tells them apart.

    `max_side` in pixels: a larger picture (or crop) is scaled down to it. `quality`: JPEG's, 1..95.
    """

    max_side: int = Field(default=672, ge=16)
    quality: int = Field(default=95, ge=1, le=95)


class ObjectCrops(Settings):
    """unit: object. `windows`: each component's box is cut into so many equal parts along its longer side,
    and each part is a crop; 1 takes the box whole. Windows put sound and defective parts of one component
    side by side, so that its surroundings do not give the answer away. `context`: margin on every side, as a
    share of the part's longer side. `min_side`: parts whose longer side is smaller (pixels) are left out."""

    context: float = Field(default=0.1, ge=0, le=2)
    min_side: int = Field(default=24, ge=1)
    windows: int = Field(default=1, ge=1, le=64)


class BoxText(Settings):
    """How boxes are written in answers, see llava/boxes.py."""

    frame: Frame = "padded"
    decimals: int = Field(default=3, ge=1, le=6)


class Recipe(Settings):
    """The whole recipe; the fields' own classes say what they mean."""

    language: str = "en"
    # picture: questions are about whole pictures. object: about a crop around each component.
    unit: Literal["picture", "object"] = "picture"
    components: list[Kind] = Field(default_factory=list)
    defects: list[Kind] = Field(min_length=1)
    # Annotation classes that say: nothing is wrong here. A component or defect of that name comes first.
    sound: list[str] = Field(default=["good", "normal", "ok", "sound", "unbroken", "undamaged", "no defect"])
    # Annotation classes to pass over. A class that the recipe does not know at all is an error.
    ignore: list[str] = Field(default_factory=list)
    # The answer to a `kind` question about a picture without defects; null asks only where there is one.
    none_word: str | None = "none"
    # Several kinds of defect in one picture: `skip` asks no `kind` question of it (their number is
    # reported), `largest` takes the kind of the largest box.
    several: Literal["skip", "largest"] = "skip"
    # The nine words of a 3x3 grid over the picture, row by row.
    places: list[str] = Field(default=list(PLACES), min_length=9, max_length=9)
    families: dict[str, Family | None]
    # Conversations of two or three turns per training picture, made of its own questions and beside them. A
    # model tuned on single questions alone may answer a chat's second question in the form of the first.
    dialogues: int = Field(default=0, ge=0, le=8)
    group: Grouping = Grouping()
    splits: Shares = Shares()
    pictures: Pictures = Pictures()
    crops: ObjectCrops = ObjectCrops()
    boxes: BoxText = BoxText()

    @field_validator("families", mode="before")
    @classmethod
    def _name_families(cls, value: object) -> object:
        """A family's kind is its key where it is not written."""
        if not isinstance(value, dict):
            return value
        return {
            key: {"family": key, **family} if isinstance(family, dict) and key in _TYPES else family
            for key, family in value.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        owners: dict[str, str] = {plain_name(name): "ignore" for name in self.ignore}
        for kind in [*self.components, *self.defects]:
            for name in {plain_name(name) for name in (kind.name, *kind.aliases)}:
                if name in owners:
                    raise ValueError(
                        f"the class name {name!r} belongs to both {owners[name]} and {kind.name}"
                    )
                owners[name] = kind.name
        reserved = {"defect", "each"} & {kind.name for kind in self.components}
        if reserved:
            raise ValueError(
                f"a component cannot be called {min(reserved)!r}: that word has a meaning in `of`"
            )
        if self.none_word is not None and self.none_word in self.kind_names:
            raise ValueError(f"none_word {self.none_word!r} is the name of a defect")
        if len(set(self.places)) != 9:
            raise ValueError("places: nine different words are needed")
        if self.unit == "object" and not self.components:
            raise ValueError("unit: object crops around components, and the recipe lists none")
        if not self.asked:
            raise ValueError("families: name at least one question family")
        things = {"defect", "each", *(kind.name for kind in self.components)}
        for key, family in self.asked.items():
            if family.family != key and key in _TYPES:
                raise ValueError(f"families.{key}: its family is {family.family}; give it another key")
            if family.of not in things:
                known = ", ".join(sorted(things))
                raise ValueError(f"families.{key}.of: {family.of!r} is not one of {known}")
            if family.family == "kind" and len(self.kind_answers) < 2:
                raise ValueError(f"families.{key}: a kind question needs two possible answers")
        return self

    @property
    def asked(self) -> dict[str, Family]:
        """The families that are switched on, by task."""
        return {task: family for task, family in self.families.items() if family is not None}

    @property
    def kind_names(self) -> list[str]:
        return [kind.name for kind in self.defects]

    @property
    def kind_answers(self) -> list[str]:
        """The closed list of answers to a `kind` question."""
        return [*self.kind_names, *([] if self.none_word is None else [self.none_word])]

    def known_names(self) -> dict[str, Kind | None]:
        """Plain annotation name -> its class; None for names to pass over."""
        names: dict[str, Kind | None] = {plain_name(name): None for name in (*self.sound, *self.ignore)}
        for kind in [*self.components, *self.defects]:
            names.update({plain_name(name): kind for name in (kind.name, *kind.aliases)})
        return names
