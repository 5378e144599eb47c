"""Findings of a survey as pre-labels: files that labelling tools open, with what the model found drawn in."""
