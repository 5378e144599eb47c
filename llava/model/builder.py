"""Load any model that can answer: a LLaVA folder in Hugging Face's or the original format, a Hub name, or one
of our run directories.

What a folder is, its content decides (`formats.kind_of`).
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils.logging import disable_progress_bar

from llava.common.errors import InputError, one_line
from llava.common.files import read_json, read_text
from llava.common.records import IMAGE_PLACEHOLDER
from llava.conversation import AUTO, ConvTemplate, detect_template, get_template
from llava.mm_utils import get_model_name_from_path
from llava.model.formats import NON_LORA_WEIGHTS, PROJECTOR_BIN, UNUSABLE, is_original, kind_of
from llava.model.language_base import is_language_model, with_projector_of
from llava.model.original import (
    original_config,
    original_image_processor,
    original_tokenizer,
    require_whole,
    whole_tensors,
)
from llava.model.run_dir import DtypeName, RunInfo, fingerprint, read_run_info
from llava.model.shards import some
from llava.processing.text import RecordProcessor
from llava.processing.vision import make_vision_processor

DTYPES: dict[DtypeName, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WORTH_A_BAR = 1 << 30  # bytes; smaller weights load before a progress bar can be read
_WEIGHTS = "*.safetensors"
_BESIDE = (NON_LORA_WEIGHTS, PROJECTOR_BIN)
_HUB_FILES = ["*.json", _WEIGHTS, *_BESIDE, "*.model", "*.jinja"]
_OLD_WEIGHTS = "*.bin"


def bfloat16_is_native(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16: a CPU without AVX512-BF16 or a GPU before Ampere emulates it,
    many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


@dataclass
class LoadedModel:
    """A model ready to answer, with all that belongs to it. `model` is transformers' own of its family
    (LlavaForConditionalGeneration, ...); `context_len` counts picture tokens too."""

    model: Any
    tokenizer: Any
    image_processor: Any
    processor: RecordProcessor
    template: ConvTemplate
    context_len: int
    model_id: str


def load_model(
    model_path: str | Path,
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
    """Load `model_path`: a LLaVA folder, a Hub name, a run directory or checkpoint of ours, or an adapter of
    another tool (llava.model.adapters).

    `model_base` replaces the base that an adapter recorded (the same weights found elsewhere). `device`
    defaults to CUDA where there is one; `device_map` spreads a model over devices instead. `dtype` defaults
    to float32 on a CPU and bfloat16 on CUDA. InputError, one line, for anything that cannot be loaded.
    """
    path = resolve_folder(model_path)
    kind = kind_of(path)
    info: RunInfo | None = None
    adapter: Path | None = path
    if kind in ("hf", "original"):
        if model_base is not None:
            raise InputError(f"{model_path} is a whole model and takes no --model-base (it has no run.json)")
        base, own, adapter = path, path, None
    elif kind == "run":
        info = read_run_info(path)
        base, own = find_base(info, path, model_base), path
        if not (load_8bit or load_4bit):  # as the adapter knew its base
            load_8bit, load_4bit = info.bits == 8, info.bits == 4
    else:
        base = own = find_base_of_adapter(path, model_base)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("no CUDA device here; use --device cpu")
    if load_8bit and load_4bit:
        raise InputError("choose one of --load-8bit and --load-4bit")
    if dtype is None:
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    quantised = quantisation(8 if load_8bit else 4, dtype) if load_8bit or load_4bit else None
    if device_map is None and quantised is not None:
        device_map = device
    tokenizer, image_processor = load_tokenizer(own), load_image_processor(own)
    model = load_weights_of(
        base, dtype, device_map=device_map, quantised=quantised, attn_implementation=attn_implementation
    )
    # peft takes long to import, and a whole model does without it
    if info is not None:
        from llava.model.lora import load_adapter

        wrapped = load_adapter(model, own, projector=info.projector_trained)
        model = wrapped.get_base_model()  # its layers carry the adapter
    elif adapter is not None:
        from llava.model.adapters import apply

        model = apply(model, adapter, model_base)
    if device_map is None:
        model = model.to(device)
    model.eval()
    if conv_mode == AUTO:
        conv_mode = None
    if conv_mode is None and info is not None:
        conv_mode = info.conv_mode
    if conv_mode is not None:
        template = get_template(conv_mode)
    else:
        template = template_of_model(own, model.config, tokenizer)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        image_processor=image_processor,
        processor=make_processor(model.config, tokenizer, image_processor, template),
        template=template,
        context_len=model.config.text_config.max_position_embeddings,
        model_id=get_model_name_from_path(str(model_path)),
    )


def make_processor(
    config: Any,
    tokenizer: Any,
    image_processor: Any,
    template: ConvTemplate,
    max_length: int | None = None,
) -> RecordProcessor:
    """The RecordProcessor of a model; InputError where tokenizer, image processor and model disagree."""
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


def load_config(folder: Path) -> Any:
    """The Hugging Face config of a whole model's folder; InputError for anything else."""
    require_llava(folder)
    if _is_original(folder):
        return original_config(folder)
    try:
        return AutoConfig.from_pretrained(str(folder))
    except UNUSABLE as error:
        raise InputError(f"{folder}: config.json is not usable ({one_line(error)})") from None


