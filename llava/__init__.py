"""LLaVA Inspect's model package. Importing it is cheap: nothing here pulls in torch."""

import logging

# PEFT imports bitsandbytes where it is installed, which then warns on every machine without a GPU.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


__version__ = "0.1.0"
