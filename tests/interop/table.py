"""Write the table in docs/interop.md from what the checks measured (docs/interop/*.json).

python tests/interop/table.py           # write
python tests/interop/table.py --check   # exit code 1 if the table is not that of the results
"""

from __future__ import annotations

import argparse
import re
import sys

from results import FOLDER, Check

from llava.common.files import read_text, write_text

PAGE = FOLDER.with_suffix(".md")
_PLACE = re.compile(r"(?<=<!-- interop -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table(checks: list[Check]) -> str:
    """A row per form and direction, then the command and the versions of each check."""
    lines = [
        "| form | reads | writes | checked against | largest logit difference | |",
        "|---|---|---|---|---|---|",
    ]
    for check in checks:
        for row in check.rows:
            largest = "-" if row.largest_difference is None else f"{row.largest_difference:.1e}"
            marks = ("yes" if row.reads else "", "yes" if row.writes else "")
            lines.append(
                f"| {row.form} | {marks[0]} | {marks[1]} | {row.checked_against} | {largest} | {row.note} |"
            )
    lines += ["", "Measured by:", ""]
    for check in checks:
        versions = ", ".join(f"{name} {version}" for name, version in check.versions.items())
        lines.append(f"- `{check.command}` ({check.date}; {versions})")
    return "\n".join(["", *lines, "", ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if the table is stale"
    )
    check = parser.parse_args().check
    found = [Check.model_validate_json(read_text(path)) for path in sorted(FOLDER.glob("*.json"))]
    old = read_text(PAGE)
    new = _PLACE.sub(lambda _: table(found), old)
    if new == old:
        return 0
    print(f"{PAGE.name}: {'its table is not that of docs/interop/*.json' if check else 'written'}")
    if not check:
        write_text(PAGE, new)
    return int(check)


if __name__ == "__main__":
    sys.exit(main())