def resolve_folder(model_path: str | Path, *, weights: bool = True) -> Path:
    """The local folder of a path or Hub name (`owner/name`, fetched into the Hub's cache; the small files
    alone if the weights are not wanted)."""
    path = Path(model_path).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise InputError(f"{path} is a file; name the model's folder")
    # `runs/first` looks like a Hub name too: where `runs` is a folder here, a folder was meant
    if not _HUB_NAME.fullmatch(str(model_path)) or path.parent.is_dir():
        raise InputError(f"{path}: no such model folder")
    try:
        patterns = [pattern for pattern in _HUB_FILES if weights or pattern not in (_WEIGHTS, *_BESIDE)]
        folder = Path(snapshot_download(str(model_path), allow_patterns=patterns))
        if weights and not any(folder.glob("*model*.safetensors")):  # an older repository
            snapshot_download(str(model_path), allow_patterns=[_OLD_WEIGHTS])
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"{model_path} is no folder here and the Hub does not give it: {one_line(error)}"
        ) from None


def require_llava(folder: Path) -> None:
    """InputError saying what `folder` is instead, unless it is a whole LLaVA model."""
    kind = kind_of(folder)
    if kind == "run":
        raise InputError(f"{folder} is a run directory, not a whole model; merge it first")
    if kind not in ("hf", "original"):
        raise InputError(f"{folder} is an adapter, not a whole model")


def _is_original(folder: Path) -> bool:
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else None
    return isinstance(config, dict) and is_original(config)


def find_base(info: RunInfo, run: Path, model_base: str | Path | None) -> Path:
    """The folder of a run's base, from `model_base` or where it was; refused if its weights are others."""
    if model_base is None and Path(info.base.path).is_dir():
        folder = Path(info.base.path)
    else:
        try:
            folder = resolve_folder(model_base or info.base.name)
        except InputError as error:
            remedy = "" if model_base else "; say where it is with --model-base"
            raise InputError(f"the base of {run} is not found: {error}{remedy}") from None
    require_llava(folder)
    if fingerprint(folder) != info.base.fingerprint:
        raise InputError(
            f"{run} was trained on {info.base.name} and {folder} holds other weights (fingerprints differ); "
            "name the right base with --model-base"
        )
    return folder


