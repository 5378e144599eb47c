"""A folder with a model in it, opened once: what kind it is, its config, tokenizer and image processor.

Whoever is handed a path or Hub name calls `open_model_folder` and passes the ModelFolder on. config.json is
read once, when the folder is opened; everything else is read when it is first asked for, and kept. What kind
of folder it is, its content decides, never its name.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from transformers import (
    AutoImageProcessor,
    GenerationConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    PreTrainedTokenizerFast,
)

from llava.common.errors import InputError, one_line
from llava.common.files import read_json, read_text
from llava.conversation import ConvTemplate, detect_template
from llava.model.formats import NON_LORA_WEIGHTS, ORIGINAL_TYPES, PROJECTOR_BIN, UNUSABLE, is_original
from llava.model.hub import resolve_folder
from llava.model.original import (
    find_tower,
    open_original_tensors,
    read_original_config,
    read_original_image_processor,
)
from llava.model.processor_files import save_processor_files, suit_transformers_4
from llava.model.run_dir import (
    ADAPTER_CONFIG,
    RunInfo,
    copy_processor_files,
    fingerprint,
    is_run_dir,
    read_run_info,
)
from llava.model.sentencepiece import tokenizer_of_pieces
from llava.model.shards import StoredTensor, check_floating, open_model_tensors

FolderKind = Literal[
    "run", "hf", "original", "language_model", "original_lora", "original_projector", "peft_adapter"
]
"""A run directory of ours or a checkpoint in it; a whole model in Hugging Face's format; one in the original
LLaVA's; a language model without a vision tower, which the original's adapters are based on; the original's
LoRA folder; its folder with a projector alone; an adapter that PEFT wrote."""

MODEL_CONFIGS: dict[str, Any] = {
    "llava": LlavaConfig,
    "llava_next": LlavaNextConfig,
    "llava_onevision": LlavaOnevisionConfig,
}
"""LLaVA-1.5, LLaVA-1.6 and LLaVA-OneVision, as a Hugging Face config.json names them."""
_OTHER_ORIGINALS = ("llava_mpt", "llava_qwen", "llava_gemma", "llava_mixtral")
_LANGUAGE_MODELS = ("llama", "mistral")


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A folder that holds a model or an adapter.

    `name` is what the user called it (a path or Hub name), `settings` the content of its config.json, None if
    it has none. What is read of it lazily is kept: whoever changes a config works on a copy.
    """

    path: Path
    name: str
    kind: FolderKind
    settings: dict[str, Any] | None

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, path: Path, name: str | None = None) -> ModelFolder:
        """Open a local folder; InputError saying what is wrong with one that holds neither model nor
        adapter."""
        settings: Any = read_json(path / "config.json") if (path / "config.json").is_file() else None
        if settings is not None and not isinstance(settings, dict):
            raise InputError(f"{path / 'config.json'}: expected a JSON object")
        return cls(path, str(path) if name is None else name, _kind_of(path, settings), settings)

    @property
    def is_model(self) -> bool:
        """Whether it is a whole LLaVA model, in either format."""
        return self.kind in ("hf", "original")

    @property
    def is_original(self) -> bool:
        """Whether it is a whole model in the original's format."""
        return self.kind == "original"

    def require_model(self) -> None:
        """Raise an InputError saying what the folder is instead, unless it is a whole LLaVA model."""
        if self.kind == "run":
            raise InputError(f"{self} is a run directory, not a whole model; merge it first")
        self.require_llava()
        if not self.is_model:
            raise InputError(f"{self} is an adapter, not a whole model")

    def require_llava(self) -> None:
        """Raise an InputError if the folder is a language model without a vision tower."""
        if self.kind == "language_model":
            raise InputError(
                f"{self} is not a LLaVA model: its config.json says model_type "
                f"{self._settings.get('model_type')!r}"
            )

    @cached_property
    def run_info(self) -> RunInfo | None:
        """The content of run.json; None for anything but a run directory."""
        return read_run_info(self.path) if self.kind == "run" else None

    @cached_property
    def config(self) -> Any:
        """The Hugging Face config of a whole model; InputError for anything else."""
        self.require_model()
        if self.is_original:
            return read_original_config(self.path, self._settings, self._tower)
        try:
            return MODEL_CONFIGS[str(self._settings["model_type"])].from_dict(copy.deepcopy(self._settings))
        except UNUSABLE as error:
            raise InputError(f"{self}: config.json is not usable ({one_line(error)})") from None

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that tokenizer.json describes; that of tokenizer.model in an original folder.

        Not AutoTokenizer: in a folder without config.json (a run directory) it picks LlamaTokenizer by the
        name in tokenizer_config.json, which puts its own pre-tokenizer over the file's and so gives other
        ids.
        """
        if self.is_original:
            return tokenizer_of_pieces(self.path)
        if not (self.path / "tokenizer.json").is_file():
            raise InputError(f"{self} has no tokenizer.json")
        try:
            return PreTrainedTokenizerFast.from_pretrained(str(self.path))
        except UNUSABLE as error:
            raise InputError(f"{self}: no usable tokenizer ({one_line(error)})") from None

    @cached_property
    def image_processor(self) -> Any:
        if self.is_original:
            return read_original_image_processor(self._tower, self.config)
        try:
            return AutoImageProcessor.from_pretrained(str(self.path), backend="pil")
        except UNUSABLE as error:
            raise InputError(f"{self}: no usable image processor ({one_line(error)})") from None

    @cached_property
    def generation_config(self) -> GenerationConfig | None:
        """What ends an answer and how it is chosen: generation_config.json, or an original's config. None if
        the folder does not say."""
        if self.is_original:
            text = self.config.text_config
            return GenerationConfig(
                bos_token_id=text.bos_token_id,
                eos_token_id=text.eos_token_id,
                pad_token_id=self.config.pad_token_id,
            )
        if not (self.path / "generation_config.json").is_file():
            return None
        try:
            return GenerationConfig.from_pretrained(str(self.path))
        except UNUSABLE as error:
            raise InputError(f"{self}: generation_config.json is not usable ({one_line(error)})") from None

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja chat template: the tokenizer's own, or the processor's file beside it."""
        if isinstance(self.tokenizer.chat_template, str):
            return self.tokenizer.chat_template
        if (self.path / "chat_template.jinja").is_file():
            return read_text(self.path / "chat_template.jinja")
        if (self.path / "chat_template.json").is_file():
            content = read_json(self.path / "chat_template.json")
            template = content.get("chat_template") if isinstance(content, dict) else None
            return template if isinstance(template, str) else None
        return None

    @cached_property
    def template(self) -> ConvTemplate:
        """The conv mode that a model's chat template stands for or, where it has none, its config."""
        text = self.config.text_config
        return detect_template(self.chat_template, language=str(text.model_type), vocab_size=text.vocab_size)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the architecture and the weights (`run_dir.fingerprint`)."""
        return fingerprint(self.path, self.settings)

    @property
    def pieces(self) -> Path | None:
        """The SentencePiece model, tokenizer.model, if the folder has it."""
        path = self.path / "tokenizer.model"
        return path if path.is_file() else None

    def open_tensors(self) -> dict[str, StoredTensor]:
        """Open the tensors of a whole model in either format, under their names in memory."""
        if self.is_original:
            return open_original_tensors(self.path, self._settings, self._tower, self.tokenizer)
        tensors = open_model_tensors(self.path)
        check_floating(tensors, self.path)
        return tensors

    def write_processor_files(self, target: Path) -> None:
        """Write what turns text and images into this model's inputs to the folder `target`, in Hugging Face's
        form: tokenizer, image processor, chat template. A run directory needs them to load by itself."""
        if not self.is_original:
            copy_processor_files(self.path, target)
            suit_transformers_4(target)
            return
        save_processor_files(
            target,
            config=self.config,
            tokenizer=self.tokenizer,
            image_processor=self.image_processor,
            template=self.template,
            pieces=self.pieces,
        )

    @property
    def _settings(self) -> dict[str, Any]:
        return self.settings or {}

    @cached_property
    def _tower(self) -> Path | None:
        """The vision tower's folder of an original one."""
        return find_tower(self.path, self._settings)


