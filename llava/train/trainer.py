"""transformers' Trainer, taught packed batches, a learning rate per part, and checkpoints that are whole.

What is the Trainer's stays the Trainer's (steps, schedule, accumulation, devices, resuming); overridden is
what it does not know: the loss over supervised tokens, validation by answering, what a checkpoint holds.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from llava.engine import Engine, Request
from llava.errors import InputError
from llava.model.builder import LoadedModel
from llava.model.lora import PROJECTOR, VISION, load_weights, save_adapter
from llava.model.run_dir import RUN_FILE, RunInfo, copy_processor_files, write_run_info
from llava.records import IMAGE_PLACEHOLDER
from llava.train.config import TrainSettings
from llava.train.dataset import Item, RecordSet, TrainItems
from llava.train.packing import IGNORE, build_row, collate, pack_rows, packed_loss

Batch = dict[str, Any]
CONFIG_FILE = "config.yaml"
_STATE_FILE = "trainer_state.json"


class Collator:
    """Items -> a packed batch (see `packing.collate`)."""

    def __init__(self, max_length: int, hidden_size: int, pad_token_id: int) -> None:
        self.max_length = max_length
        self.hidden_size = hidden_size
        self.pad_token_id = pad_token_id

    def __call__(self, items: list[Item]) -> Batch:
        groups = [group for item in items for group in item.groups]
        pixels = {key: value for item in items for key, value in item.pixels.items()}
        rows = [build_row(row) for row in pack_rows(groups, self.max_length, self.hidden_size)]
        return collate(rows, pixels.__getitem__, pad_token_id=self.pad_token_id)


class LoraTrainer(Trainer):
    """Trains `model`, a PEFT model around `loaded.model`, as `settings` say.

    `run_info` and `config_text` go into every checkpoint. Since the start, on this process: `read_tokens`
    (supervised) and `read_pictures` were trained on, `validation_seconds` went into validation.
    """

    model: PeftModel

    # compute_loss divides by the supervised tokens of the whole step, so nothing is left to scale.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PeftModel,
        arguments: TrainingArguments,
        *,
        loaded: LoadedModel,
        settings: TrainSettings,
        train_items: TrainItems,
        validation: RecordSet | None,
        run_info: RunInfo,
        config_text: str,
        processor_folder: Path,
        show_validation: Callable[[int, dict[str, float]], None],
    ) -> None:
        self.loaded = loaded
        self.settings = settings
        self.validation = validation
        self.run_info = run_info
        self.config_text = config_text
        self.processor_folder = processor_folder
        self.show_validation = show_validation
        self.read_tokens = 0
        self.read_pictures = 0
        self.validation_seconds = 0.0
        self.run_dir = settings.output_dir
        config: Any = loaded.model.config
        pad = loaded.tokenizer.pad_token_id
        self.collate = Collator(
            settings.max_length,
            int(config.text_config.hidden_size),
            int(loaded.tokenizer.eos_token_id if pad is None else pad),
        )
        super().__init__(
            model=model,
            args=arguments,
            data_collator=self.collate,
            train_dataset=train_items,
            eval_dataset=validation,  # evaluate() reads it; the Trainer only wants to see that it is there
        )

    # Steps

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate per part. Weight decay is for matrices only."""
        rates = {
            PROJECTOR: self.settings.mm_projector_lr,
            VISION: self.settings.vision_lr,
        }
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            part = next((part for part in rates if f".{part}" in f".{name}"), "")
            rate = rates.get(part) or self.settings.learning_rate
            decay = self.settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        kind, keywords = self.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer = kind(
            [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()],
            **keywords,
        )
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> torch.Tensor:
        """The supervised tokens of a whole optimiser step, over all devices."""
        count = torch.tensor(
            sum(int((batch["targets"] != IGNORE).sum()) for batch in batch_samples), device=device
        )
        return self.accelerator.gather(count).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """This batch's share of the mean loss over the step's supervised tokens."""
        total, count = packed_loss(model, inputs)
        if not torch.isfinite(total):
            raise InputError(
                f"the loss became {total.item()} in step {self.state.global_step + 1}, reading the records "
                f"{', '.join(inputs['record_ids'])}; lower learning_rate or look at these records"
            )
        self.read_tokens += count
        self.read_pictures += len(inputs.get("pixel_values", ()))
        # Several devices' gradients are averaged, and this is a share of a sum.
        return total * self.accelerator.num_processes / (num_items_in_batch or count)

    def floating_point_ops(self, inputs: Batch) -> int:
        return 0  # the estimate would walk all parameters at every step

    # Validation

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Validation loss over all records and, on a sample, how greedy answers agree with the truth."""
        if self.validation is None:
            raise ValueError("there is no validation set")
        started = time.monotonic()
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._arithmetic():
            figures = self._validation_loss(self.validation)
            if self.settings.eval_generate_samples:
                figures |= self._answer_sample(self.validation)
        self.model.train(training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.validation_seconds += time.monotonic() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.show_validation(self.state.global_step, figures)
        return metrics

    def _arithmetic(self) -> Any:
        if self.args.bf16:
            return torch.autocast(self.args.device.type, torch.bfloat16)
        return nullcontext()

    def _validation_loss(self, records: RecordSet) -> dict[str, float]:
        size = self.settings.eval_batch_size or self.settings.batch_size
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        starts = range(0, len(records.sources), size)[rank::ranks]
        sums = torch.zeros(2, dtype=torch.float64)
        for start in starts:
            sources = range(start, min(start + size, len(records.sources)))
            batch = self._prepare_inputs(self.collate([records.item(source) for source in sources]))
            total, count = packed_loss(self.model, batch)
            sums += torch.tensor([total.item(), count], dtype=torch.float64)
        total_loss, tokens = self._sum_over_devices(sums)
        return {"loss": total_loss / tokens if tokens else math.nan}

    def _answer_sample(self, records: RecordSet) -> dict[str, float]:
        """The first question of records drawn evenly over pictures, the same ones at every validation."""
        chosen = sample_records(records, self.settings.eval_generate_samples, self.settings.seed)
        chosen = chosen[self.accelerator.process_index :: self.accelerator.num_processes]
        pixels: dict[str, torch.Tensor] = {}
        requests = []
        for index in chosen:
            record = records.records[index]
            for name in record.images:
                if name not in pixels:
                    pixels[name] = records.pictures.pixels(name)
            text = record.conversations[0].value
            asked = record.images[: text.count(IMAGE_PLACEHOLDER)]  # the rest belong to later turns
            requests.append(Request(record.id, text, [pixels[name] for name in asked]))
        results = Engine(self.loaded).answer(
            requests, batch_size=32, max_new_tokens=self.settings.eval_max_new_tokens
        )
        pairs = [
            (records.records[index].conversations[1].value, result.text)
            for index, result in zip(chosen, results, strict=True)
        ]
        return answer_figures(self._sum_over_devices(count_answers(pairs)))

    def _sum_over_devices(self, sums: torch.Tensor) -> list[float]:
        gathered = self.accelerator.gather(sums.to(self.args.device)[None])
        return gathered.sum(dim=0).tolist()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the Trainer does, and a new best is always written to disk."""
        best = super()._determine_best_metric(metrics, trial)
        if best:
            self.control.should_save = True
        return best

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A folder that loads and merges alone. run.json comes last: without it the folder is no run."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_FILE).unlink(missing_ok=True)
        save_adapter(self.model, folder, projector=self.run_info.projector_trained)
        copy_processor_files(self.processor_folder, folder)
        (folder / CONFIG_FILE).write_text(self.config_text, encoding="utf-8")
        write_run_info(folder, self.run_info.model_copy(update={"step": self.state.global_step}))

    def checkpoint(self, step: int) -> Path:
        return self.run_dir / f"checkpoint-{step}"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write under a name that nothing takes for a checkpoint, rename when all is there."""
        final = self.checkpoint(self.state.global_step)
        partial = final.with_name(f".{final.name}.partial")
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.save_model(str(partial), _internal_call=True)
        self._save_optimizer_and_scheduler(str(partial))
        self._save_scaler(str(partial))
        self._save_rng_state(str(partial))
        if self.args.should_save:
            self.state.save_to_json(str(partial / _STATE_FILE))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            best = self.best_checkpoint()
            rotate_checkpoints(
                str(self.run_dir),
                save_total_limit=self.settings.keep_checkpoints,
                best_model_checkpoint=None if best is None else str(best),
            )

    def best_checkpoint(self) -> Path | None:
        """The best validated state's checkpoint; None without validation or where it lies elsewhere."""
        if not self.state.best_global_step:
            return None
        folder = self.checkpoint(self.state.best_global_step)
        return folder if folder.is_dir() else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.model, Path(resume_from_checkpoint), projector=self.run_info.projector_trained)

    def finish(self) -> int:
        """Put the best state (the last without validation) into the run directory; its step."""
        best = self.best_checkpoint()
        step = self.state.global_step
        if best is not None:
            load_weights(self.model, best, projector=self.run_info.projector_trained)
            step = self.state.best_global_step or step
        if self.args.should_save:
            self.state.save_to_json(str(self.run_dir / _STATE_FILE))
            last, self.state.global_step = self.state.global_step, step
            self.save_model()
            self.state.global_step = last
        return step


