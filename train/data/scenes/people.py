"""Persons, and two-wheelers with and without riders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .camera import NEAR_M
from .painter import Painter
from .shapes import CIRCLE, Points, bar, sideways, upright
from .things import Color, Cycle, Person

TYRE = (28, 28, 30)
DETAIL_PX = 12.0
"""Limbs are painted where a metre takes at least this many pixels."""
STEEL = (150, 152, 156)
HELMETS: tuple[Color, ...] = ((228, 228, 224), (190, 40, 40), (36, 38, 44), (236, 196, 60))
Limb = Callable[[float, float, float, float, float], Points]
"""From (u0, y0) to (u1, y1) with a width; u is along whatever direction the figure shows."""


def paint_person(painter: Painter, person: Person) -> None:
    """Legs in mid-step, a body with arms, and a head."""
    if painter.camera.depth(person.z) < NEAR_M:
        return
    x, z, scale = person.x, person.z, person.height / 1.75
    if painter.pixels_per_metre(z) < DETAIL_PX:
        painter.fill(bar(x, 0, x, 0.9 * scale, 0.32 * scale, z), person.trousers, "person")
        _paint_torso(painter, person, x, 0.82 * scale, 1.48 * scale, z, "person")
        painter.disc(x, 1.62 * scale, z, 0.15 * scale, person.hair, "person")
        return
    step = 0.24 * (1 - 4 * abs(person.stride - 0.5)) * scale
    for foot, shade in ((x - step, 0.8), (x + step, 1.0)):
        painter.fill(bar(x, 0.92 * scale, foot, 0.0, 0.21 * scale, z), person.trousers, "person", shade)
        painter.fill(bar(foot - 0.1, 0.05, foot + 0.12, 0.05, 0.1, z), TYRE, "person")
    for hand, shade in ((x - 0.3 * scale + step / 2, 0.75), (x + 0.3 * scale - step / 2, 0.9)):
        painter.fill(bar(x, 1.36 * scale, hand, 0.82 * scale, 0.14 * scale, z), person.color, "person", shade)
    _paint_torso(painter, person, x, 0.82 * scale, 1.48 * scale, z, "person")
    _paint_head(painter, person, x, 1.62 * scale, z, "person", person.hair)


def _paint_torso(
    painter: Painter, person: Person, x: float, low: float, high: float, z: float, label: str
) -> None:
    half = 0.23 * person.height / 1.75
    torso = [
        (x - half * 0.8, low),
        (x + half * 0.8, low),
        (x + half, high - 0.12),
        (x + half * 0.6, high),
        (x - half * 0.6, high),
        (x - half, high - 0.12),
    ]
    painter.fill(np.array([(u, y, z) for u, y in torso]), person.color, label)


def _paint_head(painter: Painter, person: Person, x: float, y: float, z: float, label: str, cap: Color) -> None:
    radius = 0.135 * person.height / 1.75
    painter.disc(x, y, z, radius, person.skin, label)
    painter.fill(upright(CIRCLE[:7] * (1.1, 1.1), x, y + 0.02, z, radius), cap, label)


def paint_cycle(painter: Painter, cycle: Cycle) -> None:
    """A two-wheeler from its side or its end, then whoever rides it."""
    if painter.camera.depth(cycle.near) < NEAR_M:
        return
    if cycle.across:
        _paint_side_view(painter, cycle)
    else:
        _paint_end_view(painter, cycle)


def _label(cycle: Cycle) -> str:
    return "motorcycle" if cycle.motor else "bicycle"


def _paint_side_view(painter: Painter, cycle: Cycle) -> None:
    x, z, label, radius = cycle.x, cycle.z, _label(cycle), 0.33 if cycle.motor else 0.36
    rear, front = x - cycle.width / 2 + radius, x + cycle.width / 2 - radius
    for hub in (rear, front):
        painter.disc(hub, radius, z, radius, TYRE, label)
        painter.disc(hub, radius, z, radius * (0.5 if cycle.motor else 0.78), STEEL, label)
    thick = 0.3 if cycle.motor else 0.1
    for bone in (
        (rear, radius, x - 0.1, 0.62), (x - 0.1, 0.45, front, 0.72), (front, radius, front - 0.15, 1.0),
        (rear, radius, x, 0.36), (x, 0.36, x - 0.18, 0.9),
    ):  # fmt: skip
        painter.fill(bar(*bone, thick, z), cycle.color, label)
    painter.fill(bar(x - 0.36, 0.9, x + 0.02, 0.9, 0.12, z), TYRE, label)
    painter.fill(bar(front - 0.26, 1.02, front - 0.02, 1.05, 0.09, z), TYRE, label)
    if cycle.motor:
        painter.fill(bar(x - 0.45, 0.72, x + 0.3, 0.78, 0.26, z), cycle.color, label, 1.15)
    if cycle.rider:
        _paint_side_rider(painter, cycle.rider, x, z)


def _paint_side_rider(painter: Painter, rider: Person, x: float, z: float) -> None:
    hip, shoulder = (x - 0.16, 0.98), (x + 0.16, 1.46)
    painter.fill(bar(*hip, x + 0.2, 0.72, 0.19, z), rider.trousers, "rider")
    painter.fill(bar(x + 0.2, 0.76, x + 0.02, 0.3, 0.16, z), rider.trousers, "rider", 0.9)
    painter.fill(bar(*hip, *shoulder, 0.36, z), rider.color, "rider")
    painter.fill(bar(*shoulder, x + 0.46, 1.06, 0.13, z), rider.color, "rider", 0.8)
    _paint_head(painter, rider, x + 0.22, 1.66, z, "rider", rider.hair)


def _paint_end_view(painter: Painter, cycle: Cycle) -> None:
    x, z, label = cycle.x, cycle.near + 0.65, _label(cycle)
    wide = 0.26 if cycle.motor else 0.13
    painter.fill(sideways(CIRCLE, x, 0.35, cycle.far - 0.35, 0.35), TYRE, label)
    painter.fill(bar(x, 0, x, 0.72, wide, cycle.near), TYRE, label)
    painter.fill(bar(x, 0.5, x, 1.0, wide + (0.26 if cycle.motor else 0.03), z), cycle.color, label)
    painter.fill(bar(x - 0.34, 1.06, x + 0.34, 1.06, 0.1, z), STEEL, label)
    if cycle.motor:
        painter.disc(
            x, 0.82, cycle.near, 0.12, (255, 70, 50) if cycle.speed > 0 else (255, 250, 220), label, glowing=True
        )
    if cycle.rider:
        _paint_end_rider(painter, cycle.rider, x, z)


def _paint_end_rider(painter: Painter, rider: Person, x: float, z: float) -> None:
    for side in (-1, 1):
        painter.fill(bar(x + side * 0.12, 1.0, x + side * 0.21, 0.36, 0.18, z), rider.trousers, "rider", 0.95)
        painter.fill(bar(x + side * 0.2, 1.42, x + side * 0.36, 1.06, 0.13, z), rider.color, "rider", 0.85)
    _paint_torso(painter, rider, x, 0.9, 1.52, z, "rider")
    _paint_head(painter, rider, x, 1.67, z, "rider", rider.hair)