def open_model_folder(model: str | Path | ModelFolder, *, weights: bool = True) -> ModelFolder:
    """Open the folder of a path or Hub name; a ModelFolder is returned as it is.

    With `weights=False` only the small files are fetched from the Hub. InputError, one line, if there is no
    such folder or it holds neither model nor adapter.
    """
    if isinstance(model, ModelFolder):
        return model
    return ModelFolder.open(resolve_folder(model, weights=weights), str(model))


def _kind_of(path: Path, settings: dict[str, Any] | None) -> FolderKind:
    if is_run_dir(path):
        return "run"
    original = settings is not None and is_original(settings)
    if (path / ADAPTER_CONFIG).is_file():
        return "original_lora" if original or (path / NON_LORA_WEIGHTS).is_file() else "peft_adapter"
    weights = any(path.glob("*model*.safetensors")) or any(path.glob("pytorch_model*.bin"))
    if (path / PROJECTOR_BIN).is_file() and not weights:
        return "original_projector"
    if settings is None:
        raise InputError(
            f"{path} is not a LLaVA model: it has neither config.json nor run.json nor {ADAPTER_CONFIG}"
        )
    model_type = str(settings.get("model_type"))
    if model_type in _OTHER_ORIGINALS:
        raise InputError(
            f"{path} is an original {model_type} model; of the original format "
            f"{' and '.join(ORIGINAL_TYPES)} are read"
        )
    if original:
        return "original"
    if model_type in _LANGUAGE_MODELS:
        return "language_model"
    if model_type not in MODEL_CONFIGS:
        raise InputError(
            f"{path} is not a LLaVA model: its config.json says model_type {settings.get('model_type')!r}"
        )
    return "hf"
