"""The parts of transformers' Trainer that LoraTrainer overrides or calls are still what they were."""

import inspect
import re

import pytest
import transformers
from transformers import Trainer

from llava.train.trainer import LoraTrainer

READ_FROM = "5.23.0"  # the release that the table and LoraTrainer's docstring were read from

SIGNATURES = {
    "train": "(self, resume_from_checkpoint, trial, ignore_keys_for_eval)",
    "get_train_dataloader": "(self)",
    "create_optimizer": "(self, model)",
    "get_batch_samples": "(self, epoch_iterator, num_batches, device)",
    "_get_num_items_in_batch": "(self, batch_samples, device)",
    "compute_loss": "(self, model, inputs, return_outputs, num_items_in_batch)",
    "floating_point_ops": "(self, inputs)",
    "log": "(self, logs, start_time)",
    "evaluate": "(self, eval_dataset, ignore_keys, metric_key_prefix)",
    "save_model": "(self, output_dir, _internal_call)",
    "_run_epoch": "(self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, "
    "trial, ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, "
    "steps_trained_in_current_epoch)",
    "_determine_best_metric": "(self, metrics, trial)",
    "_save_checkpoint": "(self, model, trial)",
    "_save_optimizer_and_scheduler": "(self, output_dir)",
    "_save_scaler": "(self, output_dir)",
    "_save_rng_state": "(self, output_dir)",
    "_load_from_checkpoint": "(self, resume_from_checkpoint, model)",
    "_prepare_inputs": "(self, inputs)",
}

CALLS = {
    "_inner_training_loop": ["self.get_train_dataloader()", "self._run_epoch("],
    "_run_epoch": [
        "self.get_batch_samples(epoch_iterator, num_batches, self.args.device)",
        "self.training_step(model, inputs, num_items_in_batch)",
        "self.callback_handler.on_pre_optimizer_step(",
        "self._maybe_log_save_evaluate(",
    ],
    "get_batch_samples": ["self._get_num_items_in_batch(batch_samples, device)"],
    "training_step": [
        "self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)",
        "self.loss_is_scaled_for_ga",
    ],
    "_maybe_log_save_evaluate": [
        "self.log(logs, start_time)",
        "self._determine_best_metric(metrics=metrics, trial=trial)",
        "self._save_checkpoint(model, trial)",
    ],
    "_evaluate": ["self.evaluate("],
    "train": ["self._load_from_checkpoint(resume_from_checkpoint"],
}


def changed(what: str) -> str:
    return (
        f"transformers {transformers.__version__} changed {what}, which LoraTrainer relies on (read from "
        f"{READ_FROM}): compare its trainer.py with the step drawn in LoraTrainer's docstring, mend "
        "llava/train/trainer.py, then this table"
    )


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_hook_has_the_signature_that_it_had(name: str) -> None:
    hook = getattr(Trainer, name, None)
    assert hook is not None, changed(f"Trainer.{name} (it is gone)")
    parameters = f"({', '.join(inspect.signature(inspect.unwrap(hook)).parameters)})"
    assert parameters == SIGNATURES[name], changed(f"Trainer.{name}, now {parameters}")


@pytest.mark.parametrize(("caller", "call"), [(caller, call) for caller in CALLS for call in CALLS[caller]])
def test_a_hook_is_called_where_it_was(caller: str, call: str) -> None:
    method = getattr(Trainer, caller, None)
    assert method is not None, changed(f"Trainer.{caller} (it is gone)")
    source = re.sub(r"\s+", " ", inspect.getsource(inspect.unwrap(method)))
    assert call in source, changed(f"Trainer.{caller}: no more `{call}`")


def test_every_override_of_the_trainer_is_in_the_table() -> None:
    """A new override needs its row: what it overrides may change under it."""
    overridden = {
        name
        for name, value in vars(LoraTrainer).items()
        if inspect.isfunction(value) and name != "__init__" and hasattr(Trainer, name)
    }
    assert overridden <= SIGNATURES.keys()
