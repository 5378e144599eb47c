"""Suspects: annotations that a model, which was not trained on them, contradicts.

Each closed answer that an annotation gives is compared with the probabilities that a model gives to the choices;
the model was trained on other photos (cross-fitted), so that it cannot have learned the answer by heart. This is
confident learning's setting (C. Northcutt, L. Jiang and I. Chuang, 2021, doi 10.1613/jair.1.12125).
"""

from __future__ import annotations
