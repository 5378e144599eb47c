"""LLaVA Inspect's model package. Importing it is cheap: nothing here pulls in torch."""

__version__ = "0.1.0"
