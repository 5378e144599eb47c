"""LLaVA's constants, under the names its users import (haotian-liu/LLaVA, llava/constants.py)."""

from llava.common.records import IMAGE_PLACEHOLDER

IGNORE_INDEX = -100
IMAGE_TOKEN_INDEX = -200
DEFAULT_IMAGE_TOKEN = IMAGE_PLACEHOLDER
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
IMAGE_PLACEHOLDER_TOKEN = "<image-placeholder>"
