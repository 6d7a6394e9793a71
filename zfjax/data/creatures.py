"""The ten creatures of the demo set: the table that makes a class, and how one is posed and painted.

Creature coordinates: x right, y down, one unit = about the radius of the whole creature.
Picture coordinates: x right, y down, 0..1. Edges are soft over one pixel; `pixel` is its side in the units at hand.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

JITTER = 0.08  # every number of a creature varies by this fraction of itself, so zeros (the mid-line) stay
OUTLINE = 0.035  # creature units
MAX_TURN = np.pi * 25 / 180  # radians, either way
SCALE = (0.31, 0.43)  # pictures per creature unit: the creature spans about 60 to 85 % of the picture
Numbers = Any  # of a creature: an array, or in ROWS a tuple
Number = jax.Array | float  # one number, traced or Python's
Colour = jax.Array | np.ndarray  # [3, 1, 1] or, one for each pixel, [3, H, W]; 0..1
REACH = 1.12  # creature units: no creature reaches farther from its centre, jitter and arms included
INK = np.array([0.13, 0.10, 0.12], np.float32)[:, None, None]
WHITE = np.array([0.97, 0.97, 0.94], np.float32)[:, None, None]

# The creature looks at the viewer: its own right eye is on the picture's left (before the rotation).
# Mirroring turns skin, gaze, look and arms; the eyes are named after it, as in the mirrored photograph of a face.
PART_NAMES = ("right eye", "left eye", "nose")


class Creature(NamedTuple):
    """What makes a class, in creature units; paired things are given for x >= 0 and mirrored."""

    head: Numbers  # [3] half width, half height, y of the centre, from where ears and face are measured
    lobes: Numbers  # [4] the head's radius is 1 + sum_n lobes[n - 2] cos(n theta), n = 2..5, theta from down
    ears: Numbers  # [9] root, knee, tip, each x, y, radius: ears, horns or feelers
    body: Numbers  # [3] half width, half height, y of the centre
    eyes: Numbers  # [4] x, y, half width, half height
    pupil: Numbers  # [2] half width, half height as fractions of the eye's
    nose: Numbers  # [6] two ends, each x, y, radius: round, wide, a beak, nostrils or a trunk
    muzzle: Numbers  # [2] half width, half height of the pale patch around the nose
    skin: Numbers  # [8] turn (radians), cycles per unit, fold (1: symmetric left to right), then the weights

    #                  of waves across, waves along, their product, rings, and a constant: see `pattern`


# fmt: off
ROWS = {
    "cat": Creature((.54, .44, -.12), (.02, 0, 0, 0), (.30, -.22, .20, .38, -.44, .10, .42, -.66, .02), (.36, .42, .54),
        (.22, -.05, .13, .12), (.35, .9), (.05, .13, .03, 0, .17, .03), (.20, .12), (.8, 3.2, 1, 1, 0, 0, 0, 0)),
    "rabbit": Creature((.42, .40, .04), (0, 0, 0, 0), (.16, -.28, .13, .22, -.60, .13, .26, -.88, .07), (.34, .34, .60),
        (.17, -.05, .09, .12), (.6, .6), (.03, .12, .035, 0, .14, .035), (.17, .12), (0, 3, 0, 0, 0, 0, 0, -1)),
    "ram": Creature((.40, .48, -.05), (.05, 0, 0, 0), (.26, -.36, .14, .60, -.42, .12, .64, -.04, .04), (.38, .40, .56),
        (.17, -.08, .10, .09), (.9, .4), (.10, .24, .05, 0, .27, .05), (.24, .17), (0, 2.8, 0, 0, 0, 0, 1, 0)),
    "bear": Creature((.58, .50, -.10), (0, 0, 0, 0), (.40, -.36, .17, .44, -.42, .18, .44, -.42, .18), (.44, .42, .52),
        (.20, -.10, .07, .07), (.7, .7), (.07, .10, .07, 0, .11, .08), (.28, .22), (.3, 1.9, 0, 1, 1, 0, 0, -.7)),
    "owl": Creature((.56, .46, -.20), (0, 0, -.05, 0), (.36, -.26, .14, .46, -.44, .07, 0.5, -.6, .01), (.46, .48, .44),
        (.23, -.05, .21, .21), (.5, .5), (0, .10, .08, 0, .26, .015), (0, 0), (.8, 4.2, 0, 1, 1, 0, 0, -.6)),
    "fox": Creature((.56, .44, -.02), (0, .14, 0, 0), (.34, -.20, .22, .46, -.50, .12, .52, -.76, .01), (.32, .36, .58),
        (.20, -.08, .10, .07), (.5, .9), (.03, .36, .05, 0, .38, .05), (.15, .20), (0, 3, 1, 1, 0, 0, 0, 0)),
    "star": Creature((.74, .74, .06), (0, 0, 0, -.24), (.01, 0, .1, .01, 0, .1, .01, 0, .1), (.2, .2, .3),
        (.15, -.12, .11, .13), (.55, .6), (.01, .06, .05, 0, .06, .05), (0, 0), (.8, 2.8, 0, 0, 0, 1, 0, 0)),
    "frog": Creature((.66, .40, .04), (0, 0, 0, 0), (.36, -.30, .21, .36, -.30, .21, .36, -.30, .21), (.50, .40, .50),
        (.36, -.34, .15, .15), (.8, .35), (.06, 0, .03, .05, 0, .03), (0, 0), (0, 2.0, 0, 0, 0, 1, 0, 0)),
    "bee": Creature((.50, .48, .0), (0, 0, 0, 0), (.14, -.44, .03, .24, -.72, .03, .36, -.80, .09), (.40, .44, .52),
        (.22, -.08, .14, .19), (.5, .6), (.01, .18, .05, 0, .18, .05), (0, 0), (0, 2.2, 0, 0, 1, 0, 0, 0)),
    "elephant": Creature((.44, .46, -.18), (0, 0, 0, 0), (.44, -.06, .2, .60, .02, .28, .56, .22, .2), (.44, .44, .50),
        (.19, -.12, .08, .08), (.6, .6), (0, .10, .11, 0, .50, .07), (0, 0), (0, 2.2, 0, 1, 1, 0, 0, .8)),
}

# fmt: on
CLASS_NAMES = tuple(ROWS)
NUM_CLASSES = len(CLASS_NAMES)
TABLE = Creature(*(np.array(column, np.float32) for column in zip(*ROWS.values(), strict=True)))

# Random numbers in 0..1 that a pose, an individual, a pair of colours and the painting of a creature take.
POSE_DRAWS, SHAPE_DRAWS, COLOUR_DRAWS, PAINT_DRAWS = 12, sum(column.shape[1] for column in TABLE), 7, 9


class Pose(NamedTuple):
    """Where the creature stands and how it holds itself."""

    centre: jax.Array  # [2] x, y in the picture
    scale: jax.Array  # [] pictures per creature unit
    turn: jax.Array  # [] radians, clockwise
    mirror: jax.Array  # [] 1 or -1
    look: jax.Array  # [2] shift of the face on the head, creature units, -0.06..0.06
    gaze: jax.Array  # [2] shift of the pupils as a fraction of the eye, -0.35..0.35
    arms: jax.Array  # [2] angle of each arm, radians below the horizontal
    smile: jax.Array  # [] bend of the mouth, creature units, -0.5..1.5


def random_pose(draws: jax.Array) -> Pose:
    """A pose from draws [POSE_DRAWS] in 0..1; the creature stays inside the picture."""
    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * draws[0]
    signed = 2 * draws - 1
    return Pose(
        centre=REACH * scale + draws[1:3] * (1 - 2 * REACH * scale),
        scale=scale,
        turn=MAX_TURN * signed[3],
        mirror=jnp.where(draws[4] < 0.5, -1.0, 1.0),
        look=signed[5:7] * np.array([0.06, 0.03], np.float32),
        gaze=0.35 * signed[7:9],
        arms=signed[9:11],
        smile=2 * draws[11] - 0.5,
    )


def individual(draws: jax.Array, label: jax.Array) -> Creature:
    """One creature of a class: each number of the table varied by JITTER; draws [SHAPE_DRAWS] in 0..1."""
    pieces = jnp.split(draws, np.cumsum([column.shape[1] for column in TABLE])[:-1])
    rows = zip(TABLE, pieces, strict=True)
    return Creature(*(jnp.asarray(column)[label] * (1 + JITTER * (2 * piece - 1)) for column, piece in rows))


def part_places(creature: Creature, pose: Pose) -> jax.Array:
    """Places of the parts, [3, 2] (y, x), 0..1."""
    right = creature.eyes[:2] * jnp.array([-1.0, 1.0])
    nose = (creature.nose[:2] + creature.nose[3:5]) / 2 * jnp.array([0.0, 1.0])
    places = jnp.stack([right, creature.eyes[:2], nose]) + jnp.stack([pose.mirror, 1.0])[None] * pose.look[None]
    x, y = places[:, 0], places[:, 1] + creature.head[2]
    cos, sin = jnp.cos(pose.turn), jnp.sin(pose.turn)
    turned = jnp.stack([sin * x + cos * y, cos * x - sin * y], axis=-1)
    return pose.centre[None, ::-1] + pose.scale * turned


def to_creature(pose: Pose, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Creature coordinates of picture coordinates: the inverse of the move in `part_places`."""
    dx, dy = (x - pose.centre[0]) / pose.scale, (y - pose.centre[1]) / pose.scale
    cos, sin = jnp.cos(pose.turn), jnp.sin(pose.turn)
    return pose.mirror * (cos * dx + sin * dy), cos * dy - sin * dx


