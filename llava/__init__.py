"""LLaVA Inspect's model package. Importing it is cheap: nothing here pulls in torch."""

import logging

from llava.common.environment import leave_foreign_python

leave_foreign_python()  # before anything that is not in the standard library

# PEFT imports bitsandbytes where it is installed, which then warns on every machine without a GPU.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


__version__ = "0.1.0"
