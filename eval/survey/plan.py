"""A plain drawing of where findings are: north is up, nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, floor, log10, radians

from eval.survey.findings import Finding
from eval.survey.places import located
from llava.common.html.markup import Markup, tag
from llava.common.records import Call

_WIDTH, _HEIGHT, _MARGIN = 800, 480, 40
_METRES_PER_DEGREE = 111_195  # of latitude, on a sphere of 6,371 km
_ORDER: tuple[Call, ...] = ("sound", "ask", "defect")  # the last lies on top
_RADII = {"sound": 5, "ask": 7, "defect": 8}


def draw_plan(findings: Sequence[Finding]) -> Markup | None:
    """Return an SVG with a point per finding that has a place, None where none has; a point links to the
    finding's card.

    Degrees of longitude are shortened by the cosine of the middle latitude (equirectangular projection).
    """
    placed = located(findings)
    if not placed:
        return None
    latitudes = [finding.latitude or 0.0 for finding in placed]
    longitudes = _without_a_jump([finding.longitude or 0.0 for finding in placed])
    middle = (min(latitudes) + max(latitudes)) / 2
    shortened = max(cos(radians(middle)), 0.01)
    across = max((max(longitudes) - min(longitudes)) * shortened, 2e-4)  # some 20 m at least
    down = max(max(latitudes) - min(latitudes), 2e-4)
    scale = min((_WIDTH - 2 * _MARGIN) / across, (_HEIGHT - 2 * _MARGIN) / down)  # pixels a degree
    centre = (min(longitudes) + max(longitudes)) / 2

    def point(finding: Finding, longitude: float) -> Markup:
        x = _WIDTH / 2 + (longitude - centre) * shortened * scale
        y = _HEIGHT / 2 - ((finding.latitude or 0.0) - middle) * scale
        title = f"{finding.kind or finding.decision}: {finding.photo}"
        circle = tag(
            "circle", tag("title", title), cx=f"{x:.1f}", cy=f"{y:.1f}", r=_RADII[finding.decision],
            class_=finding.decision,
        )  # fmt: skip
        return tag("a", circle, href=f"#f-{finding.id}", data_finding=finding.id)

    ordered = sorted(zip(placed, longitudes, strict=True), key=lambda item: _ORDER.index(item[0].decision))
    corner = (
        f"{min(latitudes):.4f}° to {max(latitudes):.4f}°, {min(longitudes):.4f}° to {max(longitudes):.4f}°"
    )
    return tag(
        "svg",
        *(point(finding, longitude) for finding, longitude in ordered),
        *_scale_bar(scale / _METRES_PER_DEGREE),
        tag("text", "N ↑", x=_WIDTH - 16, y=24, text_anchor="end"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="plan",
        role="img",
        aria_label=f"Where the findings are: latitudes and longitudes {corner}",
    )


def _without_a_jump(longitudes: Sequence[float]) -> list[float]:
    """Return the longitudes so that those on both sides of the date line lie side by side."""
    if max(longitudes) - min(longitudes) <= 180:
        return list(longitudes)
    return [longitude + 360 if longitude < 0 else longitude for longitude in longitudes]


def _scale_bar(pixels_a_metre: float) -> list[Markup]:
    """Return a bar of 1, 2 or 5 times a power of ten metres, a quarter of the drawing at most."""
    longest = _WIDTH / 4 / pixels_a_metre
    power = 10 ** floor(log10(longest))
    metres = max(power * step for step in (1, 2, 5) if power * step <= longest)
    length = metres * pixels_a_metre
    name = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    y = _HEIGHT - 16
    return [
        tag("path", d=f"M16 {y - 6}v6h{length:.1f}v-6", class_="scale"),
        tag("text", name, x=f"{22 + length:.1f}", y=y),
    ]
