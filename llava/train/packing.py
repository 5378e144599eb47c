"""Shared-image packing: a picture's tokens once, then each of its questions as an isolated branch.

Records of one picture that begin with the same tokens become one *group*: the shared prefix (system
text, picture) once, then every record's remaining tokens as a *branch*. A branch sees the prefix and
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
are read as ordinary packing, which cuts a branch off from its picture and says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from llava.common.errors import InputError
from llava.processing.vision import Pixels, VisionProcessor

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
class Sample:
    """One encoded record: `input_ids` and `labels` are (T,) int64, `labels` is IGNORE where nothing is
    learned; `pictures` holds a key for each picture in the order of its tokens."""

    record_id: str
    input_ids: np.ndarray
    labels: np.ndarray
    images: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, record_id: str, input_ids: Sequence[int], labels: Sequence[int], images: Iterable[str] = ()
    ) -> Sample:
        ids, targets = np.asarray(input_ids, dtype=np.int64), np.asarray(labels, dtype=np.int64)
        if ids.shape != targets.shape or ids.ndim != 1:
            raise ValueError(f"record {record_id}: {ids.shape} tokens but {targets.shape} labels")
        return cls(record_id, ids, targets, tuple(images))

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, eq=False)
class Group:
    """Samples that share their first `prefix` tokens, the picture's among them. One sample alone has
    prefix 0: then it is an ordinary causal sequence."""

    samples: tuple[Sample, ...]
    prefix: int = 0

    @property
    def length(self) -> int:
        """Tokens in the packed form."""
        return self.prefix + sum(len(sample) - self.prefix for sample in self.samples)

    @property
    def images(self) -> tuple[str, ...]:
        return self.samples[0].images


@dataclass(frozen=True, eq=False)
class Row:
    """Groups laid end to end; arrays are (T,) int64. `targets[i]` is the token that position i is to
    predict, IGNORE where there is no loss; `group` and `branch` say who may look at whom (branch 0 is
    the prefix)."""

    input_ids: np.ndarray
    position_ids: np.ndarray
    targets: np.ndarray
    group: np.ndarray
    branch: np.ndarray
    images: tuple[str, ...]
    record_ids: tuple[str, ...]


def group_by_image(
    samples: Iterable[Sample], image_token_id: int, max_length: int, *, packing: bool = True
) -> list[Group]:
    """Samples of one picture with the same leading tokens as groups of at most `max_length` tokens.

    Text-only samples and samples with several pictures are groups of one, as is every sample when
    `packing` is false. Groups come in the order of their first sample. Raises InputError naming the
    record that is longer than `max_length` by itself.
    """
    alike: dict[tuple[str, bytes] | int, list[Sample]] = {}
    for index, sample in enumerate(samples):
        if len(sample) > max_length:
            raise InputError(
                f"record {sample.record_id}: {len(sample)} tokens, more than max_length={max_length};"
                " shorten it or raise max_length"
            )
        key: tuple[str, bytes] | int = index
        if packing and len(sample.images) == 1:
            key = (sample.images[0], sample.input_ids[: _image_end(sample, image_token_id)].tobytes())
        alike.setdefault(key, []).append(sample)
    groups: list[Group] = []
    for members in alike.values():
        prefix = _shared_prefix(members, image_token_id) if len(members) > 1 else 0
        if not prefix:
            groups.extend(Group((sample,)) for sample in members)
            continue
        part: list[Sample] = []
        length = prefix
        for sample in members:
            if part and length + len(sample) - prefix > max_length:
                groups.append(_group(part, prefix))
                part, length = [], prefix
            part.append(sample)
            length += len(sample) - prefix
        groups.append(_group(part, prefix))
    return groups


def _group(samples: list[Sample], prefix: int) -> Group:
    return Group(tuple(samples), prefix if len(samples) > 1 else 0)


def _image_end(sample: Sample, image_token_id: int) -> int:
    """The index right after the last picture token (0 without one)."""
    found = np.flatnonzero(sample.input_ids == image_token_id)
    return int(found[-1]) + 1 if len(found) else 0


def _shared_prefix(samples: Sequence[Sample], image_token_id: int) -> int:
    """How many leading tokens all samples share and may be read once; 0 if sharing is impossible.

    The prefix's last position is followed by another token in each branch, so it must have no target:
    the first token of every branch is an unsupervised one. Where the supervised part begins right at
    the fork, the last shared token is therefore repeated in each branch.
    """
    shared = min(len(sample) for sample in samples) - 1
    first = samples[0].input_ids
    for sample in samples:
        differs = np.flatnonzero(sample.input_ids[:shared] != first[:shared])
        if len(differs):
            shared = int(differs[0])
        supervised = np.flatnonzero(sample.labels[: shared + 1] != IGNORE)
        if len(supervised):
            shared = max(int(supervised[0]) - 1, 0)
    # A fork inside the picture would need its features twice.
    return shared if shared >= _image_end(samples[0], image_token_id) else 0


def attention_cost(length: int, hidden_size: int) -> int:
    """What a row of `length` tokens costs, in units of 4 operations a layer (see `pack_rows`)."""
    return length * (6 * hidden_size + length)


def pack_rows(groups: Sequence[Group], max_length: int, hidden_size: int) -> list[list[Group]]:
    """Distribute `groups` over rows of at most `max_length` tokens (first fit, longest first).

    Long rows waste less padding but more attention under a dense mask; a transformer layer costs about
    `24 h^2 + 4 h T` operations a token (h `hidden_size`, T row length), so of a few row lengths the one
    with the smallest `rows * T * (6 h + T)` is taken.
    """
    ordered = sorted(groups, key=lambda group: -group.length)
    longest = ordered[0].length
    best: list[list[Group]] = []
    best_cost = float("inf")
    for capacity in sorted({longest, *(min(int(longest * scale), max_length) for scale in (1.5, 2, 4))}):
        rows: list[list[Group]] = []
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


def build_row(groups: Sequence[Group]) -> Row:
    """Lay the groups end to end."""
    ids, positions, targets, group_of, branch_of = [], [], [], [], []
    for number, group in enumerate(groups):
        prefix = group.prefix
        shared = group.samples[0].input_ids[:prefix]
        pieces = [(shared, np.full(prefix, IGNORE), 0)] if prefix else []
        for branch, sample in enumerate(group.samples, start=1):
            following = np.append(sample.labels[prefix + 1 :], IGNORE)
            pieces.append((sample.input_ids[prefix:], following, branch))
        for tokens, wanted, branch in pieces:
            start = prefix if branch else 0
            ids.append(tokens)
            targets.append(wanted)
            positions.append(np.arange(start, start + len(tokens)))
            group_of.append(np.full(len(tokens), number))
            branch_of.append(np.full(len(tokens), branch))
    return Row(
        np.concatenate(ids),
        np.concatenate(positions),
        np.concatenate(targets),
        np.concatenate(group_of),
        np.concatenate(branch_of),
        tuple(image for group in groups for image in group.images),
        tuple(sample.record_id for group in groups for sample in group.samples),
    )


def branch_mask(group: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """(B, 1, T, T) bool, true where position i (third axis) may look at position j (fourth).

    `group` and `branch` are (B, T) int; padding has group -1 (it sees itself, so that no softmax row is
    empty).
    """
    causal = torch.ones(group.shape[1], group.shape[1], dtype=torch.bool, device=group.device).tril()
    same_group = group[:, :, None] == group[:, None, :]
    visible = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    return (causal & same_group & visible)[:, None]


def block_mask(group: torch.Tensor, branch: torch.Tensor) -> BlockMask:
    """`branch_mask` for flex attention, on the tensors' device: which blocks of 128 x 128 to visit, and the
    rule within them. A (B, T, T) bool tensor exists while the blocks are found, none while attention runs."""

    def visible(row: torch.Tensor, _: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        same_branch = (branch[row, j] == 0) | (branch[row, i] == branch[row, j])
        return (i >= j) & (group[row, i] == group[row, j]) & same_branch

    rows, length = group.shape
    return create_block_mask(visible, rows, None, length, length, device=group.device)


def collate(
    rows: Sequence[Row],
    pixels: Callable[[str], Pixels],
    images: VisionProcessor,
    *,
    pad_token_id: int,
    attention: str = "sdpa",
) -> dict[str, Any]:
    """Rows of up to T tokens as a right-padded batch.

    `pixels(key)` gives a picture, `pictures` is its family. Returns `input_ids`, `position_ids`, `targets`
    (B, T), the family's inputs for the pictures in the order of their tokens, `record_ids`, the records
    within, `tokens`, how many there are without padding, and who may look at whom as the `attention`
    implementation wants it:

    - sdpa: `attention_mask` (B, 1, T, T) bool. Where each row is one record there is none, and no
      `position_ids`: the model's own causal attention is right, as padding comes last, and quicker;
    - flex_attention: `group` and `branch` (B, T), of which `packed_loss` makes a BlockMask on the device;
      T is a multiple of its blocks;
    - flash_attention_2: `attention_mask` (B, T), 0 on padding, so ValueError unless each row is one record.
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

    batch: dict[str, Any] = {
        "input_ids": padded("input_ids", pad_token_id),
        "position_ids": padded("position_ids", 0),
        "targets": padded("targets", IGNORE),
        "record_ids": [record_id for row in rows for record_id in row.record_ids],
        "tokens": sum(len(row.input_ids) for row in rows),
    }
    group, branch = padded("group", -1), padded("branch", 0)
    if attention == FLEX:
        batch |= {"group": group, "branch": branch}
    elif attention == FLASH:
        if any(len(row.record_ids) > 1 for row in rows):
            raise ValueError(f"{FLASH} knows no branches: a row must hold one record")
        batch["attention_mask"] = (group >= 0).long()
    elif all(len(row.record_ids) == 1 for row in rows):
        # Positions that no mask goes with must not restart: at padding they would.
        del batch["position_ids"]
    else:
        batch["attention_mask"] = branch_mask(group, branch)
    return batch | images.inputs([pixels(image) for row in rows for image in row.images])


def packed_loss(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """The summed cross-entropy of the batch's supervised tokens, and how many they are.

    `model` is transformers' of LLaVA's families (or a wrapper that calls it), with the attention that `batch`
    was collated for; only positions that have a target go through the LM head.
    """
    targets = batch["targets"]
    supervised = targets != IGNORE
    inputs = {name: batch[name] for name in MODEL_INPUTS if name in batch}
    if "group" in batch:
        inputs["attention_mask"] = block_mask(batch["group"], batch["branch"])
    # Boolean `logits_to_keep`: the logits come flat, (supervised tokens, vocabulary).
    logits = model(**inputs, logits_to_keep=supervised, use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wanted = targets[supervised]
    return F.cross_entropy(logits, wanted, reduction="sum"), wanted.numel()
