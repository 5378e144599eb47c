"""Finds the models that words for prompts are asked of: here from a folder, or on a server."""

from __future__ import annotations

from argparse import Namespace

from llava.common.errors import InputError
from llava.painting.chat_server import ChatServer, is_address
from llava.painting.keywords import Asker, engine_asker
from llava.painting.prompts import Writer


def find_asker(args: Namespace) -> Asker | None:
    """Return what gives keywords of photos, None where --keyword-model names nothing; InputError if it cannot
    be loaded or reached."""
    if args.keyword_model is None:
        return None
    try:
        if is_address(args.keyword_model):
            return ChatServer(args.keyword_model, args.keyword_name).see
        from llava.inference.engine import Engine
        from llava.model.builder import load_model

        loaded = load_model(
            args.keyword_model, device=args.device, load_8bit=args.load_8bit, load_4bit=args.load_4bit
        )
        return engine_asker(Engine(loaded))
    except InputError as error:
        raise InputError(f"--keyword-model: {error}") from None


def find_writer(args: Namespace) -> Writer | None:
    """Return what writes prompts, None where --language-model names nothing; InputError if it cannot be
    loaded or reached."""
    if args.language_model is None:
        return None
    try:
        if is_address(args.language_model):
            return ChatServer(args.language_model, args.language_name).write
        from llava.painting.language import LanguageModel

        return LanguageModel(args.language_model, args.device).write
    except InputError as error:
        raise InputError(f"--language-model: {error}") from None
