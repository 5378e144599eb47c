"""findings.csv and findings.xlsx: a row per finding."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eval.survey.findings import Finding
from llava.common.files import atomic_path
from llava.common.html.markup import readable

Cell = str | float | int | None
_CELLS: Mapping[str, Callable[[Finding], Cell]] = {
    "photo": lambda finding: finding.photo,
    "time": lambda finding: finding.time,
    "latitude": lambda finding: finding.latitude,
    "longitude": lambda finding: finding.longitude,
    "folder": lambda finding: finding.asset,
    "about": lambda finding: finding.about,
    "decision": lambda finding: finding.decision,
    "reason": lambda finding: finding.reason,
    "p_yes": lambda finding: finding.p_yes,
    "kind": lambda finding: finding.kind,
    "kind_probability": lambda finding: finding.kind_probability,
    "place": lambda finding: finding.place,
    "box": lambda finding: finding.box and ", ".join(f"{edge:.4f}" for edge in finding.box),
    "count": lambda finding: finding.count,
    "report": lambda finding: finding.report,
    "novelty": lambda finding: finding.novelty,
    "more_photos": lambda finding: "; ".join(finding.photos[1:]) or None,
    "problem": lambda finding: finding.problem,
    "id": lambda finding: finding.id,
}
COLUMNS = tuple(_CELLS)
_WIDTHS = {"photo": 36, "time": 20, "folder": 20, "place": 24, "report": 48, "more_photos": 36, "problem": 40}


def row(finding: Finding) -> tuple[Cell, ...]:
    """Return the cells of a finding, in the order of COLUMNS; the box is in 0..1 of the photo."""
    return tuple(cell(finding) for cell in _CELLS.values())


def write_csv(path: Path, findings: Sequence[Finding]) -> None:
    """Write the table with a byte order mark: without it Excel takes UTF-8 for another encoding."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            [f"{cell:.7g}" if isinstance(cell, float) and abs(cell) <= 1 else cell for cell in row(finding)]
            for finding in findings
        )


def can_write_xlsx() -> bool:
    """Tell whether openpyxl is installed, an extra."""
    return importlib.util.find_spec("openpyxl") is not None


def write_xlsx(path: Path, findings: Sequence[Finding]) -> None:
    """Write the table as a workbook with a filter on its head. Texts stay texts, also those that begin with
    `=`: a file's name is no formula."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    book = Workbook(write_only=True)
    sheet = book.create_sheet("findings")
    sheet.freeze_panes = "B2"
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(COLUMNS))}{len(findings) + 1}"
    for number, name in enumerate(COLUMNS, start=1):
        sheet.column_dimensions[get_column_letter(number)].width = _WIDTHS.get(name, 12)

    def cell(value: Cell, bold: bool = False) -> WriteOnlyCell:
        made = WriteOnlyCell(sheet, readable(value) if isinstance(value, str) else value)
        if isinstance(value, str):
            made.data_type = "s"
        if bold:
            made.font = Font(bold=True)
        return made

    sheet.append([cell(name, bold=True) for name in COLUMNS])
    for finding in findings:
        sheet.append([cell(value) for value in row(finding)])
    with atomic_path(path) as temporary:
        book.save(temporary)
