"""A fine-tuning run, from its settings to its run directory; `python -m llava.train` is its command."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from accelerate.utils import gather_object
from peft import PeftModel
from rich.console import Console
from transformers import TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from llava.common.cli import command_name
from llava.common.errors import InputError
from llava.common.remote import fetch
from llava.conversation import AUTO, default_conversation, get_template
from llava.model.builder import LoadedModel, load_model, make_processor
from llava.model.folder import ModelFolder, open_model_folder
from llava.model.hub import HubError
from llava.model.known_shapes import KnownShape, known_shape
from llava.model.lora import attach, leave_casting_to_autocast, parameter_counts, set_dtype_of_trained
from llava.processing.text import RecordProcessor
from llava.train.arguments import (
    attention_implementation,
    dtype_name,
    require_supported,
    set_schedule,
    training_arguments,
    weights_dtype,
)
from llava.train.config import TrainSettings
from llava.train.data.shards import shards_of
from llava.train.data.token_cache import Encoding
from llava.train.dataset import RecordSet, TrainingSet
from llava.train.display import Display, parameter_table, plan_table
from llava.train.duration import in_words
from llava.train.interruption import explain_out_of_memory
from llava.train.last_layer import SupervisedLastLayer
from llava.train.metrics import rates_text, set_tracker_folders
from llava.train.plan import Plan, Target, measure_data, meta_model, plan, speed_of
from llava.train.preview import label_panels, memory_table, memory_verdict
from llava.train.runs import clear_run, describe_run, find_checkpoint, require_free, require_same_run
from llava.train.schedule import decided, schedule_of
from llava.train.sharded import (
    is_sharded,
    name_fsdp_layers,
    require_same_processes,
    require_sharding,
    zero_stage,
)
from llava.train.summed_lora import sum_adapters_into_weights
from llava.train.trainer import LoraTrainer
from llava.train.validation import Validation


def train(
    settings: TrainSettings,
    *,
    resume: str | None = None,
    dry_run: bool = False,
    target: Target | None = None,
    verify: bool = False,
    verbose: bool = False,
) -> Path:
    """Run the whole fine-tuning.

    Args:
        settings: The run's settings.
        resume: `auto` or a checkpoint to go on from.
        dry_run: Stop after the plan; no weights are needed and nothing is written.
        target: The devices that a dry run plans for; None for this machine.
        verify: Decode every image before the first step.
        verbose: Show learning rate, gradient norm, tokens a second and memory while it trains.

    Returns:
        The run directory.

    Raises:
        InputError: The model, a record or an image is at fault; nothing has been written.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    checkpoint = find_checkpoint(settings.output_dir, resume)
    if not (resume or settings.overwrite_output_dir):
        require_free(settings.output_dir)
    base, settings = open_base(settings, dry_run=dry_run)
    # Before the arguments: from them on DeepSpeed divides every model that is made.
    structure = meta_model(base.config, settings)
    arguments = set_up_process(settings, dry_run=dry_run, other_target=target is not None)
    out = Console(quiet=not arguments.should_log)
    if isinstance(base, KnownShape):
        out.print(base.note, style="yellow", highlight=False, soft_wrap=True)

    with Display(arguments.should_log, verbose) as display, token_cache(settings, dry_run=dry_run) as cache:
        processor = make_record_processor(base, settings)
        began = time.monotonic()
        sets, training_set = read_data(settings, arguments, processor, cache, display)
        if verify:
            verify_images(sets, arguments, display)
        # Every batch of several processes has an image (see sampler.py), or none has: the projector rests.
        arguments.ddp_find_unused_parameters = not sets[settings.data_path].has_images
        devices = target or Target.this_machine(arguments)
        settings, run_plan = make_plan(settings, arguments, devices, training_set, structure, sets)
        run_plan = with_start(run_plan, time.monotonic() - began)
        print_plan(run_plan, structure, out)
        if dry_run:
            for panel in label_panels(sets[settings.data_path]):
                out.print(panel)
            return settings.output_dir

        dtype = weights_dtype(settings, arguments.device)
        hashes = {path: records.sha256 for path, records in sets.items()}
        info = describe_run(settings, base, hashes, dtype_name(dtype))
        if checkpoint is not None:
            require_same_run(info, checkpoint)
            require_same_processes(checkpoint, settings, arguments.world_size)
        loaded, model = load(base, settings, arguments, processor)
        if arguments.should_save and resume is None:
            clear_run(settings.output_dir)
        held_out = None if settings.val_path is None else sets[settings.val_path]
        trainer = LoraTrainer(
            model,
            arguments,
            loaded=loaded,
            settings=settings,
            training_set=training_set,
            validation=None if held_out is None else Validation(held_out, loaded, settings),
            run_info=info,
            config_text=yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False),
            base=base,
            show_validation=display.validation,
        )
        display.trainer = trainer
        trainer.add_callback(display)
        print_start(display.console, settings, checkpoint, resume)
        with explain_out_of_memory(settings), trainer.run_control.handle_signals():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        step = None if trainer.run_control.agreed else trainer.finish()
        if step is not None and settings.token_cache is None and arguments.local_process_index == 0:
            shutil.rmtree(cache, ignore_errors=True)  # an interrupted run goes on from it
    print_summary(trainer, step, out)
    return settings.output_dir


