"""Poles, lamps, traffic lights and signs."""

from __future__ import annotations

from .camera import NEAR_M
from .painter import Painter
from .shapes import BOARD, CIRCLE, SQUARE, TRIANGLE, Block, bar, upright
from .things import Color, Lamp, Sign, Signal

LAMPLIGHT = (255, 226, 170)
HOUSING = (34, 36, 34)
STATES: dict[str, tuple[int, Color]] = {
    "red": (2, (255, 60, 44)),
    "amber": (1, (255, 190, 50)),
    "green": (0, (70, 250, 150)),
}
"""Which lamp shines, from the bottom, and its colour."""
SHAPES = {"disc": CIRCLE, "triangle": TRIANGLE, "square": SQUARE, "board": BOARD}
SYMBOL = SQUARE * (0.55, 0.3)


def paint_lamp(painter: Painter, lamp: Lamp) -> None:
    """A pole, with a lamp at the end of its arm if it has one."""
    if painter.camera.depth(lamp.z) < NEAR_M:
        return
    painter.fill(bar(lamp.x, -0.1, lamp.x, lamp.height, lamp.width, lamp.z), lamp.color, "pole")
    painter.fill(bar(lamp.x, -0.1, lamp.x, 0.7, lamp.width * 1.7, lamp.z), lamp.color, "pole", 0.85)
    if not lamp.arm:
        return
    tip = lamp.x + lamp.arm
    painter.fill(bar(lamp.x, lamp.height, tip, lamp.height + 0.3, lamp.width * 0.7, lamp.z), lamp.color, "pole")
    head = bar(tip - 0.45, lamp.height + 0.28, tip + 0.45, lamp.height + 0.28, 0.26, lamp.z)
    painter.fill(head, LAMPLIGHT if painter.light.lamps else lamp.color, "pole", glowing=painter.light.lamps)
    if painter.light.lamps:
        painter.glow(tip, lamp.height, lamp.z, 1.6, LAMPLIGHT)


def paint_signal(painter: Painter, signal: Signal) -> None:
    """A traffic light beside the road, and one over it if there is an arm."""
    if painter.camera.depth(signal.z) < NEAR_M:
        return
    top = signal.height + (2.4 if signal.arm else 0)
    painter.fill(bar(signal.x, -0.1, signal.x, top, signal.width, signal.z), signal.color, "pole")
    _paint_head(painter, signal, signal.x, signal.height - 0.75)
    if signal.arm:
        painter.fill(
            bar(signal.x, top, signal.x + signal.arm, top, signal.width * 0.8, signal.z), signal.color, "pole"
        )
        _paint_head(painter, signal, signal.x + signal.arm, top - 0.5)


def _paint_head(painter: Painter, signal: Signal, x: float, y: float) -> None:
    z = signal.z - 0.15
    painter.block(Block(x - 0.29, x + 0.29, y - 0.75, y + 0.75, z, z + 0.3), HOUSING, "traffic light")
    shining, color = STATES[signal.state]
    for lamp in range(3):
        lit = lamp == shining
        painter.disc(
            x, y + (lamp - 1) * 0.46, z, 0.19, color if lit else (62, 60, 54), "traffic light", glowing=lit
        )
    painter.glow(x, y + (shining - 1) * 0.46, z, 0.55, color)


def paint_sign(painter: Painter, sign: Sign) -> None:
    """One or two plates on a pole."""
    if painter.camera.depth(sign.z) < NEAR_M:
        return
    painter.fill(bar(sign.x, -0.1, sign.x, sign.height, sign.width, sign.z), (148, 150, 150), "pole")
    outline, z = SHAPES[sign.shape], sign.z - 0.1
    glow = 1.6 if painter.light.lamps else 1.0
    radius = sign.diameter / 2
    painter.fill(upright(outline, sign.x, sign.height, z, radius), sign.rim, "traffic sign", glow)
    painter.fill(upright(outline, sign.x, sign.height, z, radius * 0.76), sign.color, "traffic sign", glow)
    painter.fill(upright(SYMBOL, sign.x, sign.height, z, radius * 0.8), sign.rim, "traffic sign", glow * 0.7)
    if sign.second:
        lower = sign.height - radius - 0.36
        painter.fill(
            upright(SQUARE * (1.0, 0.62), sign.x, lower, z, radius * 0.9), (232, 230, 222), "traffic sign", glow
        )
        painter.fill(upright(SYMBOL, sign.x, lower, z, radius * 0.8), (40, 40, 40), "traffic sign", glow)
