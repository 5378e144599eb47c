"""Load any model that can answer: a LLaVA folder in Hugging Face's or the original format, a Hub name, one of
our run directories, or an adapter of another tool on its base."""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils.logging import disable_progress_bar

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.common.records import IMAGE_PLACEHOLDER
from llava.conversation import AUTO, ConvTemplate, get_template
from llava.mm_utils import get_model_name_from_path
from llava.model.base import find_base
from llava.model.folder import ModelFolder, open_model_folder
from llava.model.formats import HEAD, UNUSABLE, VISION, last_vision_layer
from llava.model.run_dir import DtypeName
from llava.model.shards import StoredTensor, some
from llava.processing.text import RecordProcessor
from llava.processing.vision import make_vision_processor

DTYPES: dict[DtypeName, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_WORTH_A_PROGRESS_BAR = 1 << 30  # bytes; smaller weights load before a progress bar can be read


def bfloat16_is_native(device: torch.device) -> bool:
    """Return whether `device` computes in bfloat16: a CPU without AVX512-BF16 or a GPU before Ampere emulates
    it, many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


@dataclass
class LoadedModel:
    """A model ready to answer, with all that belongs to it. `model` is transformers' own of its family
    (LlavaForConditionalGeneration, ...); `context_len` counts image tokens too."""

    model: Any
    tokenizer: Any
    image_processor: Any
    processor: RecordProcessor
    template: ConvTemplate
    context_len: int
    model_id: str


def load_model(
    model_path: str | Path | ModelFolder,
    model_base: str | Path | None = None,
    *,
    device: str | None = None,
    device_map: Any = None,
    dtype: torch.dtype | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    conv_mode: str | None = None,
    attn_implementation: str | None = None,
) -> LoadedModel:
    """Load a model and what belongs to it, ready to answer.

    Args:
        model_path: A LLaVA folder, a Hub name, a run directory or checkpoint of ours, or an adapter of
            another tool (llava.model.adapters); or a folder that is open already.
        model_base: Replaces the base that an adapter recorded (the same weights found elsewhere).
        device: Defaults to CUDA where there is one.
        device_map: Spreads the model over devices instead, as accelerate does.
        dtype: Defaults to float32 on a CPU and bfloat16 on CUDA.
        load_8bit: Hold the language model's weights in 8 bits.
        load_4bit: Hold them in 4 bits. A run that was trained so loads so by itself.
        conv_mode: The conversation template; by default the run's own or the one that the model implies.
        attn_implementation: The language model's attention, as transformers names it.

    Returns:
        The model in evaluation mode, its tokenizer, image processor and template.

    Raises:
        InputError: One line, for anything that cannot be loaded.
    """
    folder = open_model_folder(model_path)
    base, processors = _base_and_processors(folder, model_base)
    info = folder.run_info
    if info is not None and not (load_8bit or load_4bit):  # as the adapter knew its base
        load_8bit, load_4bit = info.bits == 8, info.bits == 4
    device = choose_device(device)
    dtype = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    if load_8bit and load_4bit:
        raise InputError("choose one of --load-8bit and --load-4bit")
    quantised = quantisation(8 if load_8bit else 4, dtype) if load_8bit or load_4bit else None
    if device_map is None and quantised is not None:
        device_map = device
    tokenizer, image_processor = processors.tokenizer, processors.image_processor
    model = load_model_weights(
        base, dtype, device_map=device_map, quantised=quantised, attn_implementation=attn_implementation
    )
    model = _put_adapter_on(model, folder, model_base)
    if device_map is None:
        model = model.to(device)
    model.eval()
    template = _template(processors, info.conv_mode if info is not None else None, conv_mode)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        image_processor=image_processor,
        processor=make_processor(model.config, tokenizer, image_processor, template),
        template=template,
        context_len=model.config.text_config.max_position_embeddings,
        model_id=get_model_name_from_path(folder.name),
    )


def _base_and_processors(
    folder: ModelFolder, model_base: str | Path | None
) -> tuple[ModelFolder, ModelFolder]:
    """Return the folder of the weights, and that of tokenizer and image processor: a run directory has its
    own, an adapter of another tool takes its base's."""
    folder.require_llava()
    if folder.is_model:
        if model_base is not None:
            raise InputError(f"{folder.name} is a whole model and takes no --model-base (it has no run.json)")
        return folder, folder
    base = find_base(folder, model_base)
    return base, folder if folder.kind == "run" else base


def choose_device(device: str | None) -> str:
    """Return the device that is asked for, by default CUDA where there is one; InputError if it is absent."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("no CUDA device here; use --device cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as the device's kind has it
        raise InputError(
            f"--device {device}: there is none here ({one_line(error, 80)}); say cpu, cuda or cuda:1"
        ) from None
    return device


def _put_adapter_on(model: Any, folder: ModelFolder, model_base: str | Path | None) -> Any:
    """Return the model with the adapter of `folder` in its layers, if the folder is one."""
    # peft takes long to import, and a whole model does without it
    if folder.run_info is not None:
        from llava.model.lora import load_adapter

        wrapped = load_adapter(model, folder.path, projector=folder.run_info.projector_trained)
        return wrapped.get_base_model()
    if not folder.is_model:
        from llava.model.adapters import apply_adapter

        return apply_adapter(model, folder, model_base)
    return model


def _template(folder: ModelFolder, of_run: str | None, conv_mode: str | None) -> ConvTemplate:
    """Return the template that the user named, else the run's, else the one that the model implies."""
    mode = of_run if conv_mode in (None, AUTO) else conv_mode
    return folder.template if mode is None else get_template(mode)


def make_processor(
    config: Any,
    tokenizer: Any,
    image_processor: Any,
    template: ConvTemplate,
    max_length: int | None = None,
) -> RecordProcessor:
    """Make the RecordProcessor of a model.

    Args:
        config: The model's Hugging Face config.
        tokenizer: Its fast tokenizer.
        image_processor: Its image processor.
        template: The conversation template of its prompts.
        max_length: The most tokens of a training record; None for no limit.

    Raises:
        InputError: Tokenizer, image processor and model disagree.
    """
    image_token_id = int(config.image_token_id)
    if tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER) != image_token_id:
        raise InputError(
            f"the tokenizer does not know {IMAGE_PLACEHOLDER} as token {image_token_id}, as the model does"
        )
    try:
        images = make_vision_processor(config, image_processor)
    except UNUSABLE as error:
        raise InputError(
            f"the image processor's settings do not suit the model ({one_line(error)})"
        ) from None
    window = getattr(config.text_config, "sliding_window", None)
    if window is not None and max_length is not None and max_length > window:
        raise InputError(f"max_length is {max_length}, the model's attention reaches {window} tokens back")
    return RecordProcessor(tokenizer, images, template, image_token_id, max_length)