def set_up_process(settings: TrainSettings, *, dry_run: bool, other_target: bool) -> TrainingArguments:
    """Check that this machine can do what is asked for, and set up its devices and random numbers."""
    if dry_run and not other_target:
        require_sharding(settings)
    if not other_target:
        require_supported(settings)
    set_tracker_folders(settings.output_dir)
    unsharded = {"deepspeed": None, "fsdp": False} if dry_run else {}  # a plan divides nothing
    arguments = training_arguments(settings.model_copy(update=unsharded))
    set_seed(settings.seed)
    return arguments


def open_base(settings: TrainSettings, *, dry_run: bool) -> tuple[ModelFolder, TrainSettings]:
    """Open the base model's folder; return it, and the settings with its template if they name none. A dry
    run takes the shape of a published model where the Hub does not give its files."""
    name = settings.model_name_or_path
    base: ModelFolder | None
    try:
        base = open_model_folder(name, weights=not dry_run)
    except HubError:
        base = known_shape(name) if dry_run else None
        if base is None:
            raise
    if not base.is_model:
        base.require_llava()
        kind = "a run directory" if base.kind == "run" else "an adapter"
        merge = command_name("merge", "scripts/merge_lora.py")
        raise InputError(f"{base} is {kind}; train on a whole model ({merge} makes one)")
    if base.is_original and zero_stage(settings) == 3:
        export = command_name("export", "scripts/export.py")
        raise InputError(f"{base}: ZeRO-3 reads no original folder; {export} --format hf first")
    if settings.liger and (kind := base.config.model_type) != "llava":
        raise InputError(f"liger=true knows LLaVA-1.5 only, and {base} is {kind}: set liger=false")
    if settings.conv_mode in (None, AUTO):
        settings = settings.model_copy(update={"conv_mode": base.template.name})
    return base, settings


_FETCHED = "fetched"  # in the token cache: the files of records that are elsewhere


@contextmanager
def token_cache(settings: TrainSettings, *, dry_run: bool) -> Iterator[Path]:
    """Yield the folder of this machine's token cache. That of a dry run is removed afterwards, and so is one
    in a run directory in which nothing else came to be: what failed before the first step wrote nothing."""
    node = os.environ.get("GROUP_RANK", "0")  # torchrun's number of the machine
    name = "token_cache" if node == "0" else f"token_cache_{node}"  # machines may share the disk
    if settings.token_cache is not None:
        yield settings.token_cache
    elif dry_run:
        with TemporaryDirectory(prefix="llava-") as folder:
            yield Path(folder)
    else:
        cache = settings.output_dir / name
        try:
            yield cache
        except BaseException:
            is_first = os.environ.get("LOCAL_RANK", "0") == "0"  # of this machine's processes
            if is_first and cache.exists() and set(settings.output_dir.iterdir()) == {cache}:
                shutil.rmtree(settings.output_dir, ignore_errors=True)
            raise


