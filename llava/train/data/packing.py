"""Shared-image packing: the tokens of an image once, then each of its questions as an isolated branch.

Records of one image that begin with the same tokens become one *group*: the shared prefix (system text,
image) once, then every record's remaining tokens as a *branch*. A branch sees the prefix and
itself, never a sibling, and its positions restart right after the prefix, so that loss and gradients
are those of the separate records. Prefix `p p p`, branches `a a` and `b b`, padding `.`:

    token     p p p a a b b .        who may look at whom (row looks at column)
    position  0 1 2 3 4 3 4 0
                                       p p p a a b b .
                                     p x
                                     p x x
                                     p x x x
                                     a x x x x
                                     a x x x x x
                                     b x x x     x
                                     b x x x     x x
                                     .               x

A row of the batch may hold several groups (each blind to the others). transformers takes the 4D mask, or
flex attention's BlockMask, unchanged (`masking_utils`: "if the mask is already 4D, simply return as-is")
together with the explicit positions. The mask must always be there: positions that restart *without* one
are read as ordinary packing, which cuts a branch off from its image without a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from llava.common.errors import InputError
from llava.processing.text import expand
from llava.processing.vision import Pixels, Size, VisionProcessor

IGNORE = -100
"""The label of a token that is read but not learned (torch's `ignore_index`)."""
FLEX, FLASH = "flex_attention", "flash_attention_2"
"""Names of `attn_implementation` that want another form of mask than SDPA does."""
FLEX_BLOCK = 128
"""Tokens a side of a BlockMask's blocks (torch's default)."""
MODEL_INPUTS = (
    "input_ids", "position_ids", "attention_mask", "pixel_values", "image_sizes", "batch_num_images"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class EncodedRecord:
    """A record as tokens, an image as one: `input_ids` and `labels` are (T,) integers, `labels` is IGNORE
    where nothing is learned; `images` holds a key for each image in the order of its tokens. `image_at` has
    the positions of the tokens that are more than one for the model, `image_tokens` how many each is."""

    record_id: str
    input_ids: np.ndarray
    labels: np.ndarray
    images: tuple[str, ...] = ()
    image_at: tuple[int, ...] = ()
    image_tokens: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, record_id: str, input_ids: Sequence[int], labels: Sequence[int], images: Iterable[str] = ()
    ) -> EncodedRecord:
        """Make one of tokens that are all written out."""
        ids, targets = np.asarray(input_ids, dtype=np.int64), np.asarray(labels, dtype=np.int64)
        if ids.shape != targets.shape or ids.ndim != 1:
            raise ValueError(f"record {record_id}: {ids.shape} tokens but {targets.shape} labels")
        return cls(record_id, ids, targets, tuple(images))

    def __len__(self) -> int:
        """Count the tokens that the model reads."""
        return len(self.input_ids) + self.hidden_tokens

    @property
    def hidden_tokens(self) -> int:
        """How many tokens of images are not written out."""
        return sum(self.image_tokens) - len(self.image_at)

    def written_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids and labels that the model reads, (len(self),) int64 each."""
        ids = expand(self.input_ids, self.image_at, self.image_tokens)
        labels = expand(self.labels, self.image_at, self.image_tokens)
        return ids.astype(np.int64, copy=False), labels.astype(np.int64, copy=False)


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """Encoded records that share their first `prefix` tokens as the model reads them, the image's among them.
    One record alone has prefix 0: it is an ordinary causal sequence."""

    records: tuple[EncodedRecord, ...]
    prefix: int = 0

    @property
    def length(self) -> int:
        """The number of tokens in packed form."""
        return self.prefix + sum(len(record) - self.prefix for record in self.records)

    @property
    def images(self) -> tuple[str, ...]:
        return self.records[0].images


@dataclass(frozen=True, eq=False)
class PackedRow:
    """Image groups laid end to end; arrays are (T,) int64. `targets[i]` is the token that position i is to
    predict, IGNORE where there is no loss; `group` and `branch` say which positions see each other (branch 0
    is the prefix)."""

    input_ids: np.ndarray
    position_ids: np.ndarray
    targets: np.ndarray
    group: np.ndarray
    branch: np.ndarray
    images: tuple[str, ...]
    record_ids: tuple[str, ...]


class Batch(TypedDict, total=False):
    """Rows of up to T tokens, right-padded to (B, T); int64 where not said otherwise.

    `collate` fills `attention_mask` and `position_ids`, or `group` and `branch`, as the attention
    implementation takes them.
    """

    input_ids: torch.Tensor
    """(B, T) token ids, image tokens among them."""
    position_ids: torch.Tensor
    """(B, T) rotary positions; they restart in each branch right after the prefix. Absent where each row is
    one record: the model's own are right then."""
    targets: torch.Tensor
    """(B, T) the token that each position is to predict, IGNORE where there is no loss."""
    attention_mask: torch.Tensor
    """SDPA: (B, 1, T, T) bool, which position sees which. Flash attention: (B, T), 0 on padding."""
    group: torch.Tensor
    """Flex attention: (B, T) the image group of each position, -1 on padding."""
    branch: torch.Tensor
    """Flex attention: (B, T) the branch within the group, 0 for the prefix."""
    pixel_values: torch.Tensor
    """float32, the images in the order of their tokens: (N, 3, H, W), or the squares and tiles of each."""
    image_sizes: list[Size]
    """LLaVA-1.6 and OneVision: (height, width) of each image in pixels."""
    batch_num_images: list[int]
    """OneVision: how many images each conversation has."""
    record_ids: list[str]
    """The ids of the records in the batch."""
    tokens: int
    """How many tokens there are without padding."""


def group_by_image(
    records: Iterable[EncodedRecord], image_token_id: int, max_length: int, *, packing: bool = True
) -> list[ImageGroup]:
    """Group the records of one image with the same leading tokens.

    Text-only records and records with several images are groups of one, as is every record when `packing` is
    false.

    Args:
        records: The encoded records, in any order.
        image_token_id: The id of an image token.
        max_length: The most tokens of a group.
        packing: Whether to group at all.

    Returns:
        The groups, in the order of their first record.

    Raises:
        InputError: A record is longer than `max_length` by itself; the message names it.
    """
    alike: dict[tuple[str, bytes] | int, list[EncodedRecord]] = {}
    for index, record in enumerate(records):
        if len(record) > max_length:
            raise InputError(
                f"record {record.record_id}: {len(record)} tokens, more than max_length={max_length};"
                " shorten it or raise max_length"
            )
        key: tuple[str, bytes] | int = index
        if packing and len(record.images) == 1:
            key = (record.images[0], record.input_ids[: _image_end(record, image_token_id)].tobytes())
        alike.setdefault(key, []).append(record)
    groups: list[ImageGroup] = []
    for members in alike.values():
        prefix = _shared_prefix(members, image_token_id) if len(members) > 1 else 0
        if not prefix:
            groups.extend(ImageGroup((record,)) for record in members)
            continue
        prefix += members[0].hidden_tokens  # those of its one image, which is in the prefix
        part: list[EncodedRecord] = []
        length = prefix
        for record in members:
            if part and length + len(record) - prefix > max_length:
                groups.append(_group(part, prefix))
                part, length = [], prefix
            part.append(record)
            length += len(record) - prefix
        groups.append(_group(part, prefix))
    return groups


def _group(records: list[EncodedRecord], prefix: int) -> ImageGroup:
    return ImageGroup(tuple(records), prefix if len(records) > 1 else 0)


def _image_end(record: EncodedRecord, image_token_id: int) -> int:
    """The index right after the last image token (0 without one)."""
    found = np.flatnonzero(record.input_ids == image_token_id)
    return int(found[-1]) + 1 if len(found) else 0


def _shared_prefix(records: Sequence[EncodedRecord], image_token_id: int) -> int:
    """Count the leading entries of `input_ids` that all records share and that can be read once; 0 if none
    can.

    The prefix's last position is followed by another token in each branch, so it must have no target:
    the first token of every branch is an unsupervised one. Where the supervised part begins right at
    the fork, the last shared token is therefore repeated in each branch.
    """
    shared = min(len(record.input_ids) for record in records) - 1
    first = records[0].input_ids
    for record in records:
        differs = np.flatnonzero(record.input_ids[:shared] != first[:shared])
        if len(differs):
            shared = int(differs[0])
        supervised = np.flatnonzero(record.labels[: shared + 1] != IGNORE)
        if len(supervised):
            shared = max(int(supervised[0]) - 1, 0)
    # A fork inside the image would need its features twice.
    return shared if shared >= _image_end(records[0], image_token_id) else 0


def attention_cost(length: int, hidden_size: int) -> int:
    """Estimate the cost of a row of `length` tokens, in units of 4 operations a layer (see `pack_rows`)."""
    return length * (6 * hidden_size + length)


def pack_rows(groups: Sequence[ImageGroup], max_length: int, hidden_size: int) -> list[list[ImageGroup]]:
    """Distribute `groups` over rows of at most `max_length` tokens (first fit, longest first).

    Long rows waste less padding but more attention under a dense mask; a transformer layer costs about
    `24 h^2 + 4 h T` operations a token (h `hidden_size`, T row length), so of a few row lengths the one
    with the smallest `rows * T * (6 h + T)` is taken.
    """
    ordered = sorted(groups, key=lambda group: -group.length)
    longest = ordered[0].length
    best: list[list[ImageGroup]] = []
    best_cost = float("inf")
    for capacity in sorted({longest, *(min(int(longest * scale), max_length) for scale in (1.5, 2, 4))}):
        rows: list[list[ImageGroup]] = []
        room: list[int] = []
        for group in ordered:
            for index, free in enumerate(room):
                if group.length <= free:
                    rows[index].append(group)
                    room[index] -= group.length
                    break
            else:
                rows.append([group])
                room.append(capacity - group.length)
        length = capacity - min(room)
        cost = len(rows) * attention_cost(length, hidden_size)
        if cost < best_cost:
            best, best_cost = rows, cost
    return best


def build_row(groups: Sequence[ImageGroup]) -> PackedRow:
    """Lay the groups end to end."""
    ids, positions, targets, group_of, branch_of = [], [], [], [], []
    for number, group in enumerate(groups):
        prefix = group.prefix
        written = [record.written_out() for record in group.records]
        pieces = [(written[0][0][:prefix], np.full(prefix, IGNORE), 0)] if prefix else []
        for branch, (input_ids, labels) in enumerate(written, start=1):
            following = np.append(labels[prefix + 1 :], IGNORE)
            pieces.append((input_ids[prefix:], following, branch))
        for tokens, wanted, branch in pieces:
            start = prefix if branch else 0
            ids.append(tokens)
            targets.append(wanted)
            positions.append(np.arange(start, start + len(tokens)))
            group_of.append(np.full(len(tokens), number))
            branch_of.append(np.full(len(tokens), branch))
    return PackedRow(
        np.concatenate(ids),
        np.concatenate(positions),
        np.concatenate(targets),
        np.concatenate(group_of),
        np.concatenate(branch_of),
        tuple(image for group in groups for image in group.images),
        tuple(record.record_id for group in groups for record in group.records),
    )


def branch_mask(group: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, T, T) bool, true where position i (third axis) sees position j (fourth).

    `group` and `branch` are (B, T) int; padding has group -1 (it sees itself, so that no softmax row is
    empty).
    """
    causal = torch.ones(group.shape[1], group.shape[1], dtype=torch.bool, device=group.device).tril()
    same_group = group[:, :, None] == group[:, None, :]
    visible = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    return (causal & same_group & visible)[:, None]


def block_mask(group: torch.Tensor, branch: torch.Tensor) -> BlockMask:
    """Build `branch_mask` in flex attention's form on the tensors' device: which blocks of 128 x 128 to
    visit, and the rule within them. A (B, T, T) bool tensor exists while the blocks are found, none while
    attention runs."""

    def visible(row: torch.Tensor, _: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        same_branch = (branch[row, j] == 0) | (branch[row, i] == branch[row, j])
        return (i >= j) & (group[row, i] == group[row, j]) & same_branch

    rows, length = group.shape
    return create_block_mask(visible, rows, None, length, length, device=group.device)


def collate(
    rows: Sequence[PackedRow],
    pixels: Callable[[str], Pixels],
    images: VisionProcessor,
    *,
    pad_token_id: int,
    attention: str = "sdpa",
) -> Batch:
    """Pad rows to one length and add what the attention implementation needs to keep branches apart.

    - sdpa: `attention_mask` (B, 1, T, T) bool. Where each row is one record there is none, and no
      `position_ids`: the model's own causal attention is right, as padding comes last, and quicker;
    - flex_attention: `group` and `branch` (B, T), of which `packed_loss` makes a BlockMask on the device;
      T is a multiple of its blocks;
    - flash_attention_2: `attention_mask` (B, T), 0 on padding.

    Args:
        rows: The packed rows.
        pixels: Gives an image's pixels by its key.
        images: The model family's vision processor, which makes the model's image inputs.
        pad_token_id: The id that fills short rows.
        attention: The name of the attention implementation.

    Raises:
        ValueError: A row holds several records under flash_attention_2, which takes no branches.
    """
    length = max(len(row.input_ids) for row in rows)
    if attention == FLEX:
        length = -(-length // FLEX_BLOCK) * FLEX_BLOCK

    def padded(name: str, fill: int) -> torch.Tensor:
        out = np.full((len(rows), length), fill, dtype=np.int64)
        for index, row in enumerate(rows):
            values = getattr(row, name)
            out[index, : len(values)] = values
        return torch.from_numpy(out)

    batch: Batch = {
        "input_ids": padded("input_ids", pad_token_id),
        "position_ids": padded("position_ids", 0),
        "targets": padded("targets", IGNORE),
        "record_ids": [record_id for row in rows for record_id in row.record_ids],
        "tokens": sum(len(row.input_ids) for row in rows),
    }
    group, branch = padded("group", -1), padded("branch", 0)
    if attention == FLEX:
        batch["group"], batch["branch"] = group, branch
    elif attention == FLASH:
        if any(len(row.record_ids) > 1 for row in rows):
            raise ValueError(f"{FLASH} knows no branches: a row must hold one record")
        batch["attention_mask"] = (group >= 0).long()
    elif all(len(row.record_ids) == 1 for row in rows):
        # Positions that no mask goes with must not restart: at padding they would.
        del batch["position_ids"]
    else:
        batch["attention_mask"] = branch_mask(group, branch)
    image_inputs: Any = images.inputs([pixels(image) for row in rows for image in row.images])
    batch.update(image_inputs)
    return batch


def packed_loss(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
    """Sum the cross-entropy over the batch's supervised tokens; return it with their number.

    `model` is transformers' of LLaVA's families (or a wrapper that calls it), with the attention that `batch`
    was collated for; only positions that have a target go through the LM head.
    """
    targets = batch["targets"]
    supervised = targets != IGNORE
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name in MODEL_INPUTS}
    if "group" in batch:
        inputs["attention_mask"] = block_mask(batch["group"], batch["branch"])
    # Boolean `logits_to_keep`: the logits come flat, (supervised tokens, vocabulary).
    logits = model(**inputs, logits_to_keep=supervised, use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wanted = targets[supervised]
    return F.cross_entropy(logits, wanted, reduction="sum"), wanted.numel()
