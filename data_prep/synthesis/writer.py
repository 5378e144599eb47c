"""Writes made pictures, and goes on where a killed run stopped.

Until all is there it lies in the hidden folder .NAME.partial beside the output: the pictures, the settings
that they were made with, and a line for each job that is done. The same settings go on with it, others begin
anew.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.synthesis.filter import Made
from data_prep.synthesis.painted import Job, Rejected
from llava.common.errors import InputError
from llava.common.files import atomic_path, read_json, read_text, to_json, write_json
from llava.common.masks import Pixels, run_lengths, save_mask
from llava.common.synthetic import (
    IMAGES,
    MASKS,
    SYNTHETIC_FILE,
    Category,
    Facts,
    Info,
    MadeAnnotation,
    MadeImage,
    Method,
    SyntheticFile,
    picture_bytes,
    picture_name,
    to_bbox,
)

_SETTINGS, _DONE = "settings.json", "done.jsonl"


class Outcome(BaseModel):
    """What became of a job: its entries of synthetic.json, whose ids are those of this picture alone, or why
    there are none."""

    model_config = ConfigDict(extra="forbid")

    number: int
    kind: str | None
    rejected: str | None = None
    image: MadeImage | None = None
    annotations: list[MadeAnnotation] = []


class PictureWriter:
    """Writes the pictures of one run. `save` may be called from several threads.

    `made` counts the pictures that were noted, without those of an earlier run.
    """

    def __init__(
        self, output: Path, method: Method, classes: Sequence[str], settings: dict[str, Any]
    ) -> None:
        """Open the folder; `begin` says what is done already.

        Args:
            output: The folder to write; it is not there.
            method: How the pictures are made.
            classes: The names of all classes, in the order of their ids.
            settings: All that decides what is made, as JSON.
        """
        self.output = output
        self.folder = output.with_name(f".{output.name}.partial")
        self._method = method
        self._category = {name: number for number, name in enumerate(classes, start=1)}
        self._settings = settings
        self.made = 0

    def earlier(self) -> tuple[int, list[str]]:
        """Return how many jobs an earlier run has done, and the settings that it had otherwise: where there
        are any, `begin` removes what it made."""
        try:
            before = read_json(self.folder / _SETTINGS)
            jobs = len(read_text(self.folder / _DONE).splitlines())
        except InputError:  # there is none, or it was being written
            return 0, []
        if not isinstance(before, dict):
            return 0, []
        names = {**before, **self._settings}
        return jobs, [name for name in names if before.get(name) != self._settings.get(name)]

    def begin(self) -> dict[int, Outcome]:
        """Return the outcomes of an earlier run with the same settings, by the jobs' numbers; what any other
        left is removed."""
        try:
            if read_json(self.folder / _SETTINGS) == self._settings:
                return self._read_done()
        except InputError:  # there is none, or it was being written
            pass
        for name in (_SETTINGS, _DONE):
            (self.folder / name).unlink(missing_ok=True)
        for name in (IMAGES, MASKS):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        write_json(self.folder / _SETTINGS, self._settings)
        return {}

    def _read_done(self) -> dict[int, Outcome]:
        file = self.folder / _DONE
        lines = read_text(file).splitlines() if file.is_file() else []
        done: dict[int, Outcome] = {}
        for line in lines:
            try:
                outcome = Outcome.model_validate_json(line)
            except ValidationError:  # cut short by the kill
                continue
            done[outcome.number] = outcome
        # What was cut short would spoil the next line that is added to it.
        with atomic_path(file) as temporary:
            temporary.write_text("".join(to_json(outcome) + "\n" for outcome in done.values()), "utf-8")
        return done

    def save(self, job: Job, made: Made | Rejected) -> Outcome:
        """Write the picture and mask of a job, and return what is to be noted of it."""
        if isinstance(made, Rejected):
            return Outcome(number=job.number, kind=job.kind, rejected=made.reason)
        name = picture_name(job.number, job.kind)
        _save_picture(self.folder / IMAGES / name, made.painted.pixels)
        save_mask(self.folder / MASKS / name, made.painted.mask)
        width, height = job.photo.size
        image = MadeImage(
            id=job.number + 1,
            file_name=f"{IMAGES}/{name}",
            width=width,
            height=height,
            synthetic=Facts(
                parents=[job.photo.parent, *(donor.parent for donor in made.painted.donors)],
                method=self._method,
                kind=job.kind,
                mask=f"{MASKS}/{name}",
                seed=job.seed,
                prompt=made.painted.prompt,
                details=dict(made.painted.details),
            ),
        )
        return Outcome(
            number=job.number, kind=job.kind, image=image, annotations=self._annotations(job, made, image.id)
        )

    def _annotations(self, job: Job, made: Made, image_id: int) -> list[MadeAnnotation]:
        """Return an annotation for each box of the photo that is still there, and one for what was made."""
        height, width = made.mask.shape
        shapes = [(shape, False) for shape in (*made.there.components, *made.there.defects)]
        outline: dict[str, Any] = {}
        if made.shape is not None:
            shapes.append((made.shape, True))
            outline = {"size": [height, width], "counts": run_lengths(made.mask)}
        annotations = []
        for number, (shape, is_made) in enumerate(shapes, start=1):
            x, y, across, down = to_bbox(shape.box)
            annotations.append(
                MadeAnnotation(
                    id=number,
                    image_id=image_id,
                    category_id=self._category[shape.name],
                    bbox=(x, y, across, down),
                    area=across * down if shape.area is None else shape.area,
                    segmentation=outline if is_made else [],
                    made=is_made,
                )
            )
        return annotations

    def note(self, outcome: Outcome) -> None:
        """Note that a job is done: a run that goes on will not do it again."""
        with (self.folder / _DONE).open("a", encoding="utf-8") as file:
            file.write(to_json(outcome) + "\n")
        self.made += outcome.image is not None

    def synthetic_file(self, outcomes: Sequence[Outcome], info: Info) -> SyntheticFile:
        """Return synthetic.json's content; annotations get ids that are unique in the file."""
        annotations = [annotation for outcome in outcomes for annotation in outcome.annotations]
        return SyntheticFile(
            info=info,
            images=[outcome.image for outcome in outcomes if outcome.image],
            annotations=[
                annotation.model_copy(update={"id": number})
                for number, annotation in enumerate(annotations, start=1)
            ],
            categories=[Category(id=number, name=name) for name, number in self._category.items()],
        )

    def finish(self, file: SyntheticFile) -> None:
        """Write synthetic.json and give the folder its name."""
        write_json(self.folder / SYNTHETIC_FILE, file)
        used = {Path(image.file_name).name for image in file.images}
        for folder in (IMAGES, MASKS):
            for path in (self.folder / folder).iterdir():
                if path.name not in used:  # a killed run wrote it and did not note it
                    path.unlink()
        for path in self.folder.iterdir():
            if path.name in (_SETTINGS, _DONE) or path.name.startswith("."):  # a lock
                path.unlink()
        self.folder.rename(self.output)

    def discard(self) -> None:
        """Remove all that was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def rejections(outcomes: Sequence[Outcome]) -> Counter[str]:
    """Count the jobs that gave no picture, by reason."""
    return Counter(outcome.rejected for outcome in outcomes if outcome.rejected is not None)


def _save_picture(path: Path, pixels: Pixels) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture_bytes(pixels))
