"""Cars, trucks, buses and trams, made of blocks with panels."""

from __future__ import annotations

from .camera import NEAR_M
from .painter import Painter
from .shapes import CIRCLE, Block, Faces, Points, Rect, grid, panels, sideways
from .things import Color, Vehicle

DETAIL_PX = 10.0
"""Wheels and reflections are painted where a metre takes at least this many pixels."""
TYRE = (24, 24, 26)
RIM = (132, 134, 138)
TAIL = (196, 26, 26)
TAIL_ON = (255, 44, 34)
HEAD = (255, 250, 224)
PLATE = (236, 236, 228)


def paint_vehicle(painter: Painter, vehicle: Vehicle) -> None:
    """Body, wheels, windows and lights of whatever kind it is."""
    if painter.camera.depth(vehicle.far) < NEAR_M:
        return
    {"car": _paint_car, "truck": _paint_truck, "bus": _paint_bus, "train": _paint_tram}[vehicle.kind](
        painter, vehicle
    )


def _paint_car(painter: Painter, car: Vehicle) -> None:
    belt = 0.58 * car.height
    body = Block(car.left, car.right, 0.24, belt, car.near, car.far, 0.05, 0.08, 0.12)
    hood, boot = {"low": (0.26, 0.16), "estate": (0.26, 0.02), "van": (0.12, 0.01)}[car.shape]
    rear, front = (hood, boot) if car.oncoming else (boot, hood)
    cabin = Block(
        car.left + 0.07, car.right - 0.07, belt, car.height, car.near + rear * car.length,
        car.far - front * car.length, 0.13, 0.5 if car.oncoming else 0.35, 0.5,
    )  # fmt: skip
    painter.block(Block(car.left + 0.1, car.right - 0.1, 0.06, 0.3, car.near + 0.1, car.far), TYRE, "car")
    faces = painter.block(body, car.color, "car")
    _paint_wheels(painter, car, (0.19, 0.81), 0.33)
    top = painter.block(cabin, car.color, "car")
    _paint_panes(painter, car, top, [(0.05, 0.1, 0.46, 0.86), (0.54, 0.1, 0.93, 0.86)], (0.07, 0.08, 0.93, 0.88))
    _paint_end(painter, car, faces, 0.62, 0.92)


def _paint_truck(painter: Painter, truck: Vehicle) -> None:
    cab = 2.1
    near, far = (truck.near, truck.far - cab) if not truck.oncoming else (truck.near + cab, truck.far)
    cab_near, cab_far = (truck.far - cab, truck.far) if not truck.oncoming else (truck.near, truck.near + cab)
    painter.block(
        Block(truck.left + 0.15, truck.right - 0.15, 0.35, 1.0, truck.near, truck.far), (58, 58, 60), "truck"
    )
    parts = [
        (Block(truck.left, truck.right, 0.95, truck.height, near, far), truck.color),
        (
            Block(truck.left + 0.05, truck.right - 0.05, 0.5, truck.height * 0.82, cab_near, cab_far, 0.04, 0.12),
            truck.trim,
        ),
    ]
    painted = [painter.block(block, color, "truck") for block, color in (parts if truck.oncoming else parts[::-1])]
    cargo, head = painted if truck.oncoming else painted[::-1]
    _paint_wheels(painter, truck, (0.12, 0.3, 0.87), 0.5)
    if truck.oncoming:
        _paint_panes(painter, truck, head, [(0.2, 0.56, 0.7, 0.9)], (0.06, 0.5, 0.94, 0.92))
        _paint_end(painter, truck, head, 0.08, 0.22)
        return
    _paint_stripes(painter, truck, cargo)
    _paint_end(painter, truck, cargo, 0.01, 0.09)


def _paint_stripes(painter: Painter, truck: Vehicle, cargo: Faces) -> None:
    if cargo.side is not None:
        painter.fill(panels(cargo.side, [(0.03, 0.38, 0.97, 0.56)]), truck.trim, None, painter.side_shade(cargo))
    if cargo.near is not None:
        painter.fill(
            panels(cargo.near, [(0.49, 0.02, 0.51, 0.98), (0.05, 0.1, 0.95, 0.13)]), truck.color, None, 0.6
        )


def _paint_bus(painter: Painter, bus: Vehicle) -> None:
    faces = painter.block(
        Block(bus.left, bus.right, 0.28, bus.height, bus.near, bus.far, 0.04, 0.06), bus.color, "bus"
    )
    _stripe(painter, bus, faces, 0.12)
    count = max(3, int(bus.length / 1.6))
    _paint_panes(
        painter, bus, faces, grid(count, 1, (0.02, 0.42, 0.98, 0.86), (0.9, 0.95)), (0.06, 0.42, 0.94, 0.84)
    )
    _paint_wheels(painter, bus, (0.2, 0.72), 0.48)
    _paint_end(painter, bus, faces, 0.1, 0.2)
    if faces.near is not None:
        painter.fill(panels(faces.near, [(0.2, 0.87, 0.8, 0.97)]), (255, 190, 60), None, 0.95, glowing=True)