def load_model_weights(
    folder: ModelFolder,
    dtype: torch.dtype,
    *,
    device_map: Any = None,
    quantised: BitsAndBytesConfig | None = None,
    attn_implementation: str | None = None,
) -> Any:
    """Load the whole model of `folder`. Each tensor is read and cast straight to its place.

    Args:
        folder: A whole model in either format.
        dtype: The type of its parameters.
        device_map: Where its parts go; None for the CPU.
        quantised: How the language model is quantised (`quantisation`), if it is.
        attn_implementation: The language model's attention. The vision tower has no mask and takes torch's
            SDPA for flex attention.

    Returns:
        transformers' model of the family, on the CPU unless `device_map` says otherwise.

    Raises:
        InputError: A tensor is missing, unexpected or of another shape, or a file is damaged.
    """
    if sum(path.stat().st_size for path in _weight_files(folder.path)) < _WORTH_A_PROGRESS_BAR:
        disable_progress_bar()
    config = folder.config
    try:
        family: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        model, report = family.from_pretrained(
            **_weights_argument(folder),
            config=config,
            dtype=dtype,
            device_map=device_map,
            quantization_config=quantised,
            attn_implementation=attention_of_parts(attn_implementation),
            output_loading_info=True,
        )
    except (*UNUSABLE, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: the weights cannot be loaded ({one_line(error)})") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise InputError(
                f"{folder}: {len(report[kind])} {kind.replace('_', ' ')}: {some(map(str, report[kind]))}"
            )
    model.name_or_path = model.config.name_or_path = str(folder)
    if folder.generation_config is not None:
        model.generation_config = folder.generation_config
    for module in model.modules():  # else 4-bit scales are rounded to bfloat16 when a CPU first answers
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    _skip_unread_layers(model)
    return model