def blob(x: jax.Array, y: jax.Array, *, half: Numbers, lobes: Numbers = None) -> jax.Array:
    """Distance to an ellipse [half width, half height], its radius waved by `lobes`; negative inside."""
    u, v = x / (half[0] + 1e-4), y / (half[1] + 1e-4)
    radius = jnp.sqrt(u * u + v * v) + 1e-4
    stretch = jnp.sqrt(x * x + y * y) / radius + 1e-4
    if lobes is None:
        return (radius - 1) * stretch
    c1, s1 = v / radius, u / radius
    c2, s2 = 2 * c1 * c1 - 1, 2 * s1 * c1
    c3, s3 = c2 * c1 - s2 * s1, s2 * c1 + c2 * s1
    c4, s4 = 2 * c2 * c2 - 1, 2 * s2 * c2
    c5, s5 = c3 * c2 - s3 * s2, s3 * c2 + c3 * s2
    edge = 1 + lobes[0] * c2 + lobes[1] * c3 + lobes[2] * c4 + lobes[3] * c5
    slope = 2 * lobes[0] * s2 + 3 * lobes[1] * s3 + 4 * lobes[2] * s4 + 5 * lobes[3] * s5
    distance: jax.Array = (radius - edge) * stretch / jnp.sqrt(1 + (slope / edge) ** 2)
    return distance


