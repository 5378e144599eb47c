"""What a dry run shows beside the plan: which tokens of a record are learned, and the estimate of memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llava.common.records import IMAGE_PLACEHOLDER
from llava.train.data.packing import IGNORE, EncodedRecord
from llava.train.dataset import RecordSet
from llava.train.plan import Plan

_LEARNED, _READ, _IMAGE = "bold black on green", "dim", "bold cyan"


def label_panels(records: RecordSet, count: int = 3) -> Iterator[Panel]:
    """Show records spread evenly over the file as the model reads them: learned tokens are on green and, for
    terminals without colour, between `[[` and `]]`."""
    last = len(records.encoded) - 1
    for index in sorted({round(last * number / max(count - 1, 1)) for number in range(count)}):
        encoded = records.encoded[index]
        learned = int((encoded.labels != IGNORE).sum())
        processor = records.processor
        yield Panel(
            label_text(encoded, processor.tokenizer, processor.image_token_id),
            title=Text(f"{encoded.record_id}: {learned} of {len(encoded):,} tokens learned"),
            title_align="left",
        )


def label_text(encoded: EncodedRecord, tokenizer: Any, image_token_id: int) -> Text:
    """Render an encoded record's tokens as text, runs of image tokens as one `<image> x N`."""
    ids, labels = (values.tolist() for values in encoded.written_out())
    text = Text()
    read: list[int] = []  # without image tokens
    shown = ""
    kinds = (
        "picture" if token == image_token_id else "learned" if label != IGNORE else "read"
        for token, label in zip(ids, labels, strict=True)
    )
    at = 0
    for kind, run in groupby(kinds):
        length = sum(1 for _ in run)
        tokens = ids[at : at + length]
        at += length
        if kind == "picture":
            text.append(f"{IMAGE_PLACEHOLDER} x {length}", style=_IMAGE)
            continue
        # A tokenizer decodes a piece alone without its leading space: so decode everything so far, and cut.
        read += tokens
        decoded = tokenizer.decode(read, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        piece, shown = decoded[len(shown) :], decoded
        if kind == "learned":
            text.append("[[").append(piece, style=_LEARNED).append("]]")
        else:
            text.append(piece, style=_READ)
    return text


def memory_table(plan: Plan) -> Table:
    """Tabulate the estimate by part, and the device's memory below it."""
    total = sum(plan.parts.values())
    table = Table(title="Memory of a device at its peak, estimated")
    table.add_column("part")
    table.add_column("size", justify="right")
    table.add_column("", min_width=24)
    for part, size in plan.parts.items():
        if size:
            table.add_row(part, format_bytes(size), "█" * round(24 * size / total))
    table.add_section()
    style = "bold green" if plan.fits else "bold red"
    table.add_row("all", Text(format_bytes(total), style=style), "")
    table.add_row("the device has", format_bytes(plan.target.memory), "")
    return table


def memory_verdict(plan: Plan) -> Text:
    """Say whether the estimate is within the device's memory and, if not, what each change would give."""
    total, has = sum(plan.parts.values()), plan.target.memory
    if plan.fits:
        return Text(f"fits: {total / 1e9:.1f} of {has / 1e9:.0f} GB, estimated", style="bold green")
    text = Text(
        f"This may not fit: {format_bytes(total)} are estimated, the device has {format_bytes(has)}.",
        style="bold red",
    )
    for change, size in plan.remedies.items():
        text.append(f"\n  with {change}: {format_bytes(size)}", style="not bold")
    return text


def format_bytes(size: int) -> str:
    """Format bytes as MB below 0.1 GB, else as GB (10^6 and 10^9)."""
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e9:.2f} GB"
