"""The schema of a recipe, which says as data how annotated boxes become questions and answers.

It names the classes, the question families with their wordings, and how images are cut, grouped and split.
Any field can be overridden on the command line, for instance `families.count.times=2`, `splits.test=0.2`, or
`families.count=null` to leave a family out.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from data_prep.annotations import plain_name
from data_prep.recipe.english import SOUND_NAMES, noun_phrase
from data_prep.recipe.families import (
    LETTERS,
    TYPES,
    DefectKind,
    FamilyWords,
    QuestionFamily,
    Translation,
    Words,
    check_fields,
    fields_of,
)
from llava.common.boxes import Frame
from llava.common.settings import Settings
from llava.common.synthetic import PROMPT


def _pattern(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression ({error})") from None
    if groups != 1:
        raise ValueError(f"{value!r}: mark the part that names the group with one pair of brackets")
    return value


class Grouping(Settings):
    """How images are grouped: those that are not independent share a group, which no split divides.

    Each rule joins images, and so do several in a chain; an image that no rule joins is a group of its own.
    What the source itself states (a table's column, versions of one image in an export) always counts, and so
    do names that augmenting tools give to versions of one photo (`tower12_flip`).
    `pattern`: a regular expression with one pair of brackets, searched in the image's path below the source
    without suffix (`line3/tower12_004`); images in which the brackets match the same text are joined.
    `folders`: images that share the first so many folders of that path are joined (1: `line3`).
    `time`: images that were taken at most so many seconds after one another, by the time in their names or
    their EXIF, are joined in a chain; null does not look at times.
    `twins`: copies are joined, also noisy, turned and mirrored ones. Candidates are images whose perceptual
    hashes (dHash, 240 bits) differ in at most so many bits; they are copies if their thumbnails correlate
    too. null does not look for copies.
    `shifted`: images of one size that overlap, as crops of one sheet do, are joined.
    `objects`: images whose crops (`unit: object`) show the same object are joined, such as one that was
    pasted on many backgrounds. Needs OpenCV, an extra.
    """

    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    folders: Annotated[int, Field(ge=1)] | None = None
    time: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    twins: Annotated[int, Field(ge=0, le=64)] | None = 20
    shifted: bool = True
    objects: bool = True


class Shares(Settings):
    """The share of the images in each split; the shares are scaled to a sum of 1.

    `given`: what to do with splits that the source itself states. `ignore` splits anew, because exports often
    divide near-duplicates (the report says how many); `keep` keeps them: of a group that they divide, only
    the images in test, else in val, are kept, and images without a split are distributed by the shares.
    `calibration`: images to certify a decision with (docs/certify.md), which no source states by itself.
    """

    train: float = Field(default=0.7, gt=0)
    val: float = Field(default=0.15, ge=0)
    calibration: float = Field(default=0.0, ge=0, exclude_if=lambda share: share == 0)
    test: float = Field(default=0.15, ge=0)
    given: Literal["keep", "ignore"] = "ignore"

    @field_validator("train", "val", "calibration", "test")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("write a number")
        return value


class SyntheticSettings(Settings):
    """How many made pictures (`convert --synthetic`) go into train, and what is asked of diffusion.

    `share`: of the pictures in train, at most, before its answers are balanced. 0 takes none. `prompt`: what
    a picture is painted by, or what a language model writes that from; `{wish}` is "a broken disc on an
    insulator", `{keywords}` what a model sees in the photo. The wish comes early: a long prompt is cut at its
    end.
    """

    share: float = Field(default=0.5, ge=0, lt=1)
    prompt: str = PROMPT

    @field_validator("prompt")
    @classmethod
    def _has_wish(cls, text: str) -> str:
        check_fields(text, {"wish", "keywords"})
        if "wish" not in fields_of(text):
            raise ValueError(f"{text!r}: write {{wish}} where the defect is named")
        return text


class ImageSettings(Settings):
    """How images are written: all are re-encoded as JPEG, so that no codec trace distinguishes them.

    `max_side` in pixels: a larger image (or crop) is scaled down to it. `quality`: JPEG's, 1..95.
    """

    max_side: int = Field(default=672, ge=16)
    quality: int = Field(default=95, ge=1, le=95)


class ObjectCrops(Settings):
    """How crops are cut with `unit: object`.

    `windows`: each component's box is cut into so many equal parts along its longer side,
    and each part is a crop; 1 takes the box whole. Windows put sound and defective parts of one component
    side by side, so that its surroundings do not give the answer away. `context`: margin on every side, as a
    share of the part's longer side. `min_side`: parts whose longer side is smaller (pixels) are left out.
    """

    context: float = Field(default=0.3, ge=0, le=2)
    min_side: int = Field(default=24, ge=1)
    windows: int = Field(default=1, ge=1, le=64)


class Tiles(Settings):
    """How tiles are cut with `unit: tile`, for images in which defects would vanish when scaled down.

    The image is covered with square tiles, spread evenly; data_prep/images/tiles.py has the rules for boxes
    at their edges. `side` in pixels of the image. `overlap` of neighbours, at least, as a share of the side;
    objects that are not larger than it are whole in some tile. `min_visible`: a box stays in a tile if the
    tile shows at least this share of what it could show of it at most; a tile that shows less of an object
    is left out. 0 keeps all. `whole`: ask about the whole image, scaled down, as well.
    """

    side: int = Field(default=672, ge=32)
    overlap: float = Field(default=0.2, ge=0, le=0.9)
    min_visible: float = Field(default=0.3, ge=0, le=1)
    whole: bool = True


class BoxText(Settings):
    """How boxes are written in answers, see llava/common/boxes.py."""

    frame: Frame = "padded"
    decimals: int = Field(default=3, ge=1, le=6)


_ENGLISH = Words()  # made once: it is needed for each row of a table


class Recipe(Words):
    """A recipe; the classes of its fields say what they mean."""

    language: str = Field(default="en", min_length=1)
    """The language that the recipe itself is written in."""
    translations: dict[str, Translation] = Field(default_factory=dict)
    """Its words in other languages, by language (configs/recipes/insulator.ko.yaml is one)."""
    languages: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """The languages of the questions: the share of the train and val images that are asked about in each.
    Test images are asked about in each with a share above 0. The recipe's own language has 1 if not
    written."""
    unit: Literal["picture", "object", "tile"] = "picture"
    """picture: questions are about whole images. object: about a crop around each component. tile: about
    overlapping tiles of very large images (and the whole)."""
    components: list[DefectKind] = Field(default_factory=list)
    defects: list[DefectKind] = Field(default_factory=list)
    sound: list[str] = Field(default=list(SOUND_NAMES))
    """Annotation classes that mean: nothing is wrong here. A component or defect of that name comes first."""
    ignore: list[str] = Field(default_factory=list)
    """Annotation classes to ignore. A class that the recipe does not know at all is an error."""
    several: Literal["skip", "largest"] = "skip"
    """Several kinds of defect in one image: `skip` asks no `kind` question of it (their number is reported),
    `largest` takes the kind of the largest box."""
    families: dict[str, QuestionFamily | None]
    dialogues: int = Field(default=0, ge=0, le=8)
    """Conversations of two or three turns per training image, made of its own questions, in addition to them.
    A model tuned on single questions alone may answer a chat's second question in the form of the first."""
    group: Grouping = Grouping()
    splits: Shares = Shares()
    synthetic: SyntheticSettings = SyntheticSettings()
    pictures: ImageSettings = ImageSettings()
    crops: ObjectCrops = ObjectCrops()
    tiles: Tiles = Tiles()
    boxes: BoxText = BoxText()

    _by_language: dict[str, Recipe] = PrivateAttr(default_factory=dict)

    @field_validator("families", mode="before")
    @classmethod
    def _name_families(cls, value: object) -> object:
        """A family's kind is its key where it is not written."""
        if not isinstance(value, dict):
            return value
        return {
            key: {"family": key, **family} if isinstance(family, dict) and key in TYPES else family
            for key, family in value.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        self._check_classes()
        if not self.active_families:
            raise ValueError("families: name at least one question family")
        for key, family in self.active_families.items():
            self._check_family(key, family)
        if not self.defects and any(family.family != "talk" for family in self.active_families.values()):
            raise ValueError("defects: name at least one kind; only a talk family asks without")
        self._default_phrases()
        self._check_languages()
        return self

    def _check_classes(self) -> None:
        owners: dict[str, str] = {plain_name(name): "ignore" for name in self.ignore}
        for kind in self.kinds:
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
        if self.unit == "object" and not self.components:
            raise ValueError("unit: object crops around components, and the recipe lists none")

    def _check_family(self, key: str, family: QuestionFamily) -> None:
        if family.family != key and key in TYPES:
            raise ValueError(f"families.{key}: its family is {family.family}; give it another key")
        subjects = {"defect", "each", *(kind.name for kind in self.components)}
        if family.of not in subjects:
            known = ", ".join(sorted(subjects))
            raise ValueError(f"families.{key}.of: {family.of!r} is not one of {known}")
        is_about_component = family.of not in ("defect", "each") and family.family != "region"
        if self.unit == "object" and is_about_component:
            # Others of its kind may be visible beside it, and nothing says how much of them.
            raise ValueError(
                f"families.{key}: a crop around one component cannot be asked for components; "
                "take unit: picture or tile, or leave the family out"
            )

    def _check_languages(self) -> None:
        unknown = self.languages.keys() - {self.language, *self.translations}
        if unknown:
            raise ValueError(
                f"languages: there is no translation to {min(unknown)!r}; write it under `translations`"
            )
        if not self.language_shares:
            raise ValueError("languages: one at least needs a share above 0")
        for language in self.language_shares:
            self.in_language(language)._check_words_fit("" if language == self.language else language)

    def _default_phrases(self) -> None:
        """Make a phrase of an English word ("a crack", "a corroded part"); for other languages there is no
        rule here."""
        for kind in self.kinds:
            kind.phrase = kind.phrase or (noun_phrase(kind.word) if self.language == "en" else kind.word)

    def _check_words_fit(self, language: str) -> None:
        """Raise a ValueError where words are missing or conflict; `language` is that of a translation."""
        where = f"translations.{language}." if language else ""
        answers = [kind.word.casefold() for kind in self.defects]
        if self.none_word is not None and self.none_word.casefold() in answers:
            raise ValueError(f"{where}none_word {self.none_word!r} is the name of a defect")
        if len(set(answers)) != len(answers):
            raise ValueError(f"{where}defects: two kinds have the same word")
        try:
            check_fields(self.place_phrase, {"phrase", "place", "at_place", "kind"} | self.forms)
        except ValueError as error:
            raise ValueError(f"{where}place_phrase: {error}") from None
        for task, family in self.active_families.items():
            try:
                family.check_wordings(family, self.forms)
                self._check_answers(family)
            except ValueError as error:
                raise ValueError(f"{where}families.{task}: {error}") from None

    def _check_answers(self, family: QuestionFamily) -> None:
        if family.family in ("kind", "choice") and len(self.kind_answers) < 2:
            raise ValueError(f"a {family.family} question needs two possible answers")
        if family.options is not None and family.options > len(self.kind_answers):
            raise ValueError(f"options: there are only {len(self.kind_answers)} possible answers")
        if family.family == "choice" and family.options is None and len(self.kind_answers) > len(LETTERS):
            raise ValueError(f"options: write how many are shown, {len(LETTERS)} at most")
        if family.family == "region" and family.negatives and self.none_word is None:
            raise ValueError("negatives need a none_word to answer with")
        if family.family == "report":
            for kind in self.defects:
                if not kind.severity or not kind.action:
                    raise ValueError(f"a report needs the severity and action of {kind.name!r}")
            if len(self.components) != 1 and not family.component:
                raise ValueError("component: write what a report calls the component of a defect outside any")

    @property
    def kinds(self) -> list[DefectKind]:
        return [*self.components, *self.defects]

    @property
    def forms(self) -> set[str]:
        """The names of the further forms that every kind has."""
        return set.intersection(*(set(words.forms) for words in (self.any_defect, *self.kinds)))

    @property
    def language_shares(self) -> dict[str, float]:
        """The share of each language of the questions, the recipe's own first."""
        shares = {self.language: 1.0} | self.languages
        return {language: share for language, share in shares.items() if share > 0}

    def yes_no(self, language: str) -> tuple[str, str] | None:
        """Return the words for yes and no in a language, None for languages that the recipe does not have."""
        known: dict[str, Words] = {"en": _ENGLISH, **self.translations, self.language: self}
        words = known.get(language)
        return None if words is None else (words.yes_word, words.no_word)

    def in_language(self, language: str) -> Recipe:
        """Return the recipe with the words of one of its languages; what is asked stays the same.

        Raises a ValueError for a translation that lacks a kind or a family.
        """
        if language == self.language:
            return self
        if language not in self._by_language:
            self._by_language[language] = self._translated(language, self.translations[language])
        return self._by_language[language]

    def _translated(self, language: str, words: Translation) -> Recipe:
        own = {name: getattr(words, name) for name in Words.model_fields}
        if self.none_word is None:
            own["none_word"] = None
        elif words.none_word is None:
            raise ValueError(f"translations.{language}.none_word: write it, the recipe has one")
        families = self.active_families.items()
        return self.model_copy(
            update={
                **own,
                "language": language,
                "components": [_translated_kind(kind, language, words) for kind in self.components],
                "defects": [_translated_kind(kind, language, words) for kind in self.defects],
                "families": {
                    task: _translated_family(task, family, language, words) for task, family in families
                },
            }
        )

    @property
    def active_families(self) -> dict[str, QuestionFamily]:
        """The families that are not null, by task."""
        return {task: family for task, family in self.families.items() if family is not None}

    @property
    def kind_names(self) -> list[str]:
        return [kind.name for kind in self.defects]

    @property
    def kind_answers(self) -> list[str]:
        """The closed list of answers to a `kind` question."""
        return [*(kind.word for kind in self.defects), *([] if self.none_word is None else [self.none_word])]

    def known_names(self) -> dict[str, DefectKind | None]:
        """Return the class of each plain annotation name, None for names to ignore."""
        names: dict[str, DefectKind | None] = {plain_name(name): None for name in (*self.sound, *self.ignore)}
        for kind in [*self.components, *self.defects]:
            names.update({plain_name(name): kind for name in (kind.name, *kind.aliases)})
        return names


def _translated_kind(kind: DefectKind, language: str, words: Translation) -> DefectKind:
    if kind.name not in words.kinds or not words.kinds[kind.name].word:
        raise ValueError(f"translations.{language}.kinds: {kind.name!r} has no word there")
    translation = words.kinds[kind.name]
    return kind.model_copy(update={**dict(translation), "phrase": translation.phrase or translation.word})


def _translated_family(
    task: str, family: QuestionFamily, language: str, words: Translation
) -> QuestionFamily:
    translation = words.families.get(task, FamilyWords())
    if family.family != "talk" and not translation.questions:
        raise ValueError(f"translations.{language}.families.{task}: write its questions")
    for field in ("answers", "whole", "component"):
        if bool(getattr(family, field)) != bool(getattr(translation, field)):
            raise ValueError(f"translations.{language}.families.{task}: {field}: write it as in the recipe")
    return family.model_copy(update=dict(translation))
