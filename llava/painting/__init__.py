"""Cuts things out of pictures, and repaints parts of them by diffusion."""
