"""findings.csv and findings.xlsx: a row per finding."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from eval.survey.findings import Finding
from llava.common.files import atomic_path
from llava.common.html.markup import readable

COLUMNS = (
    *("photo", "time", "latitude", "longitude", "folder", "about", "decision", "reason", "p_yes"),
    *(
        "kind",
        "kind_probability",
        "place",
        "box",
        "count",
        "report",
        "novelty",
        "more_photos",
        "problem",
        "id",
    ),
)
_WIDTHS = {"photo": 36, "time": 20, "folder": 20, "place": 24, "report": 48, "more_photos": 36, "problem": 40}
Cell = str | float | int | None


def row(finding: Finding) -> tuple[Cell, ...]:
    """Return the cells of a finding, in the order of COLUMNS; the box is in 0..1 of the photo."""
    box = None if finding.box is None else ", ".join(f"{value:.4f}" for value in finding.box)
    return (
        *(finding.photo, finding.time, finding.latitude, finding.longitude, finding.asset, finding.about),
        *(finding.decision, finding.reason, finding.p_yes, finding.kind, finding.kind_probability),
        *(finding.place, box, finding.count, finding.report, finding.novelty),
        *("; ".join(finding.photos[1:]) or None, finding.problem, finding.id),
    )


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
