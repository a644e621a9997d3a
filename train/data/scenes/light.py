"""Light and weather, as numbers a painter can use."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .dice import Dice
from .things import Color

Rgb = tuple[float, float, float]
"""Factors per channel."""
Weather = Literal["clear", "rain", "fog", "snow"]
LIGHTS = {"day": 0.34, "overcast": 0.2, "low_sun": 0.16, "dusk": 0.14, "night": 0.16}
"""How often each occurs."""
WEATHERS: dict[Weather, float] = {"clear": 0.55, "rain": 0.2, "fog": 0.13, "snow": 0.12}
"""How often each occurs."""


@dataclasses.dataclass(frozen=True)
class Light:
    """How everything is lit."""

    name: str
    ambient: Rgb
    """What white becomes."""
    sky_high: Color
    sky_low: Color
    sun: float
    """-1 to 1: faces looking left are brighter by it, faces looking right darker."""
    contrast: float
    """0 to 1: how dark cast shadows are."""
    lamps: bool
    """Windows, lamps and headlights are on."""
    clouds: float
    """0 to 1: how much of the sky they cover."""


@dataclasses.dataclass(frozen=True)
class Air:
    """What is between the camera and everything."""

    weather: Weather
    haze: Color
    reach: float
    """Distance at which half of a colour is haze, in metres."""
    exposure: float
    """Brightness factor of the finished picture."""
    noise: int
    """Largest error of a pixel, 0 to 255."""
    vignette: float
    """Share of brightness lost in the corners."""
    flare: float
    """0 to 1: how strongly a low sun bleaches the picture."""


def choose_light(dice: Dice) -> Light:
    """Time of day, with the variety each has."""
    name = dice.weigh(LIGHTS)
    sun = dice.between(0.08, 0.3) * dice.sign()
    return {"day": _day, "overcast": _overcast, "low_sun": _low_sun, "dusk": _dusk, "night": _night}[name](
        dice, sun
    )


def choose_air(dice: Dice, light: Light) -> Air:
    """Weather that suits the light."""
    weather = dice.weigh(WEATHERS)
    reach = {"clear": dice.between(260, 700), "rain": dice.between(90, 200), "fog": dice.between(10, 42)}
    return Air(
        weather,
        haze=_mix(light.sky_low, (128, 132, 138) if not light.lamps else (38, 40, 48), dice.between(0.1, 0.5)),
        reach=reach.get(weather, dice.between(60, 160)),
        exposure=dice.between(0.82, 1.2),
        noise=dice.whole(3, 9) + (6 if light.lamps else 0),
        vignette=dice.between(0.1, 0.4),
        flare=dice.between(0.1, 0.5) if light.name == "low_sun" else 0.0,
    )


def _day(dice: Dice, sun: float) -> Light:
    blue = dice.between(0, 1)
    high = (int(70 + 50 * blue), int(120 + 45 * blue), int(185 + 40 * blue))
    low = (195, 212, int(226 + 12 * blue))
    return Light("day", (1.0, 0.99, 0.96), high, low, sun, dice.between(0.4, 0.6), False, dice.between(0.1, 0.7))


def _overcast(dice: Dice, sun: float) -> Light:
    grey = dice.whole(150, 205)
    ambient = dice.between(0.72, 0.88)
    high, low = (grey - 25, grey - 20, grey - 12), (grey + 15, grey + 17, grey + 20)
    return Light("overcast", (ambient, ambient, ambient * 1.03), high, low, sun / 4, 0.22, False, 0.9)


def _low_sun(dice: Dice, sun: float) -> Light:
    warmth = dice.between(0, 1)
    low = (252, int(205 + 25 * warmth), int(140 + 50 * warmth))
    return Light(
        "low_sun", (1.06, 0.9, 0.72), (120, 145, 185), low, sun * 1.4, 0.55, False, dice.between(0.2, 0.6)
    )


def _dusk(dice: Dice, sun: float) -> Light:
    red = dice.between(0, 1)
    low = (int(170 + 50 * red), int(120 + 15 * red), 125)
    return Light("dusk", (0.52, 0.49, 0.58), (62, 66, 108), low, sun, 0.25, True, dice.between(0.2, 0.7))


def _night(dice: Dice, sun: float) -> Light:
    dark = dice.between(0.36, 0.5)
    ambient = (dark * 1.05, dark, dark * 1.1)
    return Light("night", ambient, (10, 13, 26), (42, 42, 58), sun / 4, 0.2, True, dice.between(0.0, 0.5))


def _mix(a: Color, b: Color, share: float) -> Color:
    red, green, blue = (int(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue
