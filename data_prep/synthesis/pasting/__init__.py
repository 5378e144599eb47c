"""Cuts defects out of photos and fits them into others."""
