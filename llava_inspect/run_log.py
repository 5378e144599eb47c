"""What steps of a run were done, and with which inputs: `steps.json` in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.common.errors import InputError
from llava.common.files import read_json, write_json
from llava_inspect.run_steps import KINDS, Step


@dataclass(frozen=True)
class Log:
    """What steps were done of which inputs: `steps.json` in the output folder."""

    path: Path
    records: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, output: Path) -> Log:
        """Read the log in `output`; InputError if it is damaged, or the folder holds something else."""
        path = output / "steps.json"
        if path.is_file():
            records = read_json(path)
            if not _is_log(records):
                raise InputError(f"{path}: no log of a run's steps; name another folder by --output")
            return cls(path, records)
        if output.is_dir() and any(item.name != ".lock" for item in output.iterdir()):
            raise InputError(f"{output} holds something else than a run; name another folder by --output")
        return cls(path, {})

    def changed(self, step: Step, inputs: Mapping[str, str]) -> list[str]:
        """Return which inputs differ from those with which the step was begun, if it was."""
        if step.name not in self.records:
            return []
        before = self.records[step.name]["inputs"]
        return [name for name, value in step.inputs(inputs).items() if before.get(name) != value]

    def is_done(self, step: Step, inputs: Mapping[str, str]) -> bool:
        done = self.records.get(step.name, {}).get("seconds") is not None
        return done and step.output.exists() and not self.changed(step, inputs)

    def write(self, step: Step, inputs: Mapping[str, str], seconds: float | None = None) -> None:
        """Record that a step is begun, or that it is done and took so long."""
        self.records[step.name] = {"inputs": step.inputs(inputs), "seconds": seconds}
        write_json(self.path, self.records)


def _is_log(records: Any) -> bool:
    return isinstance(records, dict) and all(
        isinstance(record, dict) and isinstance(record.get("inputs"), dict) for record in records.values()
    )


def refuse_changed_inputs(
    output: Path, steps: Sequence[Step], inputs: Mapping[str, str], log: Log, remark: str = ""
) -> None:
    """Raise InputError if steps were done, or begun, with other inputs than those of now; it ends with
    `remark`."""
    stale = {step.name: log.changed(step, inputs) for step in steps if not step.quick}
    stale = {name: changed for name, changed in stale.items() if changed}
    if not stale:
        return
    changes = [text for kind, text in KINDS.items() if any(kind in changed for changed in stale.values())]
    raise InputError(
        f"{output} was made with {' and '.join(changes)}: add --overwrite to do it again from "
        f"{next(iter(stale))} on, or keep it and name a new --output{remark}"
    )
