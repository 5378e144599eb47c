"""LLaVA Inspect's model package. Importing it is cheap: nothing here pulls in torch."""

import logging

# PEFT imports bitsandbytes where it is installed, which says then on every CPU what it could not fetch.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


__version__ = "0.1.0"