def read_data(
    settings: TrainSettings,
    arguments: TrainingArguments,
    processor: RecordProcessor,
    cache: Path,
    display: Display,
) -> tuple[dict[Path, RecordSet], TrainingSet]:
    """Read the records of each file, and make the training set. The first process of a machine checks and
    encodes them, the others take what it wrote to `cache`."""
    encoding = Encoding(processor, settings.image_folder, settings.max_length, settings.packing)
    room = settings.picture_cache_gb * 1e9
    sets = {}
    with arguments.main_process_first():
        for path in (settings.data_path, settings.val_path):
            if path is not None and path not in sets:
                file = path if shards_of(path) else fetch(path, cache / _FETCHED)
                sets[path] = RecordSet(file, encoding, cache, picture_room=room, progress=display.track)
                room -= sets[path].images.cache.room
        if settings.token_cache is None and arguments.local_process_index == 0:
            tables = {records.table.folder for records in sets.values()}
            for other in set(cache.iterdir()) - tables - {cache / _FETCHED}:
                shutil.rmtree(other, ignore_errors=True)  # of data that have changed since
    training_set = TrainingSet(
        sets[settings.data_path],
        seed=settings.seed,
        questions_per_picture=settings.questions_per_picture,
        augmentation=settings.augment,
    )
    return sets, training_set


