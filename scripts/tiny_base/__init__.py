"""How the embedded base model is made; `scripts/build_tiny_base.py` runs it."""