def cone(x: jax.Array, y: jax.Array, *, a: Numbers, b: Numbers) -> jax.Array:
    """Distance to the hull of two discs, each (x, y, radius), nearly; negative inside."""
    ex, ey = b[0] - a[0], b[1] - a[1]
    along = jnp.clip(((x - a[0]) * ex + (y - a[1]) * ey) / (ex * ex + ey * ey + 1e-6), 0, 1)
    dx, dy = x - a[0] - along * ex, y - a[1] - along * ey
    distance: jax.Array = jnp.sqrt(dx * dx + dy * dy + 1e-8) - (a[2] + along * (b[2] - a[2]))
    return distance


def cover(distance: jax.Array, pixel: Number) -> jax.Array:
    """Share of a pixel inside an edge, 0..1."""
    return jnp.clip(0.5 - distance / pixel, 0, 1)


def paint(canvas: jax.Array, colour: Colour, share: jax.Array) -> jax.Array:
    """Lay a colour ([3, 1, 1] or [3, H, W]) over the canvas [3, H, W] by each pixel's `share` [H, W], 0..1."""
    return canvas + share[None] * (colour - canvas)


def pattern(x: jax.Array, y: jax.Array, *, skin: Numbers, pixel: Number) -> jax.Array:
    """Share of the second colour, 0..1 [H, W], of a texture (see Creature.skin), soft over one pixel."""
    turn, cycles, fold, across, along, product, rings, constant = skin
    x = x + fold * (jnp.abs(x) - x)
    a = cosine(cycles * (jnp.cos(turn) * x + jnp.sin(turn) * y))
    b = cosine(cycles * (jnp.cos(turn) * y - jnp.sin(turn) * x))
    ring = cosine(cycles * jnp.sqrt(x * x + y * y + 1e-8))
    wave = across * a + along * b + product * a * b + rings * ring + constant
    return jnp.clip(0.5 + wave / (2 * np.pi * cycles * pixel), 0, 1)


