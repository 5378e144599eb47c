"""Draws defects on real components."""
