"""Repaints parts of pictures by diffusion."""
