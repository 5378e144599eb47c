"""Writes the form of a recipe's reports as a JSON schema, which a service can hold its answers to."""

from __future__ import annotations

from typing import Any

from data_prep.recipe.schema import Recipe


def report_schema(recipe: Recipe) -> dict[str, Any] | None:
    """Return the JSON schema of the answers to all `report` families, in all languages of the recipe.

    It names what a defect may be called, with its severity and action, where it may be and in which
    component. None for a recipe without such a family.
    """
    if not any(family.family == "report" for family in recipe.active_families.values()):
        return None
    defects: list[dict[str, Any]] = []
    sound: list[dict[str, Any]] = []
    for language in recipe.language_shares:
        words = recipe.in_language(language)
        reports = [family for family in words.active_families.values() if family.family == "report"]
        named = [kind.word for kind in words.components] + [family.component for family in reports]
        component = {"enum": [name for name in dict.fromkeys(named) if name]}
        location = {"enum": words.places}
        for kind in words.defects:
            severity, action = {"const": kind.severity}, {"const": kind.action}
            defects.append(_entry(component, {"const": kind.word}, severity, location, action))
        if words.none_word is not None:
            null = {"type": "null"}
            sound.append(_entry(component, {"const": words.none_word}, null, null, null))
    defect = {"$ref": "#/$defs/defect"}
    several = {"type": "array", "items": defect, "minItems": 2}
    return {"$defs": {"defect": {"anyOf": defects}}, "anyOf": [defect, *sound, several]}


def _entry(component: Any, defect: Any, severity: Any, location: Any, action: Any) -> dict[str, Any]:
    fields = {
        "component": component,
        "defect": defect,
        "severity": severity,
        "location": location,
        "action": action,
    }
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