# Of (turns from the nearest whole one)^2: Chebyshev's interpolation of the cosine between minus half a turn and half
_COSINE = (1.0, -19.739204, 64.93912, -85.45011, 60.16743, -25.966885, 6.527706)


def cosine(turns: jax.Array) -> jax.Array:
    """cos(2 pi turns) within 1e-6: products and sums alone, as XLA's cosine takes twenty times as long on CPU."""
    square = (turns - jnp.round(turns)) ** 2
    value = jnp.full_like(square, _COSINE[-1])
    for coefficient in _COSINE[-2::-1]:
        value = value * square + coefficient
    return value


def hsv(hue: jax.Array, saturation: Number, value: Number) -> jax.Array:
    """Colour [3, 1, 1], 0..1, from hue, saturation, value, each 0..1."""
    place = (np.array([5, 3, 1], np.float32) + 6 * hue) % 6
    return (value * (1 - saturation * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)))[:, None, None]


def colour_pair(draws: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two colours that can be told apart, one light and one dark, in random order; draws [COLOUR_DRAWS] in 0..1."""
    hue, turn, *rest, swap = draws
    light = hsv(hue, 0.2 + 0.5 * rest[0], 0.78 + 0.22 * rest[1])
    dark = hsv(hue + 0.2 + 0.6 * turn, 0.35 + 0.5 * rest[2], 0.3 + 0.25 * rest[3])
    return jnp.where(swap < 0.5, light, dark), jnp.where(swap < 0.5, dark, light)


def draw_creature(
    draws: jax.Array, canvas: jax.Array, creature: Creature, *, pose: Pose, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Paint from back to front, coloured by draws [PAINT_DRAWS] in 0..1; returns canvas and share of each pixel."""
    u, v = to_creature(pose, x, y)
    pixel = 1 / (min(x.shape) * pose.scale)
    first, second = colour_pair(draws[:COLOUR_DRAWS])
    pale, nose_colour = 0.45 * first + 0.55 * WHITE, hsv(draws[-2], 0.7, 0.75)
    skin = paint(jnp.broadcast_to(first, canvas.shape), second, pattern(u, v, skin=creature.skin, pixel=pixel))
    sun = np.pi * (1 + draws[-1])  # from somewhere above
    slope = jnp.clip(((x - pose.centre[0]) * jnp.cos(sun) + (y - pose.centre[1]) * jnp.sin(sun)) / pose.scale, -1, 1)
    skin = skin * (1 + 0.2 * slope)[None]

    def layer(canvas: jax.Array, distance: jax.Array, colour: jax.Array) -> jax.Array:
        rim = 0.75 + 0.25 * jnp.clip(-distance / 0.15, 0, 1)
        canvas = paint(canvas, INK, cover(distance, pixel))
        return paint(canvas, colour * rim[None], cover(distance + OUTLINE, pixel))

    w, v_head = jnp.abs(u), v - creature.head[2]
    body = _body(creature, pose, u=u, v=v)
    root, knee, tip = creature.ears[:3], creature.ears[3:6], creature.ears[6:]
    ears = jnp.minimum(cone(w, v_head, a=root, b=knee), cone(w, v_head, a=knee, b=tip))
    head = blob(u, v_head, half=creature.head, lobes=creature.lobes)
    canvas = layer(layer(canvas, body, skin), ears, skin)
    canvas = paint(canvas, pale, cover(ears + 2.4 * OUTLINE, pixel))
    canvas = layer(canvas, head, skin)
    colours, u, v = (pale, nose_colour), u - pose.look[0], v_head - pose.look[1]
    canvas, face = _draw_face(canvas, creature, pose, u=u, v=v, head=head, colours=colours, pixel=pixel)
    return canvas, cover(jnp.minimum(jnp.minimum(body, ears), jnp.minimum(head, face)), pixel)


def _body(creature: Creature, pose: Pose, *, u: jax.Array, v: jax.Array) -> jax.Array:
    """Distance to trunk, feet and the two arms."""
    width, height, centre = creature.body
    trunk = blob(u, v - centre, half=creature.body)
    foot = blob(jnp.abs(u) - 0.55 * width, v - centre - 0.8 * height, half=jnp.stack([0.45 * width, 0.3 * height]))
    arm = jnp.where(u < 0, pose.arms[0], pose.arms[1])
    reach = 0.25 + 0.4 * width
    hand = (0.7 * width + reach * jnp.cos(arm), centre - 0.3 * height + reach * jnp.sin(arm), 0.2 * width)
    arms = cone(jnp.abs(u), v, a=(0.7 * width, centre - 0.3 * height, 0.2 * width), b=hand)
    return jnp.minimum(jnp.minimum(trunk, foot), arms)


def _draw_face(
    canvas: jax.Array,
    creature: Creature,
    pose: Pose,
    *,
    u: jax.Array,
    v: jax.Array,
    head: jax.Array,
    colours: tuple[jax.Array, jax.Array],
    pixel: Number,
) -> tuple[jax.Array, jax.Array]:
    """Paint muzzle, mouth, nose and eyes; u, v [H, W] are measured from the face's centre.

    Eyes may stand out of the head (the frog's do), so their distance, with the nose's, comes back for the mask.
    """
    w, side = jnp.abs(u), jnp.where(u < 0, -1.0, 1.0)
    a, b, size = creature.nose[:3], creature.nose[3:], creature.eyes[2:]
    canvas = paint(canvas, colours[0], cover(blob(u, v - (a[1] + b[1]) / 2, half=creature.muzzle), pixel))
    width, mouth = 0.35 * creature.head[0], b[1] + b[2] + 0.07
    bend = v - mouth - pose.smile * (width * width / 2 - u * u)
    lips = jnp.maximum(jnp.maximum(jnp.abs(bend) - 0.6 * OUTLINE, w - width), head)
    canvas = paint(canvas, INK, cover(lips, pixel))
    e, f = w - creature.eyes[0], v - creature.eyes[1]
    nose, eye = cone(w, v, a=a, b=b), blob(e, f, half=size)
    face = jnp.minimum(nose, eye) - 0.7 * OUTLINE
    canvas = paint(canvas, INK, cover(face, pixel))
    canvas = paint(paint(canvas, colours[1], cover(nose, pixel)), WHITE, cover(eye, pixel))
    shift = pose.gaze * size * (1 - creature.pupil)
    e, f, glint = e - side * shift[0], f - shift[1], 0.2 * size
    canvas = paint(canvas, INK, cover(blob(e, f, half=size * creature.pupil), pixel))
    return paint(canvas, WHITE, cover(blob(e * side + glint[0], f + 1.5 * glint[1], half=glint), pixel)), face
