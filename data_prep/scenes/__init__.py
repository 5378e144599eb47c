"""Rendered inspection photos: power-line insulator strings with drawn defects and exact boxes."""

from data_prep.scenes.compose import DEFECTS, STRING, Scene, defects_of, render

__all__ = ["DEFECTS", "STRING", "Scene", "defects_of", "render"]