def sample_records(records: RecordSet, count: int, seed: int) -> list[int]:
    """At most `count` record indices, spread evenly over pictures; a picture's records stay together."""
    rng = np.random.default_rng(seed)
    order = [rng.permutation(indices).tolist() for indices in records.sources]
    turns = rng.permutation(len(order)).tolist()
    share = -(-count // len(order))  # rounded up
    taken = [order[source][:share] for source in turns]
    return [index for indices in taken for index in indices][:count]


def normalise(answer: str) -> str:
    """An answer without what does not change it: case, spaces around and repeated, a final full stop."""
    return " ".join(answer.lower().split()).rstrip(".").strip()


def count_answers(pairs: list[tuple[str, str]]) -> torch.Tensor:
    """(expected, given) -> [questions, right, yes-questions, right ones, no-questions, right ones, said yes
    to either], float64."""
    counts = torch.zeros(7, dtype=torch.float64)
    for expected, given in ((normalise(a), normalise(b)) for a, b in pairs):
        counts[0] += 1
        counts[1] += expected == given
        if expected in ("yes", "no"):
            place = 2 if expected == "yes" else 4
            counts[place] += 1
            counts[place + 1] += expected == given
            counts[6] += given == "yes"
    return counts


def answer_figures(counts: list[float]) -> dict[str, float]:
    """`accuracy` (exact match after `normalise`); for yes/no questions, where there are both kinds,
    `yesno` (balanced accuracy) and `said_yes` (the share answered yes)."""
    questions, right, yes, yes_right, no, no_right, said_yes = counts
    figures = {"accuracy": right / questions} if questions else {}
    if yes and no:
        figures["yesno"] = (yes_right / yes + no_right / no) / 2
        figures["said_yes"] = said_yes / (yes + no)
    return figures
