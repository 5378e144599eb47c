"""transformers' Trainer, taught packed batches, a learning rate per part, and checkpoints that are whole.

What is the Trainer's stays the Trainer's (steps, schedule, accumulation, devices, resuming); overridden is
what it does not know: the loss over supervised tokens, validation by answering, what a checkpoint holds.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.constants import FSDP_MODEL_NAME
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from llava.common.errors import InputError
from llava.model.builder import LoadedModel, attention_of_parts
from llava.model.formats import PROJECTOR, VISION
from llava.model.lora import load_weights, save_adapter
from llava.model.run_dir import RUN_FILE, RunInfo, copy_processor_files, write_run_info
from llava.train.arguments import attention
from llava.train.config import TrainSettings
from llava.train.dataset import Collator, TrainItems
from llava.train.failing import Flow, plain_error
from llava.train.metrics import Meter, add_answers, keep_answers_until, send_answers
from llava.train.packing import IGNORE, packed_loss
from llava.train.runs import ANSWERS_FILE, CONFIG_FILE
from llava.train.sampler import train_loader
from llava.train.sharded import is_sharded, shape, whole
from llava.train.validation import Answer, Validation, answer_figures, count_answers

Batch = dict[str, Any]
_STATE_FILE = "trainer_state.json"


def _images(batch: Batch) -> int:
    images = batch.get("image_sizes", batch.get("pixel_values"))
    return 0 if images is None else len(images)


class LoraTrainer(Trainer):
    """Trains `model`, a PEFT model around `loaded.model`, as `settings` say.

    `run_info` and `config_text` go into every checkpoint; `meter` has what was read and how fast, `flow` the
    signal that stopped the run, if one did.
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
        validation: Validation | None,
        run_info: RunInfo,
        config_text: str,
        processor_folder: Path,
        show_validation: Callable[[int, dict[str, float]], None],
    ) -> None:
        self.loaded = loaded
        self.settings = settings
        self.items = train_items
        self.validation = validation
        self.run_info = run_info
        self.config_text = config_text
        self.processor_folder = processor_folder
        self.show_validation = show_validation
        self.meter = Meter()
        self.flow = Flow()
        self.run_dir = settings.output_dir
        config: Any = loaded.model.config
        pad = loaded.tokenizer.pad_token_id
        self.collate = Collator(
            loaded.processor.vision,
            settings.max_length,
            int(config.text_config.hidden_size),
            int(loaded.tokenizer.eos_token_id if pad is None else pad),
            attention(settings, arguments),
        )
        super().__init__(
            model=model,
            args=arguments,
            data_collator=self.collate,
            train_dataset=train_items,
            eval_dataset=None
            if validation is None
            else validation.records,  # evaluate() reads it; the Trainer only wants to see that it is there
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(self.meter)
        self.add_callback(self.flow)

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
            decay = self.settings.weight_decay if len(shape(parameter)) > 1 else 0.0
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
        """The supervised tokens of a whole optimiser step, over all devices. In the same exchange the
        processes tell each other what they read and whether one got a signal to stop."""
        here = [
            sum(int(batch["tokens"]) for batch in batch_samples),
            sum(int((batch["targets"] != IGNORE).sum()) for batch in batch_samples),
            sum(_images(batch) for batch in batch_samples),
            self.flow.received,
        ]
        everywhere = self.accelerator.gather(torch.tensor([here], device=device))
        read = everywhere[:, :3].sum(dim=0)
        if self.args.world_size > 1:
            self.flow.agreed = int(everywhere[:, 3].max())
        self.meter.count(read.cpu())
        return read[1]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().get_batch_samples(*args, **kwargs)
        except InputError as error:
            raise plain_error(error) from None

    def _run_epoch(self, model: Any, epoch: int, *args: Any, **kwargs: Any) -> None:
        """As the Trainer does, in the epoch's own order, and not a step more where a resumed run was over."""
        self.items.set_epoch(epoch)
        if self.state.global_step >= self.state.max_steps or self._out_of_patience():
            self.control.should_training_stop = True
        else:
            super()._run_epoch(model, epoch, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer does; what is said of a loss is said of its steps' speed and rates too."""
        super().log(logs | self.meter.figures() if "loss" in logs else logs, start_time)

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
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._arithmetic(), self.meter.pause():
            figures = self._validate(self.validation)
        self.model.train(training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.show_validation(self.state.global_step, figures)
        return metrics

    def _arithmetic(self) -> Any:
        if not (self.args.bf16 or self.args.fp16):
            return nullcontext()
        return torch.autocast(self.args.device.type, torch.bfloat16 if self.args.bf16 else torch.float16)

    def _validate(self, validation: Validation) -> dict[str, float]:
        """Each device takes a share."""
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
        """All devices' answers, written down and sent to the trackers by the first."""
        model: Any = self.loaded.model
        model.set_attn_implementation("sdpa")  # the engine's masks are its
        share = validation.answers(rank, ranks)
        model.set_attn_implementation(attention_of_parts(attention(self.settings, self.args)))
        answers: list[Answer] = gather_object(share) if ranks > 1 else share
        if self.args.should_save:
            add_answers(self.run_dir / ANSWERS_FILE, self.state.global_step, answers)
            send_answers(self.callback_handler.callbacks, self.state.global_step, answers)
        return answers

    def _sum_over_devices(self, sums: torch.Tensor) -> list[float]:
        gathered = self.accelerator.gather(sums.to(self.args.device)[None])
        return gathered.sum(dim=0).tolist()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the Trainer does; a new best is always written to disk, and too many without one end the run."""
        best = super()._determine_best_metric(metrics, trial)
        if best:
            self.control.should_save = True
        if self._out_of_patience():
            self.control.should_save = self.control.should_training_stop = True
        return best

    def _out_of_patience(self) -> bool:
        patience = self.settings.early_stopping_patience
        best = self.state.best_global_step or 0
        since = sum("eval_loss" in entry and entry["step"] > best for entry in self.state.log_history)
        return patience is not None and since >= patience

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A folder that loads and merges alone. run.json comes last: without it the folder is no run."""
        with whole(self.model):
            self._write_run(Path(output_dir or self.run_dir))

    def _write_run(self, folder: Path) -> None:
        if not self.args.should_save:
            return
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
        """As the Trainer does, without the copy of the adapters that it adds under FSDP."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            (Path(output_dir) / f"{FSDP_MODEL_NAME}.bin").unlink(missing_ok=True)

    def best_checkpoint(self) -> Path | None:
        """The best validated state's checkpoint; None without validation or where it lies elsewhere."""
        if not self.state.best_global_step:
            return None
        folder = self.checkpoint(self.state.best_global_step)
        return folder if folder.is_dir() else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with whole(self.model, keep_changes=True):
            load_weights(self.model, Path(resume_from_checkpoint), projector=self.run_info.projector_trained)

    def train(
        self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> Any:
        """As the Trainer does; answers of validations after the checkpoint will be given again."""
        if resume_from_checkpoint and self.args.should_save:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / _STATE_FILE))
            keep_answers_until(self.run_dir / ANSWERS_FILE, state.global_step)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def finish(self) -> int:
        """Put the best state (the last without validation) into the run directory; its step."""
        best = self.best_checkpoint()
        step = self.state.global_step
        with whole(self.model):
            if best is not None:
                load_weights(self.model, best, projector=self.run_info.projector_trained)
                step = self.state.best_global_step or step
            if self.args.should_save:
                self.state.save_to_json(str(self.run_dir / _STATE_FILE))
            last, self.state.global_step = self.state.global_step, step
            self._write_run(self.run_dir)
            self.state.global_step = last
        return step