def _skip_unread_layers(model: Any) -> None:
    """Leave out the vision layers behind the one that is read: LLaVA-1.5 reads the last but one."""
    last = last_vision_layer(model.config)
    for name, module in model.named_modules():
        layer = re.search(r"\.layers\.(\d+)$", name)
        if name.startswith(VISION) and layer and int(layer.group(1)) > last:
            module.forward = _unchanged


def _unchanged(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden_states


def _weight_files(folder: Path) -> list[Path]:
    return [path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern) if path.is_file()]


def _weights_argument(folder: ModelFolder) -> dict[str, Any]:
    """Return the argument that tells transformers where the weights are: as tensors that are not read yet.
    Not by the folder's name: transformers maps the files into memory, which counts them beside what they are
    cast to."""
    by_name: dict[str, Any] = {"pretrained_model_name_or_path": str(folder)}
    if is_deepspeed_zero3_enabled():  # transformers spreads the weights over the processes as it reads them
        if folder.is_original:
            raise InputError(
                f"{folder}: ZeRO-3 reads no original folder; scripts/export.py --format hf first"
            )
        return by_name
    if (
        getattr(folder.config, "quantization_config", None) is not None
    ):  # transformers knows its layers' parts
        return by_name
    tensors = folder.open_tensors()
    require_complete(tensors, folder)
    return {"pretrained_model_name_or_path": None, "state_dict": tensors}


def empty_model(config: Any) -> Any:
    """Return the model of `config` without its weights (on the meta device): names, shapes, kinds of
    layers."""
    with torch.device("meta"):
        # of a copy: the model writes its attention into its config
        return AutoModelForImageTextToText.from_config(copy.deepcopy(config))


def require_complete(tensors: Mapping[str, StoredTensor], folder: ModelFolder) -> None:
    """Raise an InputError listing what is left over on either side unless `tensors` are those of the folder's
    config."""
    expected: dict[str, Any] = empty_model(folder.config).state_dict()
    missing = expected.keys() - tensors.keys()
    if folder.config.tie_word_embeddings:
        missing -= {HEAD}
    shapes = [
        f"{name} {tensors[name].shape} where the config needs {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != tuple(expected[name].shape)
    ]
    problems = {
        "missing": missing,
        "unexpected": tensors.keys() - expected.keys(),
        "of another shape": shapes,
    }
    found = [f"{len(names)} {kind}: {some(names)}" for kind, names in problems.items() if names]
    if found:
        raise InputError(f"{folder}: its tensors are not those of its config.json; {'; '.join(found)}")


def attention_of_parts(name: str | None) -> Any:
    """Return transformers' `attn_implementation` for a language model whose attention is `name`."""
    if name != "flex_attention":
        return name
    return {"": "flex_attention", "text_config": "flex_attention", "vision_config": "sdpa"}


def quantisation(bits: Literal[4, 8], dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the settings that hold the language model's Linear layers in 4 (nf4, its scales quantised too:
    QLoRA, arXiv 2305.14314) or 8 bits, computed in `dtype`; the vision tower, the projector and the LM head
    stay as they are."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"{bits} bits need bitsandbytes: {how_to_install('quant')}")
    kept = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def load_pretrained_model(
    model_path: str,
    model_base: str | None,
    model_name: str,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = None,
    device: str | None = None,
    **kwargs: Any,
) -> tuple[Any, Any, Any, int]:
    """Load a model by LLaVA's own entry point; return (tokenizer, model, image processor, context length).

    `model_name` is accepted and unused: what a model is, its files say. Further keywords go to `load_model`.
    """
    loaded = load_model(
        model_path,
        model_base,
        device=device,
        device_map=device_map,
        load_8bit=load_8bit,
        load_4bit=load_4bit,
        **kwargs,
    )
    return loaded.tokenizer, loaded.model, loaded.image_processor, loaded.context_len