def find_base_of_adapter(adapter: Path, model_base: str | Path | None) -> Path:
    """The folder of the base of another tool's adapter: `model_base`, or what adapter_config.json names; put
    together where the original's adapter was trained on a language model alone."""
    from llava.model.adapters import base_name

    named = model_base or base_name(adapter)
    if named is None:
        raise InputError(f"{adapter} is an adapter and does not say of what; name its base with --model-base")
    try:
        folder = resolve_folder(named)
    except InputError as error:
        remedy = "" if model_base else "; say where it is with --model-base"
        raise InputError(f"the base of {adapter} is not found: {error}{remedy}") from None
    if is_language_model(folder) and kind_of(adapter) != "peft_adapter":
        folder = with_projector_of(adapter, folder)
    require_llava(folder)
    return folder


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that tokenizer.json describes.

    Not AutoTokenizer: in a folder without config.json (a run directory) it picks LlamaTokenizer by the name
    in tokenizer_config.json, which puts its own pre-tokenizer over the file's and so gives other ids.
    An original folder has tokenizer.model alone.
    """
    if _is_original(folder):
        return original_tokenizer(folder)
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder} has no tokenizer.json")
    try:
        return PreTrainedTokenizerFast.from_pretrained(str(folder))
    except UNUSABLE as error:
        raise InputError(f"{folder}: no usable tokenizer ({one_line(error)})") from None


def load_image_processor(folder: Path) -> Any:
    if _is_original(folder):
        return original_image_processor(folder)
    try:
        return AutoImageProcessor.from_pretrained(str(folder), backend="pil")
    except UNUSABLE as error:
        raise InputError(f"{folder}: no usable image processor ({one_line(error)})") from None


def load_weights_of(
    folder: Path,
    dtype: torch.dtype,
    *,
    device_map: Any = None,
    quantised: BitsAndBytesConfig | None = None,
    attn_implementation: str | None = None,
) -> Any:
    """The whole model of `folder`, on the CPU unless `device_map` says otherwise.

    Each tensor is read and cast straight to its place. `attn_implementation` is the language model's; the
    vision tower has no mask and takes torch's SDPA for flex attention. InputError if a tensor is missing,
    unexpected or of another shape.
    """
    files = [path for kind in (_WEIGHTS, _OLD_WEIGHTS) for path in folder.glob(kind) if path.is_file()]
    if sum(path.stat().st_size for path in files) < _WORTH_A_BAR:
        disable_progress_bar()
    config = load_config(folder)
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(folder)}
    if is_deepspeed_zero3_enabled():  # transformers spreads the weights over the processes as it reads them
        if _is_original(folder):
            raise InputError(
                f"{folder}: ZeRO-3 reads no original folder; scripts/export.py --format hf first"
            )
    elif getattr(config, "quantization_config", None) is None:  # else transformers knows its layers' parts
        tensors = whole_tensors(folder)
        require_whole(tensors, config, folder)
        # not by name: transformers maps the files into memory, which counts them beside what they are cast to
        source = {"pretrained_model_name_or_path": None, "state_dict": tensors}
    try:
        family: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        model, report = family.from_pretrained(
            **source,
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
    model.generation_config = _generation_config(folder, model)
    for module in model.modules():  # else 4-bit scales are rounded to bfloat16 when a CPU first answers
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _generation_config(folder: Path, model: Any) -> GenerationConfig:
    """What ends an answer and how it is chosen: the folder's own, an original's by its config alone."""
    config = model.config
    if _is_original(folder):
        text = config.text_config
        return GenerationConfig(
            bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=config.pad_token_id
        )
    if not (folder / "generation_config.json").is_file():
        return model.generation_config
    try:
        return GenerationConfig.from_pretrained(str(folder))
    except UNUSABLE as error:
        raise InputError(f"{folder}: generation_config.json is not usable ({one_line(error)})") from None


def attention_of_parts(name: str | None) -> Any:
    """What transformers is to be told where the language model's attention is `name`."""
    if name != "flex_attention":
        return name
    return {"": "flex_attention", "text_config": "flex_attention", "vision_config": "sdpa"}


def quantisation(bits: Literal[4, 8], dtype: torch.dtype) -> BitsAndBytesConfig:
    """The language model's Linear layers in 4 (nf4, its scales quantised too: QLoRA, arXiv 2305.14314) or 8
    bits, computed in `dtype`; the vision tower, the projector and the LM head stay as they are."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"{bits} bits need bitsandbytes: pip install 'llava-inspect[quant]'")
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


def template_of_model(folder: Path, config: Any, tokenizer: Any) -> ConvTemplate:
    """The conv mode that a model's chat template stands for or, where it has none, its config."""
    text = config.text_config
    return detect_template(
        _chat_template(folder, tokenizer), language=str(text.model_type), vocab_size=text.vocab_size
    )


def _chat_template(folder: Path, tokenizer: Any) -> str | None:
    """The model's chat template: the tokenizer's own, or the processor's file beside it."""
    if isinstance(tokenizer.chat_template, str):
        return tokenizer.chat_template
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    if (folder / "chat_template.json").is_file():
        content = read_json(folder / "chat_template.json")
        template = content.get("chat_template") if isinstance(content, dict) else None
        return template if isinstance(template, str) else None
    return None


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
    """LLaVA's own entry point: (tokenizer, model, image processor, context length).

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
