"""Decides what a world holds. Everything comes from the dice, in a fixed order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from .dice import Dice
from .things import (
    Blob,
    Building,
    CarShape,
    Color,
    Cycle,
    Fence,
    Lamp,
    Person,
    Plant,
    Side,
    Sign,
    Signal,
    SignalState,
    SignShape,
    Street,
    Thing,
    Vehicle,
    Wall,
    World,
)

Mover = Literal["car", "truck", "bus", "motorcycle", "bicycle"]
FRONTS = {"houses": 0.46, "wall": 0.16, "fence": 0.2, "park": 0.18}
"""What stands along a side of the road, and how often."""
TRAFFIC: dict[Mover, float] = {"car": 0.56, "truck": 0.13, "bus": 0.12, "motorcycle": 0.1, "bicycle": 0.09}
"""What drives, and how often."""
SIZES_M = {"car": (1.8, 4.4, 1.5), "truck": (2.45, 8.0, 3.3), "bus": (2.5, 11.0, 3.1)}
"""Usual width, length and height."""
CAR_SHAPES: tuple[CarShape, ...] = ("low", "low", "estate", "van")
STATES: tuple[SignalState, ...] = ("red", "green", "amber")
PLASTER: tuple[Color, ...] = (
    (196, 184, 160), (172, 150, 124), (206, 198, 188), (150, 142, 138), (188, 160, 132), (160, 172, 178),
    (204, 180, 140), (138, 116, 104), (178, 188, 170),
)  # fmt: skip
BRICK: tuple[Color, ...] = ((142, 82, 66), (158, 100, 76), (120, 78, 70), (170, 122, 92))
STONE: tuple[Color, ...] = (
    (142, 138, 130),
    (168, 160, 148),
    (128, 112, 100),
    (150, 96, 78),
    (118, 122, 124),
    (184, 180, 172),
)
ROOF: tuple[Color, ...] = ((120, 66, 52), (92, 88, 88), (78, 70, 70), (110, 92, 78))
GLASS: tuple[Color, ...] = ((62, 74, 88), (84, 100, 112), (48, 54, 62), (104, 122, 134))
PAINT: tuple[Color, ...] = (
    (228, 228, 226), (176, 178, 182), (106, 110, 116), (44, 46, 52), (168, 34, 34), (40, 66, 128),
    (50, 92, 74), (148, 124, 92), (206, 152, 44), (96, 128, 160), (84, 36, 44),
)  # fmt: skip
LIVERY: tuple[Color, ...] = (
    (206, 60, 48),
    (232, 196, 60),
    (226, 226, 220),
    (48, 96, 150),
    (56, 128, 92),
    (190, 110, 50),
    (120, 124, 132),
)
LEAVES: tuple[Color, ...] = (
    (74, 104, 52), (92, 118, 58), (60, 86, 52), (112, 124, 58), (84, 100, 70), (150, 120, 52), (142, 88, 46),
)  # fmt: skip
GRASS: tuple[Color, ...] = ((104, 126, 66), (122, 128, 74), (134, 120, 84), (92, 112, 64), (146, 134, 98))
CLOTHES: tuple[Color, ...] = (
    (40, 44, 58), (150, 44, 44), (60, 92, 140), (200, 196, 186), (88, 80, 70), (216, 170, 60),
    (70, 110, 80), (120, 70, 110), (30, 30, 32),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = ((40, 46, 66), (64, 60, 58), (30, 30, 34), (110, 100, 84), (76, 86, 108))
SKIN: tuple[Color, ...] = ((224, 184, 154), (198, 148, 116), (140, 96, 70), (92, 62, 48))
HAIR: tuple[Color, ...] = (
    (40, 32, 28),
    (96, 70, 44),
    (170, 140, 90),
    (130, 128, 126),
    (180, 44, 40),
    (30, 36, 60),
)
METAL: tuple[Color, ...] = ((128, 130, 130), (92, 98, 98), (70, 78, 72), (154, 152, 146))
SIGN_FACES: tuple[tuple[SignShape, Color, Color], ...] = (
    ("disc", (236, 234, 228), (190, 28, 34)),
    ("disc", (30, 76, 160), (236, 234, 228)),
    ("disc", (192, 30, 36), (236, 234, 228)),
    ("triangle", (236, 232, 220), (194, 32, 36)),
    ("square", (28, 84, 166), (232, 232, 232)),
    ("square", (238, 196, 50), (236, 234, 228)),
    ("board", (30, 78, 156), (232, 232, 230)),
    ("board", (236, 200, 60), (36, 36, 36)),
    ("board", (32, 110, 72), (232, 232, 230)),
)
"""Shape, face and rim of traffic signs."""


@dataclasses.dataclass(frozen=True)
class Drive:
    """How far and how long one drives through a world."""

    metres: float = 0.0
    seconds: float = 0.0
    speed: float = 8.0
    """Ours, in metres per second."""

    @property
    def end(self) -> float:
        """Where the last thing stands."""
        return self.metres + 130.0


def plan_world(dice: Dice, drive: Drive) -> World:
    """A street and everything on it, from just behind the start to beyond the end of the drive."""
    street = _plan_street(dice, drive)
    plans: tuple[Callable[[Dice, Street, Drive], Iterator[Thing]], ...] = (
        partial(_plan_side, sign=-1),
        partial(_plan_side, sign=1),
        _plan_traffic,
        _plan_crossings,
        _plan_trams,
    )
    things = tuple(thing for plan in plans for thing in plan(dice, street, drive))
    skyline = tuple(
        (dice.between(-1.1, 1.1), dice.between(0.05, 0.2), dice.between(0.02, 0.08))
        for _ in range(dice.whole(10, 18))
    )
    return World(street, things, skyline)


def _plan_street(dice: Dice, drive: Drive) -> Street:
    ours, oncoming, width = dice.whole(1, 2), dice.whole(1, 2), dice.between(3.0, 3.7)
    left, right = _plan_edges(dice, oncoming * width), _plan_edges(dice, ours * width)
    lanes = tuple((i + 0.5 - oncoming) * width for i in range(oncoming + ours))
    track = dice.weigh({"none": 0.45, "street": 0.25, "left": 0.15, "right": 0.15})
    middles = {"street": lanes[oncoming - 1], "left": -left.front - 3.2, "right": right.front + 3.2}
    grey, warm = dice.whole(68, 122), dice.whole(-6, 8)
    paving = dice.whole(110, 180)
    zebras = tuple(k * 60.0 + dice.between(8, 40) for k in range(int(drive.end / 60) + 1) if dice.chance(0.6))
    patches = tuple(
        (
            dice.between(lanes[0], lanes[-1]),
            dice.between(0, drive.end),
            dice.between(0.5, 2.4),
            dice.between(1, 9),
            dice.between(0.7, 1.2),
        )
        for _ in range(int(drive.end / 20))
    )
    return Street(
        left, right, lanes, width, oncoming,
        asphalt=(grey + warm, grey, grey - warm),
        paving=(paving + dice.whole(-4, 18), paving, paving - dice.whole(-4, 18)),
        grass=dice.pick(GRASS),
        zebras=zebras,
        track=middles.get(track),
        ballast=track in ("left", "right"),
        patches=patches,
    )  # fmt: skip


def _plan_edges(dice: Dice, lanes: float) -> Side:
    road = lanes + dice.pick((0.4, 2.5, 2.6))
    verge = road + dice.pick((0.0, 0.0, 1.0, dice.between(1.5, 3)))
    sidewalk = verge + dice.between(1.8, 4.2)
    return Side(road, verge, sidewalk, sidewalk + dice.pick((0.3, 0.4, dice.between(1.5, 5))))


def _side(street: Street, sign: int) -> Side:
    return street.left if sign < 0 else street.right


def _has_track(street: Street, sign: int) -> bool:
    return street.ballast and street.track is not None and street.track * sign > 0


def _plan_side(dice: Dice, street: Street, drive: Drive, sign: int) -> Iterator[Thing]:
    """Fronts, then what stands and walks before them."""
    z = -14.0
    while z < drive.end:
        kind = dice.weigh(FRONTS)
        end = z + dice.between(22, 50)
        if _has_track(street, sign):
            yield from _plan_railway(dice, street, sign, z, end)
        else:
            yield from _plan_front(dice, kind, sign, _side(street, sign).front, z, end)
        z = end + dice.pick((0.0, 0.0, 4.0))
    yield from _plan_furniture(dice, street, drive, sign)
    yield from _plan_people(dice, street, drive, sign)
    yield from _plan_parked(dice, street, drive, sign)


def _plan_front(dice: Dice, kind: str, sign: int, front: float, z: float, end: float) -> Iterator[Thing]:
    if kind == "houses":
        yield from _plan_houses(dice, sign, front, z, end)
    elif kind == "park":
        yield from _plan_park(dice, sign, front, z, end)
    else:
        yield from _plan_barrier(dice, kind, sign, front, z, end)
        yield from _plan_behind(dice, sign, front, z, end)


def _plan_houses(dice: Dice, sign: int, front: float, z: float, end: float) -> Iterator[Thing]:
    while z < end:
        length = dice.between(8, 18)
        yield _plan_building(dice, sign, front + dice.pick((0.0, 0.0, 0.4)), z, length)
        z += length + dice.pick((0.1, 0.1, 0.1, dice.between(2, 5)))


def _plan_building(dice: Dice, sign: int, front: float, z: float, length: float) -> Building:
    floors, width, brick = dice.whole(2, 6), dice.between(8, 13), dice.chance(0.4)
    gable = dice.between(1.5, 3.0) if floors < 4 and dice.chance(0.7) else 0.0
    return Building(
        sign * (front + width / 2), z + length / 2, width, length, floors * dice.between(2.9, 3.4),
        dice.pick(BRICK if brick else PLASTER),
        floors=floors, bays=max(2, int(length / dice.between(2.3, 3.4))), window=dice.pick(GLASS),
        roof=dice.pick(ROOF), brick=brick, shop=dice.chance(0.35), gable=gable, lit=dice.whole(0, 1 << 20),
    )  # fmt: skip


def _plan_park(dice: Dice, sign: int, front: float, z: float, end: float) -> Iterator[Thing]:
    while z < end:
        away = dice.between(0.8, 14)
        plan = plan_tree if dice.chance(0.6) else plan_bush
        yield plan(dice, sign * (front + away), z)
        z += dice.between(1.8, 5.5)
    if dice.chance(0.4):
        yield _plan_building(dice, sign, front + 18, end - 16, 14)


def _plan_barrier(dice: Dice, kind: str, sign: int, front: float, z: float, end: float) -> Iterator[Thing]:
    color, rail, height = dice.pick(STONE), dice.chance(0.3), dice.between(1.3, 3.2)
    metal = dice.pick(METAL + ROOF)
    while z < end:
        length = min(8.0, end - z)
        middle = z + length / 2
        if kind == "wall":
            yield Wall(sign * (front + 0.2), middle, 0.4, length, height, color, panels=3)
        else:
            yield Fence(
                sign * (front + 0.05), middle, 0.1, length, 1.0 if rail else min(height, 2.2), metal, rail=rail
            )
        z += length


def _plan_behind(dice: Dice, sign: int, front: float, z: float, end: float) -> Iterator[Thing]:
    """What looks over a wall or through a fence."""
    houses = dice.chance(0.5)
    if houses:
        yield from _plan_houses(dice, sign, front + 9, z + 2, end - 8)
    while z < end:
        yield (plan_tree if dice.chance(0.5) else plan_bush)(dice, sign * (front + dice.between(2, 6)), z)
        z += dice.between(4, 10)


def _plan_railway(dice: Dice, street: Street, sign: int, z: float, end: float) -> Iterator[Thing]:
    """A fence before the track, or none; greenery or houses beyond it."""
    front = _side(street, sign).front
    if dice.chance(0.55):
        yield from _plan_barrier(dice, "fence", sign, front, z, end)
    if dice.chance(0.5):
        yield from _plan_houses(dice, sign, front + 7.5, z, end)
    else:
        yield from _plan_park(dice, sign, front + 6.5, z, end)


def plan_tree(dice: Dice, x: float, z: float) -> Plant:
    """A tree with a crown of about a dozen clumps."""
    height, spread = dice.between(4.5, 10), dice.between(1.3, 2.7)
    trunk = height * dice.between(0.25, 0.42)
    blobs = _plan_blobs(dice, dice.whole(9, 14), spread, trunk + 0.4, height)
    return Plant(x, z, 0.6, 0.6, height, dice.pick(LEAVES), trunk=trunk, blobs=blobs)


def plan_bush(dice: Dice, x: float, z: float) -> Plant:
    """A bush down to the ground."""
    height, spread = dice.between(0.9, 2.4), dice.between(0.8, 1.9)
    blobs = _plan_blobs(dice, dice.whole(4, 8), spread, 0.3, height)
    return Plant(x, z, spread, 0.8, height, dice.pick(LEAVES), trunk=0.0, blobs=blobs)


def _plan_blobs(dice: Dice, count: int, spread: float, low: float, high: float) -> tuple[Blob, ...]:
    """Clumps from the bottom up, darker at the bottom."""
    blobs = []
    for k in range(count):
        level = (k + 0.5) / count
        wide = spread * (1 - 0.55 * level * level)
        radius = min(wide, (high - low) / 2) * dice.between(0.45, 0.75)
        y = low + radius * 0.5 + (high - low - radius) * level
        tone = 0.62 + 0.5 * level + dice.between(-0.08, 0.08)
        blobs.append(Blob(dice.between(-1, 1) * (wide - radius * 0.6), y, radius, tone, dice.whole(0, 7)))
    return tuple(blobs)


def _plan_furniture(dice: Dice, street: Street, drive: Drive, sign: int) -> Iterator[Thing]:
    """Poles, signs, lights, street trees and parked two-wheelers, on the strip next to the kerb."""
    side, metal, arm = _side(street, sign), dice.pick(METAL), dice.chance(0.6)
    x = sign * (side.road + 0.55)
    trees = side.verge > side.road and dice.chance(0.7)
    z = dice.between(5, 13)
    while z < drive.end:
        kind = dice.weigh({"lamp": 0.34, "sign": 0.3, "cycle": 0.16, "tree": 0.3 if trees else 0.05, "none": 0.1})
        if kind == "lamp":
            yield Lamp(x, z, 0.2, 0.2, dice.between(5, 7), metal, arm=-sign * 1.6 if arm else 0.0)
        elif kind == "sign":
            yield _plan_sign(dice, x, z)
        elif kind == "cycle":
            yield _plan_parked_cycle(dice, x + sign * 0.6, z)
        elif kind == "tree":
            yield plan_tree(dice, x + sign * 0.2, z)
        z += dice.between(4, 12)
    for zebra in street.zebras:
        if dice.chance(0.75):
            yield _plan_signal(dice, x, zebra + (3.6 if sign < 0 else -0.8), sign)


def _plan_sign(dice: Dice, x: float, z: float) -> Sign:
    shape, face, rim = dice.pick(SIGN_FACES)
    diameter = dice.between(0.85, 1.25) if shape != "board" else dice.between(1.2, 1.7)
    return Sign(
        x, z, 0.14, 0.3, dice.between(2.2, 2.8), face,
        shape=shape, rim=rim, diameter=diameter, second=dice.chance(0.3),
    )  # fmt: skip


def _plan_signal(dice: Dice, x: float, z: float, sign: int) -> Signal:
    state = dice.pick(STATES)
    arm = -sign * dice.between(2.2, 3.6) if dice.chance(0.45) else 0.0
    return Signal(x, z, 0.2, 0.4, dice.between(3.2, 3.8), dice.pick(METAL), state=state, arm=arm)


def _plan_person(dice: Dice, x: float, z: float, speed: float = 0.0, drift: float = 0.0) -> Person:
    height = dice.between(1.5, 1.92) if dice.chance(0.88) else dice.between(1.05, 1.35)
    return Person(
        x, z, 0.6, 0.5, height, dice.pick(CLOTHES),
        trousers=dice.pick(TROUSERS), skin=dice.pick(SKIN), hair=dice.pick(HAIR), stride=dice.between(0, 1),
        speed=speed, drift=drift,
    )  # fmt: skip


def _plan_people(dice: Dice, street: Street, drive: Drive, sign: int) -> Iterator[Thing]:
    side = _side(street, sign)
    z, gap = dice.between(4, 18), dice.between(5, 22)
    while z < drive.end:
        for _ in range(dice.pick((1, 1, 1, 2, 3))):
            x = sign * dice.between(side.verge + 0.9, side.sidewalk - 0.2)
            yield _plan_person(dice, x, z, speed=dice.sign() * dice.between(0.8, 1.5) if dice.chance(0.8) else 0.0)
            z += dice.between(0.6, 1.0)
        z += dice.between(0.3, 1.7) * gap


def _plan_parked_cycle(dice: Dice, x: float, z: float) -> Cycle:
    motor = dice.chance(0.4)
    return Cycle(x, z, 1.9, 0.5, 1.1, dice.pick(PAINT), motor=motor, rider=None, across=True)


def _plan_parked(dice: Dice, street: Street, drive: Drive, sign: int) -> Iterator[Thing]:
    """Cars in the parking strip, where there is one."""
    side = _side(street, sign)
    lanes = street.lane_width * (street.oncoming if sign < 0 else len(street.lanes) - street.oncoming)
    if side.road - lanes < 2.0:
        return
    z = dice.between(-6, 8)
    while z < drive.end:
        if dice.chance(0.65) and not any(-4 < z - zebra < 6 for zebra in street.zebras):
            if dice.chance(0.1):
                yield _plan_parked_cycle(dice, sign * (side.road - 1.15), z)
            else:
                kind: Mover = "car" if dice.chance(0.94) else "truck"
                yield _plan_mover(dice, kind, sign * (side.road - 1.15), z, 0.0, sign < 0)
        z += dice.between(8.5, 13)


def _plan_mover(dice: Dice, kind: Mover, x: float, z: float, speed: float, oncoming: bool) -> Thing:
    if kind == "motorcycle" or kind == "bicycle":
        return _plan_cycle(dice, kind == "motorcycle", x, z, speed)
    width, length, height = (size * dice.between(0.94, 1.06) for size in SIZES_M[kind])
    shape: CarShape = dice.pick(CAR_SHAPES)
    if kind == "car" and shape == "van":
        height *= 1.25
    return Vehicle(
        x, z, width, length, height, dice.pick(PAINT if kind == "car" else LIVERY),
        kind=kind, glass=dice.pick(GLASS), trim=dice.pick(PAINT + LIVERY), oncoming=oncoming,
        braking=dice.chance(0.3), shape=shape, speed=speed,
    )  # fmt: skip


def _plan_cycle(dice: Dice, motor: bool, x: float, z: float, speed: float) -> Cycle:
    rider = _plan_person(dice, x, z) if speed else None
    return Cycle(x, z, 0.75, 1.9, 1.75, dice.pick(PAINT), motor=motor, rider=rider, across=False, speed=speed)


def _plan_traffic(dice: Dice, street: Street, drive: Drive) -> Iterator[Thing]:
    """Each lane moves at one speed, so nobody runs into anybody; ours keeps its distance to us."""
    own = street.lanes[street.oncoming]
    for i, lane in enumerate(street.lanes):
        oncoming = i < street.oncoming
        speed = -dice.between(5, 8) if oncoming else drive.speed + (0 if lane == own else dice.between(-2, 2))
        gap = dice.between(11, 60)
        z = dice.between(13, 28) if lane == own else dice.between(-4, 14)
        reach = drive.end + max(0.0, drive.seconds * -speed)
        while z < reach:
            kind = dice.weigh(TRAFFIC)
            if street.track is None or abs(lane - street.track) > 1:
                yield _plan_mover(dice, kind, lane + dice.between(-0.3, 0.3), z, speed, oncoming)
            z += 13 + dice.between(0.1, 1.5) * gap
    yield from _plan_cyclists(dice, street, drive)


def _plan_cyclists(dice: Dice, street: Street, drive: Drive) -> Iterator[Thing]:
    """Riders near the right edge of our lanes."""
    x, z = street.lanes[-1] + street.lane_width / 2 - 0.25, dice.between(7, 45)
    while z < drive.end:
        yield _plan_cycle(dice, dice.chance(0.3), x, z, dice.between(4, 5.5))
        z += dice.between(14, 70)


def _plan_crossings(dice: Dice, street: Street, drive: Drive) -> Iterator[Thing]:
    """People and riders who cross the road in front of us."""
    for zebra in street.zebras:
        if zebra > drive.end:
            return
        for _ in range(dice.whole(0, 3)):
            x, drift = dice.between(-street.left.road, street.right.road), dice.sign() * dice.between(0.7, 1.3)
            yield _plan_person(dice, x, zebra + dice.between(0.4, 2.8), drift=drift)
        if dice.chance(0.35):
            x, rider = dice.between(-street.left.road, street.right.road), _plan_person(dice, 0, 0)
            z = zebra + dice.between(3.4, 4.4)
            yield Cycle(
                x, z, 1.8, 0.5, 1.75, dice.pick(PAINT), motor=dice.chance(0.4), rider=rider, across=True, drift=2.0
            )


def _plan_trams(dice: Dice, street: Street, drive: Drive) -> Iterator[Thing]:
    if street.track is None:
        return
    speed, color, trim = -dice.between(5, 8), dice.pick(LIVERY), dice.pick(LIVERY)
    z, reach = dice.between(8, 40), drive.end + drive.seconds * 10
    while z < reach:
        length = dice.pick((18.0, 27.0, 27.0))
        yield Vehicle(
            street.track, z + length / 2, 2.5, length, dice.between(3.3, 3.7), color,
            kind="train", glass=dice.pick(GLASS), trim=trim, oncoming=True, braking=False, shape="low",
            speed=speed,
        )  # fmt: skip
        z += length + dice.between(25, 90)
