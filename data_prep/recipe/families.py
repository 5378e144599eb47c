"""The schema of a recipe's question families, and of the words that questions and answers are made of.

docs/recipes.md describes every field with examples.
"""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llava.common.records import IMAGE_PLACEHOLDER, TaskType
from llava.common.settings import Settings

FamilyName = Literal["presence", "kind", "choice", "count", "where", "region", "describe", "report", "talk"]
PLACES = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# How the answers of a family are read; the first is what a recipe gets that does not say.
TYPES: dict[FamilyName, tuple[TaskType, ...]] = {
    "presence": ("yesno",),
    "kind": ("class",),
    "choice": ("class",),
    "count": ("count",),
    "where": ("class", "box"),
    "region": ("class", "text"),
    "describe": ("text",),
    "report": ("json",),
    "talk": ("text",),
}
# What a wording must hold: without it the question could not be answered.
_NEEDED: dict[FamilyName, str] = {"choice": "options", "region": "box"}


class KindWords(Settings):
    """The words for a class in questions and answers.

    `word` is the answer to "which kind?", `phrase` is how a sentence says that there is one ("a missing
    disc"), `forms` are further forms that wordings may use by name, such as grammatical cases; `severity` and
    `action` are what a condition report states for it.
    """

    word: str = ""
    phrase: str = ""
    forms: dict[str, str] = Field(default_factory=dict)
    severity: str = ""
    action: str = ""

    def fields(self) -> dict[str, str]:
        """Return what fills the fields of a wording about the class."""
        return {**self.forms, "kind": self.word, "phrase": self.phrase}


class DefectKind(KindWords):
    """A class of boxes: a kind of defect, or of component.

    `name` and `aliases` are what annotation files call it (case, spaces, underscores and hyphens make no
    difference); scores and reports use `name`. `word` is `name` if not written.
    """

    name: str = Field(min_length=1)
    aliases: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _default_word(self) -> DefectKind:
        self.word = self.word or self.name
        return self


class Words(Settings):
    """The words of questions and answers, except the wordings of families and the words for kinds."""

    yes_word: str = Field(default="yes", min_length=1)
    no_word: str = Field(default="no", min_length=1)
    none_word: str | None = "none"
    """The answer to a `kind` question about a picture without defects; null asks only where there is one."""
    absent_word: str = Field(default="not in this picture", min_length=1)
    """The answer where what is asked for is absent (`negatives` of a `where` family)."""
    and_word: str = Field(default="and", min_length=1)
    """How lists end: "a, b and c", "a, b or c"."""
    or_word: str = Field(default="or", min_length=1)
    places: list[str] = Field(default=list(PLACES), min_length=9, max_length=9)
    """The nine words of a 3x3 grid over the picture, row by row."""
    place_phrase: str = "{phrase} {at_place}"
    """How {places} in a sentence says where a kind is. In English {at_place} is "on the left" for the place
    "left"; in other languages it is the place itself."""
    any_defect: KindWords = KindWords(word="defect", phrase="a defect")
    """The words for any defect, where a question is not about a kind by name."""

    @model_validator(mode="after")
    def _check_words(self) -> Words:
        if len(set(self.places)) != 9:
            raise ValueError("places: nine different words are needed")
        if self.absent_word in self.places:
            raise ValueError(f"absent_word {self.absent_word!r} is one of the places")
        if self.yes_word.casefold() == self.no_word.casefold():
            raise ValueError("yes_word and no_word are the same")
        return self


class FamilyWords(Settings):
    """The wordings of a family in one language, see `QuestionFamily`."""

    questions: list[str] = Field(default_factory=list)
    answers: list[str] = Field(default_factory=list)
    whole: list[str] = Field(default_factory=list)
    component: str = ""


