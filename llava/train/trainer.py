"""transformers' Trainer with packed batches, a learning rate per part, and checkpoints that load alone.

The Trainer keeps what it does well (steps, schedule, accumulation, devices, resuming). LoraTrainer overrides
the rest: the loss over supervised tokens, validation by answering, what a checkpoint holds.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from accelerate.utils.constants import FSDP_MODEL_NAME
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from llava.common.errors import InputError
from llava.model.builder import LoadedModel, attention_of_parts
from llava.model.folder import ModelFolder
from llava.model.formats import PROJECTOR, VISION
from llava.model.lora import load_adapter_weights, save_adapter
from llava.model.run_dir import RUN_FILE, RunInfo, write_run_info
from llava.train.arguments import attention_implementation
from llava.train.config import TrainSettings
from llava.train.data.packing import IGNORE, Batch, packed_loss
from llava.train.data.sampler import train_loader
from llava.train.dataset import Collator, TrainingSet
from llava.train.interruption import RunControl, unwrap_worker_error
from llava.train.metrics import Meter, append_answers, drop_answers_after, send_answers
from llava.train.runs import ANSWERS_FILE, CONFIG_FILE
from llava.train.schedule import notes_on
from llava.train.sharded import full_parameters, full_shape, is_sharded
from llava.train.validation import Answer, Validation, answer_figures, count_answers

_STATE_FILE = "trainer_state.json"


def _count_images(batch: Batch) -> int:
    images = batch.get("image_sizes", batch.get("pixel_values"))
    return 0 if images is None else len(images)


class LoraTrainer(Trainer):
    """Trains a PEFT model around a loaded LLaVA.

    `meter` holds what was read and how fast, `run_control` the signal that stopped the run, if one did.

    One optimiser step, with `*` where this class overrides the Trainer or relies on a private method of it
    (transformers 5.23.0, trainer.py; tests/llava/train/test_trainer_hooks.py fails when it changes):

        train* -> _inner_training_loop -> _run_epoch*         sets the epoch's order of examples
          get_batch_samples*                                  the step's batches; unwraps a worker's error
            _get_num_items_in_batch*                          supervised tokens of the step, all processes
          training_step                                       once a batch
            compute_loss*                                     packed_loss / supervised tokens of the step
            accelerator.backward                              gradients add up (loss_is_scaled_for_ga*)
          on_pre_optimizer_step, optimizer, scheduler, on_step_end
                                                              Meter: rates; RunControl: what comes next
          _maybe_log_save_evaluate
            log*                                              the loss beside rates
            evaluate*                                         validation loss and answers
              _determine_best_metric*                         a new best is saved at once
            _save_checkpoint*                                 save_model*, _save_optimizer_and_scheduler*,
                                                              _save_scaler*, _save_rng_state*; a rename

    Resuming calls _load_from_checkpoint* for the weights; the Trainer loads the other states itself.
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
        training_set: TrainingSet,
        validation: Validation | None,
        run_info: RunInfo,
        config_text: str,
        base: ModelFolder,
        show_validation: Callable[[int, dict[str, float]], None],
    ) -> None:
        """Set up the training of one run.

        Args:
            model: The PEFT model around `loaded.model`.
            arguments: The Trainer's arguments, made from `settings` (`arguments.training_arguments`).
            loaded: The base model with its tokenizer and processor.
            settings: The run's settings.
            training_set: The examples to train on.
            validation: How to validate; None for no validation.
            run_info: The run's description, which goes into every checkpoint.
            config_text: The resolved settings as YAML, which go there too.
            base: The base model's folder, whose tokenizer and image processor go there too.
            show_validation: Called with the step and the figures of each validation.
        """
        self.loaded = loaded
        self.settings = settings
        self.training_set = training_set
        self.validation = validation
        self.run_info = run_info
        self.config_text = config_text
        self.base = base
        self.show_validation = show_validation
        self.meter = Meter()
        self.run_control = RunControl()
        self.run_dir = settings.output_dir
        config: Any = loaded.model.config
        pad = loaded.tokenizer.pad_token_id
        self.collate = Collator(
            loaded.processor.vision,
            settings.max_length,
            int(config.text_config.hidden_size),
            int(loaded.tokenizer.eos_token_id if pad is None else pad),
            attention_implementation(settings, arguments),
        )
        super().__init__(
            model=model,
            args=arguments,
            data_collator=cast(Any, self.collate),
            train_dataset=training_set,
            eval_dataset=None
            if validation is None
            else validation.records,  # evaluate() reads it; the Trainer only wants to see that it is there
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(self.meter)
        self.add_callback(self.run_control)

    # Steps

    def get_train_dataloader(self) -> Any:
        return self.accelerator.prepare(train_loader(self.train_dataset, self.collate, self.args))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate per part. Weight decay is for matrices only."""
        parts = {PROJECTOR: "projector", VISION: "vision"}
        rates = {"projector": self.settings.mm_projector_lr, "vision": self.settings.vision_lr}
        groups: dict[tuple[str, float], list[torch.nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            part = next((part for prefix, part in parts.items() if f".{prefix}" in f".{name}"), "language")
            decay = self.settings.weight_decay if len(full_shape(parameter)) > 1 else 0.0
            groups.setdefault((part, decay), []).append(parameter)
        kind, keywords = self.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer = kind(
            [
                {
                    "params": parameters,
                    "name": part,
                    "lr": rates.get(part) or self.settings.learning_rate,
                    "weight_decay": decay,
                }
                for (part, decay), parameters in groups.items()
            ],
            **keywords,
        )
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> torch.Tensor:
        """Count the supervised tokens of a whole optimiser step, over all devices.

        In the same exchange the processes share what they read and whether one got a signal to stop.
        """
        local = [
            sum(int(batch["tokens"]) for batch in batch_samples),
            sum(int((batch["targets"] != IGNORE).sum()) for batch in batch_samples),
            sum(_count_images(batch) for batch in batch_samples),
            self.run_control.received,
        ]
        gathered = self.accelerator.gather(torch.tensor([local], device=device))
        read = gathered[:, :3].sum(dim=0)
        if self.args.world_size > 1:
            self.run_control.agreed = int(gathered[:, 3].max())
        self.meter.count(read.cpu())
        return read[1]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().get_batch_samples(*args, **kwargs)
        except InputError as error:
            raise unwrap_worker_error(error) from None

    def _run_epoch(self, model: Any, epoch: int, *args: Any, **kwargs: Any) -> None:
        """Run an epoch in its own order of examples; take no step where a resumed run was finished."""
        self.training_set.set_epoch(epoch)
        if self.state.global_step >= self.state.max_steps or self._patience_exhausted():
            self.control.should_training_stop = True
        else:
            super()._run_epoch(model, epoch, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as the Trainer does; beside a loss go the speed and the learning rates of its steps."""
        super().log(logs | self.meter.figures() if "loss" in logs else logs, start_time)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute this batch's share of the mean loss over the step's supervised tokens."""
        total, count = packed_loss(model, cast(Batch, inputs))
        if not torch.isfinite(total):
            raise InputError(
                f"the loss became {total.item()} in step {self.state.global_step + 1}, reading the records "
                f"{', '.join(inputs['record_ids'])}; lower learning_rate or look at these records"
            )
        # Several devices' gradients are averaged, and this is a share of a sum.
        return total * self.accelerator.num_processes / (num_items_in_batch or count)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the estimate would walk all parameters at every step

    # Validation

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Compute the loss over all validation records, and compare greedy answers to some with the truth."""
        if self.validation is None:
            raise ValueError("there is no validation set")
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._autocast(), self.meter.pause():
            figures = self._validate(self.validation)
        self.model.train(training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.show_validation(self.state.global_step, figures)
        return metrics

    def _autocast(self) -> Any:
        if not (self.args.bf16 or self.args.fp16):
            return nullcontext()
        return torch.autocast(self.args.device.type, torch.bfloat16 if self.args.bf16 else torch.float16)

    def _validate(self, validation: Validation) -> dict[str, float]:
        """Validate a share of the records on each device and add the shares up."""
        part = (self.accelerator.process_index, self.accelerator.num_processes)
        total, tokens = self._sum_over_devices(
            validation.loss(self.model, self._prepare_inputs, self.collate, *part)
        )
        figures = {"loss": total / tokens if tokens else math.nan}
        if self.settings.eval_generate_samples and not is_sharded(self.settings):
            answers = self._answers(validation, *part)
            counts = count_answers([(answer.expected, answer.answer) for answer in answers])
            figures |= answer_figures(counts.tolist())
        return figures

    def _answers(self, validation: Validation, rank: int, ranks: int) -> list[Answer]:
        """Gather all devices' answers; the first process writes them down and sends them to the trackers."""
        model: Any = self.loaded.model
        model.set_attn_implementation("sdpa")  # the engine's masks are its
        share = validation.answers(rank, ranks)
        model.set_attn_implementation(attention_of_parts(attention_implementation(self.settings, self.args)))
        answers: list[Answer] = gather_object(share) if ranks > 1 else share
        if self.args.should_save:
            append_answers(self.run_dir / ANSWERS_FILE, self.state.global_step, answers)
            send_answers(self.callback_handler.callbacks, self.state.global_step, answers)
        return answers

    def _sum_over_devices(self, sums: torch.Tensor) -> list[float]:
        gathered = self.accelerator.gather(sums.to(self.args.device)[None])
        return gathered.sum(dim=0).tolist()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Compare as the Trainer does; save a new best, and end the run after too long without one."""
        best = super()._determine_best_metric(metrics, trial)
        if best:
            self.control.should_save = True
        if self._patience_exhausted():
            self.control.should_save = self.control.should_training_stop = True
        return best

    def _patience_exhausted(self) -> bool:
        patience = self.settings.early_stopping_patience  # a number or None: `auto` is decided
        best = self.state.best_global_step or 0
        since = sum("eval_loss" in entry and entry["step"] > best for entry in self.state.log_history)
        return isinstance(patience, int) and since >= patience

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a folder that loads and merges alone; run.json comes last, for it makes the folder a run."""
        with full_parameters(self.model):
            self._write_run(Path(output_dir or self.run_dir))

    def _write_run(self, folder: Path) -> None:
        if not self.args.should_save:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_FILE).unlink(missing_ok=True)
        save_adapter(self.model, folder, projector=self.run_info.projector_trained)
        self.base.write_processor_files(folder)
        (folder / CONFIG_FILE).write_text(self.config_text, encoding="utf-8")
        write_run_info(folder, self.run_info.model_copy(update={"step": self.state.global_step}))

    def checkpoint(self, step: int) -> Path:
        return self.run_dir / f"checkpoint-{step}"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write under a name that nothing takes for a checkpoint; rename it when it is complete."""
        with self.meter.pause():
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
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

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save as the Trainer does, without the copy of the adapters that it adds under FSDP."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            (Path(output_dir) / f"{FSDP_MODEL_NAME}.bin").unlink(missing_ok=True)

    def best_checkpoint(self) -> Path | None:
        """Find the checkpoint of the best validated state; None without validation or if it is elsewhere."""
        if not self.state.best_global_step:
            return None
        folder = self.checkpoint(self.state.best_global_step)
        return folder if folder.is_dir() else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with full_parameters(self.model, keep_changes=True):
            load_adapter_weights(
                self.model, Path(resume_from_checkpoint), projector=self.run_info.projector_trained
            )

    def train(
        self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> Any:
        """Train as the Trainer does; drop validation answers after the checkpoint: they are given again."""
        if resume_from_checkpoint and self.args.should_save:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / _STATE_FILE))
            drop_answers_after(self.run_dir / ANSWERS_FILE, state.global_step)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def finish(self) -> int:
        """Put the best state (without validation, the last) into the run directory and return its step; what
        there is to know about it goes into run.json."""
        notes = notes_on(self.state.log_history, self.settings)
        self.run_info = self.run_info.model_copy(update={"notes": notes})
        best = self.best_checkpoint()
        step = self.state.global_step
        with full_parameters(self.model):
            if best is not None:
                load_adapter_weights(self.model, best, projector=self.run_info.projector_trained)
                step = self.state.best_global_step or step
            if self.args.should_save:
                self.state.save_to_json(str(self.run_dir / _STATE_FILE))
            last, self.state.global_step = self.state.global_step, step
            self._write_run(self.run_dir)
            self.state.global_step = last
        return step