def verify_images(sets: Mapping[Path, RecordSet], arguments: TrainingArguments, display: Display) -> None:
    """Decode every image, shared out over the processes of this machine; InputError if any is damaged, after
    a line for each."""
    share = slice(arguments.local_process_index, None, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    found = [problem for records in sets.values() for problem in records.verify(display.track, share)]
    if arguments.world_size > 1:
        found = gather_object(found)
    problems = sorted(set(found))
    for problem in problems:
        display.console.print(problem, style="red", highlight=False, markup=False, soft_wrap=True)
    if problems:
        raise InputError(f"pictures that cannot be used: {len(problems)}; mend them or remove their records")


def make_plan(
    settings: TrainSettings,
    arguments: TrainingArguments,
    devices: Target,
    training_set: TrainingSet,
    structure: PeftModel,
    sets: dict[Path, RecordSet],
) -> tuple[TrainSettings, Plan]:
    """Plan the run, and decide what the settings leave to `auto`: the length of the run by the data, gradient
    checkpointing by the memory.

    Args:
        settings: The run's settings.
        arguments: The Trainer's arguments; the decisions are written into them too.
        devices: What the run is planned for.
        training_set: The examples to train on.
        structure: The model with its adapters, on the meta device.
        sets: The records of each file.

    Returns:
        The settings with the decisions, and the plan.
    """
    schedule = schedule_of(settings, len(training_set), devices.count)
    settings = decided(settings, schedule)
    set_schedule(arguments, schedule)
    config = structure.get_base_model().config
    speed = speed_of(settings, arguments, devices, config)
    data = measure_data(settings, training_set, sets, devices.count, config)

    def plan_with(settings: TrainSettings) -> Plan:
        return plan(settings, arguments, devices, schedule, speed, data, structure)

    if settings.gradient_checkpointing == "auto":
        without = settings.model_copy(update={"gradient_checkpointing": False})
        fits = plan_with(without).fits_comfortably
        settings = settings.model_copy(update={"gradient_checkpointing": not fits})
        arguments.activation_checkpointing = not fits
    return settings, plan_with(settings)


def with_start(run_plan: Plan, seconds: float) -> Plan:
    """Add to a plan how long the start took."""
    start = f"{in_words(seconds)} to check and measure the data"
    return replace(run_plan, rows=dict(run_plan.rows) | {"start": start})


def print_plan(run_plan: Plan, structure: PeftModel, out: Console) -> None:
    out.print(parameter_table(parameter_counts(structure)))
    out.print(plan_table(run_plan.rows))
    out.print(memory_table(run_plan))
    out.print(memory_verdict(run_plan))


def load(
    base: ModelFolder, settings: TrainSettings, arguments: TrainingArguments, processor: RecordProcessor
) -> tuple[LoadedModel, PeftModel]:
    """Load the base with its weights, and attach fresh adapters to it."""
    # FSDP moves a layer at a time to the device, and keeps a part of it there.
    device = "cpu" if settings.fsdp else str(arguments.device)
    with explain_out_of_memory(settings):
        loaded = load_model(
            base, device=device, dtype=weights_dtype(settings, arguments.device),
            conv_mode=settings.conv_mode, load_8bit=settings.bits == 8, load_4bit=settings.bits == 4,
            attn_implementation=attention_implementation(settings, arguments),
        )  # fmt: skip
    loaded.processor = processor
    set_seed(settings.seed)  # reading the weights draws numbers under ZeRO-3 and none otherwise
    model: Any = attach(loaded.model, settings.lora, train_projector=not settings.freeze_projector)
    # bfloat16 would swallow small updates. DeepSpeed has float32 copies of its own, and wants one dtype.
    trained = torch.float32 if settings.deepspeed is None else weights_dtype(settings, arguments.device)
    set_dtype_of_trained(model, trained)
    if (arguments.bf16 or arguments.fp16) and settings.deepspeed is None:  # that has no autocast
        leave_casting_to_autocast(model)
    name_fsdp_layers(arguments, model)
    if settings.deepspeed is None and not settings.fsdp:  # those watch every layer's call
        SupervisedLastLayer(loaded.model)
        if arguments.device.type == "cpu" and not arguments.bf16:
            sum_adapters_into_weights(model)
    return loaded, model


def print_start(
    console: Console, settings: TrainSettings, checkpoint: Path | None, resume: str | None
) -> None:
    """Print where the training starts, and what this kind of training leaves out."""
    if checkpoint is not None:
        console.print(f"resuming from {checkpoint}")
    elif resume == "auto":
        console.print(f"no checkpoint in {settings.output_dir} yet: starting from the base")
    if is_sharded(settings) and settings.val_path is not None and settings.eval_generate_samples:
        console.print("validation is the loss alone: sharded parameters give no answers")


def print_summary(trainer: LoraTrainer, step: int | None, out: Console) -> None:
    """Print which step's adapter was kept; exit with the signal's code if one stopped the run."""
    number = trainer.run_control.agreed
    if number:
        if trainer.args.should_log:
            stopped = f"{signal.Signals(number).name}: stopped after step {trainer.state.global_step}"
            print(f"{stopped}, which is saved; go on with --resume auto", file=sys.stderr)
        raise SystemExit(128 + number)
    why = f"best validation {trainer.settings.best_by}" if trainer.best_checkpoint() else "the last state"
    out.print(
        f"{trainer.run_dir}: the adapter of step {step} ({why}); {rates_text(trainer.meter.average())}",
        highlight=False,
        soft_wrap=True,
    )
    for note in trainer.run_info.notes:
        out.print(note, style="yellow", highlight=False, soft_wrap=True)


def make_record_processor(base: ModelFolder, settings: TrainSettings) -> RecordProcessor:
    """Make the processor alone, so that the data is checked before the weights are read."""
    return make_processor(
        base.config,
        base.tokenizer,
        base.image_processor,
        get_template(settings.conv_mode or default_conversation.name),
        settings.max_length,
    )