class QuestionFamily(FamilyWords):
    """A question family. Its key in the recipe is the `task` that scores are reported under.

    `questions` are the wordings. Test questions use the first, so that scores of two runs compare like with
    like. `answers` are sentences to answer with (`describe`, and `region` of type text), `whole` those for
    where there is no defect. `component`: what a report calls the component of a defect that lies in none.
    """

    family: FamilyName = "presence"
    """What is asked. Left out, it is the family's key in the recipe."""
    type: TaskType | None = None
    """How answers are read. `where`: class (a 3x3 grid of words) or box. `region`: class (a kind) or text."""
    of: str = "defect"
    """What is asked about: `defect` is any defect, `each` every kind of defect by name, otherwise a
    component."""
    times: int = Field(default=1, ge=1)
    """How many wordings of each question a training picture is asked."""
    absent: int = Field(default=1, ge=0)
    """presence of each kind: how many absent kinds are asked about per picture."""
    negatives: float = Field(default=0, ge=0, lt=1)
    """where and describe of each kind, region of defects: the share of questions about what is not there."""
    balance: Annotated[int, Field(ge=0)] | None = 0
    """presence: in train, even out yes and no for each thing asked about. The rarer answer is asked in up to
    this many wordings more per picture; what is still in excess is left out. 0 leaves out only; null leaves
    the balance as it is."""
    cap: Annotated[float, Field(ge=1)] | None = None
    """Answers of types class and count: in train, no answer is asked more than this many times as often as
    the median answer; the excess is left out. null leaves them as they are."""
    options: Annotated[int, Field(ge=2, le=len(LETTERS))] | None = None
    """choice: how many options are shown; null shows every possible answer."""
    choices: bool = True
    """Test questions of types yesno and class list their possible answers, so that the engine gives each a
    probability: for AUROC, calibration and thresholds."""

    @model_validator(mode="after")
    def _check(self) -> QuestionFamily:
        allowed = TYPES[self.family]
        self.type = self.type or allowed[0]
        if self.type not in allowed:
            raise ValueError(f"a {self.family} question has type {' or '.join(allowed)}, not {self.type}")
        if self.family == "talk":
            if self.questions:
                raise ValueError("a talk family asks what the source itself holds; leave out `questions`")
        elif not self.questions:
            raise ValueError("questions: write at least one wording")
        self._check_sentences()
        self._check_scope()
        self._check_options()
        return self

    def _check_scope(self) -> None:
        """Check `of`."""
        if self.family in ("kind", "choice", "report", "talk") and self.of != "defect":
            raise ValueError(f"a {self.family} family is about any defect; leave out `of`")
        if self.family == "count" and self.of == "each":
            raise ValueError("count defects or a component, not each kind")
        if self.family == "region" and self.of == "each":
            raise ValueError("a region family asks about boxes of defects or of a component, not each kind")
        if self.family == "describe" and self.of not in ("defect", "each"):
            raise ValueError("a describe family is of defect (the whole picture) or of each kind")

    def _check_options(self) -> None:
        if self.negatives and not self.may_be_absent():
            raise ValueError(
                "`negatives` are for where and describe of each kind, and for region of defects; "
                "nothing else can be asked for what is not there"
            )
        if self.cap is not None and self.type not in ("class", "count"):
            raise ValueError("`cap` is for answers of type class or count")
        if self.options is not None and self.family != "choice":
            raise ValueError("`options` is for a choice family")
        if self.component and self.family != "report":
            raise ValueError("`component` is for a report family")

    def may_be_absent(self) -> bool:
        if self.family == "region":
            return self.of == "defect"
        return self.family in ("where", "describe") and self.of == "each"

    def _check_sentences(self) -> None:
        has_sentences = self.family == "describe" or (self.family == "region" and self.type == "text")
        if has_sentences and not self.answers:
            example = "There is {phrase} here." if self.family == "region" else "The picture shows {kinds}."
            raise ValueError(
                f"answers: write the sentences that a {self.family} question is answered with, such as "
                f'"{example}"; sentences that the source itself holds are asked by a talk family'
            )
        if not has_sentences and (self.answers or self.whole):
            raise ValueError(
                f"a {self.family} question is not answered in sentences; leave out `answers` and `whole` "
                "(they are for describe, and for region of type text)"
            )
        absent = self.family == "describe" and self.of == "each" and not self.negatives
        if (
            has_sentences
            and not self.whole
            and not absent
            and not (self.family == "region" and self.of == "defect")
        ):
            raise ValueError("`whole`: write a sentence for where there is no defect")
        if has_sentences and not self.whole and self.negatives:
            raise ValueError("`whole`: write a sentence for what is not there (`negatives` ask for it)")

    def check_wordings(self, words: FamilyWords, forms: set[str]) -> None:
        """Raise a ValueError for a wording with a field that it cannot have.

        `words` are the family's own, or those of another language; `forms` are the names of the further forms
        that every kind has.
        """
        about = {"kind", "phrase"} | forms
        allowed: set[str] = set()
        if self.family in ("presence", "count", "where") or self.of == "each":
            allowed = about
        elif self.family == "kind":
            allowed = {"choices"}
        elif needed := _NEEDED.get(self.family):
            allowed = {needed}
        for text in words.questions:
            check_fields(text, allowed)
            if (needed := _NEEDED.get(self.family)) and needed not in fields_of(text):
                raise ValueError(f"{text!r}: a {self.family} question needs {{{needed}}} in its wording")
        for text in words.answers:
            check_fields(
                text, {"place", "at_place"} | about if self.family == "region" else {"kinds", "places"}
            )
        for text in words.whole:
            check_fields(text, about if self.of == "each" else set())


def fields_of(text: str) -> set[str]:
    """Return the names in curly brackets. Raises a ValueError for brackets that do not match or hold more
    than a name."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    for _, name, form, conversion in parts:
        if form or conversion:
            raise ValueError(f"{text!r}: write {{{name}}} alone, without ':' or '!'")
    return {name for _, name, _, _ in parts if name is not None}


def check_fields(text: str, allowed: set[str]) -> None:
    """Raise a ValueError for a wording that is empty, holds an image mark or uses a field not allowed."""
    used = fields_of(text)
    if used - allowed:
        names = ", ".join(f"{{{name}}}" for name in sorted(allowed)) or "none"
        raise ValueError(f"{text!r} uses {{{min(used - allowed)}}}; the fields it may use: {names}")
    if not text.strip() or IMAGE_PLACEHOLDER in text:
        raise ValueError(f"{text!r}: write the words only; the {IMAGE_PLACEHOLDER} mark is added")


class Translation(Words):
    """The words of a recipe in another language.

    It has every field of `Words`, the words for every kind (by its `name`) and the wordings of every active
    family.
    """

    kinds: dict[str, KindWords]
    families: dict[str, FamilyWords]

    @model_validator(mode="after")
    def _check_complete(self) -> Translation:
        if absent := [name for name in Words.model_fields if name not in self.model_fields_set]:
            raise ValueError(f"{', '.join(absent)}: a translation has to write it, the defaults are English")
        return self