def _paint_tram(painter: Painter, tram: Vehicle) -> None:
    painter.block(Block(tram.left + 0.2, tram.right - 0.2, 0.05, 0.5, tram.near, tram.far), TYRE, "train")
    cars = max(1, int(tram.length / 9))
    size = tram.length / cars
    for k in reversed(range(cars)):
        near, far = tram.near + k * size, tram.near + (k + 1) * size - 0.4
        nose = 0.5 if k == 0 else 0.0
        faces = painter.block(
            Block(tram.left, tram.right, 0.34, tram.height, near, far, 0.08, nose), tram.color, "train"
        )
        _stripe(painter, tram, faces, 0.16)
        painter.block(
            Block(tram.left + 0.3, tram.right - 0.3, tram.height, tram.height + 0.35, near + 1, far - 1),
            (110, 112, 116),
            "train",
        )
        _paint_panes(
            painter, tram, faces, grid(5, 1, (0.03, 0.44, 0.97, 0.84), (0.86, 1.0)), (0.08, 0.4, 0.92, 0.88)
        )
        if k == 0:
            _paint_end(painter, tram, faces, 0.14, 0.22)


def _stripe(painter: Painter, vehicle: Vehicle, faces: Faces, high: float) -> None:
    stripe: list[Rect] = [(0, 0.02, 1, 0.02 + high)]
    if faces.side is not None:
        painter.fill(panels(faces.side, stripe), vehicle.trim, None, painter.side_shade(faces))
    if faces.near is not None:
        painter.fill(panels(faces.near, stripe), vehicle.trim, None)


def _paint_panes(painter: Painter, vehicle: Vehicle, faces: Faces, side: list[Rect], end: Rect) -> None:
    """Windows; the upper part of each shows the sky."""
    for face, rects in ((faces.side, side), (faces.near, [end])):
        if face is not None:
            panes = panels(face, rects)
            painter.fill(panes, vehicle.glass, None)
            if painter.pixels_per_metre(vehicle.near) < DETAIL_PX:
                continue
            painter.fill(panels(face, [_upper(rect) for rect in rects]), _sheen(painter, vehicle.glass), None)


def _upper(rect: Rect) -> Rect:
    left, bottom, right, top = rect
    return left, bottom + 0.6 * (top - bottom), right, top


def _sheen(painter: Painter, glass: Color) -> Color:
    red, green, blue = (int(0.6 * g + 0.4 * s) for g, s in zip(glass, painter.light.sky_low, strict=True))
    return red, green, blue


def _paint_wheels(painter: Painter, vehicle: Vehicle, places: tuple[float, ...], radius: float) -> None:
    side = Block.of(vehicle).side(painter.camera)
    if side is None or painter.pixels_per_metre(vehicle.near) < DETAIL_PX:
        return
    x = float(side[0, 0])
    for place in places:
        z = vehicle.near + place * vehicle.length
        if painter.camera.depth(z) > 2 * NEAR_M:
            painter.fill(_wheel(x, z, radius), TYRE, vehicle.kind)
            painter.fill(_wheel(x, z, radius * 0.55), RIM, vehicle.kind)


def _wheel(x: float, z: float, radius: float) -> Points:
    return sideways(CIRCLE, x, radius, z, radius)


def _paint_end(painter: Painter, vehicle: Vehicle, faces: Faces, low: float, high: float) -> None:
    """Lights and number plate of the end we see; `low` and `high` bound the lights on its face."""
    if faces.near is None:
        return
    lamps = panels(faces.near, [(0.04, low, 0.22, high), (0.78, low, 0.96, high)])
    shining = painter.light.lamps or (vehicle.braking and not vehicle.oncoming)
    color = HEAD if vehicle.oncoming else TAIL_ON if shining else TAIL
    painter.fill(lamps, color, None, 1.0 if shining or not vehicle.oncoming else 0.85, glowing=shining)
    painter.fill(panels(faces.near, [(0.36, low * 0.6, 0.64, low * 0.6 + 0.4 * (high - low) + 0.02)]), PLATE, None)
    if painter.light.lamps:
        for x, y, z in lamps.mean(axis=1).tolist():
            painter.glow(x, y, z, 0.8 if vehicle.oncoming else 0.4, color)
