"""How far features and class probabilities move when a picture is translated, scaled or rotated (Fig. 5).

A transform is a family of inverse maps, one for each amount. `warp` reads pictures through them, `curves` measures
what a network makes of the result, and `slope`, `linearity`, `stability` and `quarter_turns` put numbers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial, tree_leaves_with_path
from jax.typing import ArrayLike

from zfjax import nets
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError, saying_keywords
from zfjax.features import Features, check_finite, in_batches, layer_words
from zfjax.nets import Net, Size
from zfjax.programs import as_partial

SMALL = 0.2  # share of the farthest amount up to which a transform is small (Paper is silent)


class Transform(NamedTuple):
    """A family of transforms with one parameter."""

    maps: Callable[[ArrayLike], np.ndarray]  # amounts [A] -> float32 [A, 2, 3], inverse maps as `warp` reads them
    extent: Callable[[np.ndarray], np.ndarray]  # amounts [A] -> [A], how far each is from no change at all
    identity: float  # the amount that changes nothing
    unit: str  # of the extent


def translations(amounts: ArrayLike) -> np.ndarray:
    """Maps that move the picture down by `amounts` pixels (up where negative): inverse maps float32 [A, 2, 3].

    Examples:
      >>> import zfjax
      >>> zfjax.invariance.translations([3])[0]
      array([[ 1.,  0., -3.],
             [ 0.,  1.,  0.]], dtype=float32)
    """
    down = _amounts(amounts)
    maps = np.tile(np.eye(2, 3, dtype=np.float32), (len(down), 1, 1))
    maps[:, 0, 2] = -down
    return maps


def scalings(amounts: ArrayLike) -> np.ndarray:
    """Maps that enlarge the picture `amounts` times: inverse maps float32 [A, 2, 3]; UserError for 0 or less.

    Examples:
      >>> import zfjax
      >>> zfjax.invariance.scalings([2])[0]
      array([[0.5, 0. , 0. ],
             [0. , 0.5, 0. ]], dtype=float32)
    """
    factors = _amounts(amounts)
    if (factors <= 0).any():
        raise UserError(f"amounts={factors.tolist()}: scales above 0 are needed")
    matrices: np.ndarray = (np.eye(2, 3)[None] / factors[:, None, None]).astype(np.float32)
    return matrices


def rotations(amounts: ArrayLike) -> np.ndarray:
    """Maps that turn the picture by `amounts` degrees, as np.rot90 does: inverse maps float32 [A, 2, 3].

    Examples:
      >>> import zfjax
      >>> zfjax.invariance.rotations([90])[0].round(3)
      array([[ 0.,  1.,  0.],
             [-1.,  0.,  0.]], dtype=float32)
    """
    turns = np.deg2rad(_amounts(amounts))  # float64: quarter turns of the grid land on the grid
    cos, sin, zero = np.cos(turns), np.sin(turns), np.zeros_like(turns)
    return np.moveaxis(np.array([[cos, sin, zero], [-sin, cos, zero]], np.float32), -1, 0)


TRANSFORMS = {
    "translation": Transform(translations, np.abs, 0.0, "pixel"),
    "scale": Transform(scalings, lambda factors: np.abs(factors - 1), 1.0, "unit of scale"),
    "rotation": Transform(rotations, lambda turns: np.abs((turns + 180) % 360 - 180), 0.0, "degree"),
}


@partial(jax.jit, static_argnames="size")
def warp(images: jax.Array, maps: jax.Array, *, size: Size) -> jax.Array:
    """The centre of each image after its transform, read from all of the stored image.

    A place p of the result, (y, x) from its centre, shows the image at M p + t, weighing the four pixels around that
    place (bilinear). So whole pixels of translation are slices, and the identity is the centre crop, bit for bit.

    Paper is silent: what appears beyond the stored image. Here it goes on as its mirror image about the border
    pixel's centre, so no new edge appears that would excite the filters, and there are no streaks. Weights that are
    never negative cannot overshoot, so nothing rings.

    Args:
      images: float [B, H, W, C], as large as they are stored.
      maps: float32 [B, 2, 3], M and t of each.
      size: side of the result, or its (height, width), pixels, 2 to the sides of the images.

    Returns:
      [B, *size, C]; UserError for another size, or images that are not floating point.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> images = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> zfjax.invariance.warp(images, zfjax.invariance.translations([1]), size=2)[0, :, :, 0]
      Array([[1., 2.],
             [5., 6.]], dtype=float32)
    """
    if images.ndim != 4 or maps.shape != (len(images), 2, 3):
        raise UserError(f"images of shape {images.shape}, maps {maps.shape}: [B, H, W, C] and [B, 2, 3] are needed")
    (height, width), (high, wide) = images.shape[1:3], nets.size_of(size)
    if not (2 <= high <= height and 2 <= wide <= width):
        sides = f"2 to {height}, the side" if height == width else f"2 to {height} by 2 to {width}, the sides"
        raise UserError(f"size={size}: {sides} of the images, is needed")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images of type {images.dtype}: floating point is needed, to weigh pixels")
    lines = (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2 for side in (high, wide))
    y, x = (axis[None] for axis in jnp.meshgrid(*lines, indexing="ij"))
    m = maps[:, :, :, None, None]
    # written out: a matrix product would lose bits of the coordinates on accelerators
    rows = m[:, 0, 0] * y + m[:, 0, 1] * x + m[:, 0, 2] + ((height - high) // 2 + (high - 1) / 2)
    columns = m[:, 1, 0] * y + m[:, 1, 1] * x + m[:, 1, 2] + ((width - wide) // 2 + (wide - 1) / 2)
    top, down = _whole_and_rest(rows, height)
    left, across = _whole_and_rest(columns, width)
    down, across = (rest[..., None].astype(images.dtype) for rest in (down, across))
    image = jnp.arange(len(images))[:, None, None]

    def between(row: jax.Array) -> jax.Array:
        return images[image, row, left] * (1 - across) + images[image, row, left + 1] * across

    return between(top) * (1 - down) + between(top + 1) * down


class Curves(NamedTuple):
    """Distances and probabilities of N images under A amounts of one transform."""

    distances: Any  # fn's tree of float [N, A]: Euclidean, from the features of the untransformed image
    norms: Any  # fn's tree of float [N]: length of the untransformed image's feature vector
    probabilities: np.ndarray | None  # float32 [N, A, K] softmax of the logits; None where none were named
    untransformed: np.ndarray | None  # float32 [N, K] the same at the identity


@saying_keywords
def curves(
    fn: Features,
    images: np.ndarray,
    *,
    transform: Transform,
    amounts: ArrayLike,
    size: Size,
    logits: str | None = None,
    batch_size: int = 32,
    name: str = "fn",
) -> Curves:
    """Distances and probabilities along a transform: Fig. 5's columns 2 to 4, before any normalisation.

    Every transformed image goes through `fn` once; the features of one image at a time are held.

    Args:
      fn: float [B, *size, C] -> features [B, ...] or a tree of them, of any network, as `features.layers_of`.
      images: float [N, H, W, C], as stored, in the unit that `fn` reads: what lies around the centre is what moves in.
      transform: one of TRANSFORMS, or the caller's own.
      amounts: numbers [A], the identity among them.
      size: side that `fn` reads, or its (height, width), pixels.
      logits: the name in fn's {name: features} whose softmax is the probability of the classes; None: distances alone.
      batch_size: amounts per call of `fn`.
      name: what `fn` is called where its features are refused, as "net='small'".

    Returns:
      Curves; UserError for no image, amounts without the identity, logits that `fn` does not return, or features that
      are not finite.

    Examples:
      >>> import numpy as np, zfjax
      >>> images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
      >>> shift = zfjax.invariance.TRANSFORMS["translation"]
      >>> fn = lambda images: {"mean": images.mean((1, 2))}
      >>> measured = zfjax.invariance.curves(fn, images, transform=shift, amounts=[-2, 0, 2], size=8)
      >>> measured.distances["mean"].shape, measured.distances["mean"][:, 1]
      ((2, 3), array([0., 0.], dtype=float32))
    """
    values = _amounts(amounts)
    if transform.identity not in values:
        raise UserError(f"amounts={values.tolist()}: {transform.identity} must be among them, where nothing changes")
    images = np.asarray(images)
    if images.ndim != 4 or not len(images):
        raise UserError(f"images of shape {images.shape}: at least one image, [N, H, W, C], is needed")
    size = nets.size_of(size)
    start, maps = values.tolist().index(transform.identity), transform.maps(values)
    fn, rows = as_partial(fn), []
    for image in images:
        measured = check_finite(in_batches(Partial(_transformed(size), fn, image), maps, batch_size=batch_size), name)
        if logits is not None and not (isinstance(measured, Mapping) and logits in measured):
            raise UserError(f"logits={logits!r}: a name in what fn returns, {jax.tree.structure(measured)}, is needed")
        shares = None if logits is None else np.asarray(jax.jit(jax.nn.softmax)(_wide(measured[logits])))
        vectors = jax.tree.map(lambda features: _wide(features).reshape(len(maps), -1), measured)
        distances = jax.tree.map(lambda v: np.linalg.norm(v - v[start], axis=1), vectors)
        norms = jax.tree.map(lambda v: np.linalg.norm(v[start], axis=0), vectors)
        rows.append(Curves(distances, norms, shares, None if shares is None else shares[start]))
    stacked: Curves = jax.tree.map(lambda *parts: np.stack(parts), *rows)
    return stacked


def _wide(features: np.ndarray) -> np.ndarray:
    """Float64 as it is, all else as float32: squares of float16 overflow, and those of bytes are taken modulo 256."""
    return features if features.dtype == np.float64 else features.astype(np.float32)


def relative(measured: Curves) -> Any:
    """Distances over the length of the untransformed vector, fn's tree of [N, A], so that layers can be compared.

    Paper is silent on a normalisation. Features as long as the untransformed ones that share nothing with them stand
    at sqrt(2). UserError for an image whose features are all 0.

    Examples:
      >>> import numpy as np, zfjax
      >>> fn = lambda images: {"mean": images.mean((1, 2))}
      >>> images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
      >>> shift = zfjax.invariance.TRANSFORMS["translation"]
      >>> measured = zfjax.invariance.curves(fn, images, transform=shift, amounts=[-2, 0, 2], size=8)
      >>> zfjax.invariance.relative(measured)["mean"][:, 1]
      array([0., 0.], dtype=float32)
    """
    check_finite(measured.norms, "curves")
    for path, norms in tree_leaves_with_path(measured.norms):
        if not (norms > 0).all():
            raise UserError(
                f"{layer_words(path)} is 0 for image {norms.argmin()}: no unit responds; take other layers or images"
            )
    return jax.tree.map(lambda distances, norms: distances / norms[:, None], measured.distances, measured.norms)


def slope(extents: np.ndarray, values: np.ndarray, *, small: float = SMALL) -> np.ndarray:
    """Least squares through zero over the small transforms: sum(e v) / sum(e^2) over 0 < e <= small * max(e).

    Args:
      extents: [A], from `Transform.extent`.
      values: [..., A], 0 where nothing is changed.
      small: share of the largest extent; where no amount is that small, the smallest one stands alone.

    Returns:
      [...]: value per unit of extent; UserError where every extent is 0.

    Examples:
      >>> import numpy as np, zfjax
      >>> float(zfjax.invariance.slope(np.array([0.0, 1.0, 10.0]), np.array([0.0, 2.0, 5.0])))
      2.0
    """
    if not (extents > 0).any():
        raise UserError(f"extents={extents.tolist()}: at least one above 0 is needed")
    limit = max(small * extents.max(), extents[extents > 0].min())
    e = np.where(extents <= limit, extents, 0.0)
    slopes: np.ndarray = (values * e).sum(axis=-1) / (e * e).sum()
    return slopes


def linearity(extents: np.ndarray, values: np.ndarray) -> np.ndarray:
    """R^2 of the best line through zero: 1 - sum (v - s e)^2 / sum (v - mean v)^2, s = sum(e v) / sum(e^2).

    1 is a curve that grows in proportion to the transform; a curve that jumps and then stays has 0 or less.
    Arguments and result as of `slope`; 1 for a curve that stays at 0.

    Examples:
      >>> import numpy as np, zfjax
      >>> float(zfjax.invariance.linearity(np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 6.0])))
      1.0
    """
    line = slope(extents, values, small=1.0)[..., None] * extents
    missed = np.square(values - line).sum(axis=-1)
    spread = np.square(values - values.mean(axis=-1, keepdims=True)).sum(axis=-1)
    explained: np.ndarray = 1 - missed / np.where(spread > 0, spread, 1.0)
    return explained


def stability(measured: Curves) -> np.ndarray:
    """Whether the most probable class is that of the untransformed image, bool [N, A]: means are stabilities."""
    if measured.probabilities is None or measured.untransformed is None:
        raise UserError("probabilities=None: curves(..., logits=NAME) tell the most probable class")
    is_kept: np.ndarray = measured.probabilities.argmax(axis=-1) == measured.untransformed.argmax(axis=-1)[:, None]
    return is_kept


def quarter_turns(angles: ArrayLike, values: np.ndarray) -> np.ndarray:
    """Mean value at 90, 180 and 270 degrees minus that between them: above 0 for what looks alike when turned so.

    Between are the angles at least 30 degrees from every quarter turn. Quarter turns need no interpolation and hardly
    any border, which helps them a little with any object.

    Args:
      angles: degrees [A].
      values: [..., A], such as the probability of the true label.

    Returns:
      [...]; UserError for angles without a quarter turn, or without any between.

    Examples:
      >>> import numpy as np, zfjax
      >>> round(float(zfjax.invariance.quarter_turns([0, 45, 90, 135, 180], np.array([1.0, 0.2, 0.6, 0.2, 0.6]))), 3)
      0.4
    """
    turns = _amounts(angles) % 360
    off = np.abs((turns + 45) % 90 - 45)
    quarter, between = (off == 0) & (turns != 0), off >= 30
    if not (quarter.any() and between.any()):
        raise UserError(f"angles={turns.tolist()}: a quarter turn, and an angle 30 degrees from all, are needed")
    gains: np.ndarray = values[..., quarter].mean(axis=-1) - values[..., between].mean(axis=-1)
    return gains


def _amounts(amounts: ArrayLike) -> np.ndarray:
    values = np.asarray(amounts, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise UserError(f"amounts={values.tolist()}: a list of finite numbers, at least one, is needed")
    return values


def _whole_and_rest(places: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """The pixel before each place, and the share of the next one, after mirroring the line 0 .. length - 1."""
    last = length - 1
    folded = last - jnp.abs(jnp.mod(places, 2 * last) - last)
    whole = jnp.clip(jnp.floor(folded), 0, last - 1)
    return whole.astype(jnp.int32), folded - whole


@cache
def _transformed(size: Size) -> Callable[[Partial, jax.Array, jax.Array], Any]:
    """One function object for equal sizes, so that JAX finds what it compiled."""

    def features(fn: Partial, image: jax.Array, maps: jax.Array) -> Any:
        return fn(warp(jnp.broadcast_to(image, (len(maps), *image.shape)), maps, size=size))

    return features


class Chosen(NamedTuple):
    """The N pictures looked at."""

    indices: np.ndarray  # int [N] in the validation split, ascending
    stored: np.ndarray  # uint8 [N, *picture_size, C]
    labels: np.ndarray  # int [N] the true class; the most probable one where the set does not say; -1 without classes
    known: np.ndarray  # bool [N] the set says the class
    right: np.ndarray  # bool [N] the label is the most probable class
    names: tuple[str, ...]  # [N] of the classes; () without classes
    pictures: tuple[str, ...]  # [N] what the pictures are called


def label_probability(measured: Curves, labels: np.ndarray) -> np.ndarray | None:
    """The probability of each picture's label at each amount, float32 [N, A]; None where no logits were named."""
    if measured.probabilities is None:
        return None
    return measured.probabilities[np.arange(len(labels)), :, labels]


def compared_layers(net: Net) -> tuple[str, ...]:
    """The first layer and the last hidden one, as in the paper."""
    hidden = nets.hidden_layers(net)
    return tuple(dict.fromkeys((hidden[0], hidden[-1])))


def features_of_crops(net: Net, layers: Sequence[str]) -> Partial:
    """fn(float [B, *image_size, C], the centres of pictures as they are stored) -> {layer: features}, for `curves`.

    `net.prepare` makes the network's input of them, so it has to take pictures that are not whole numbers.
    """
    return Partial(_prepared(nets.size_of(net.picture_size)), as_partial(nets.features_of_pictures(net, layers)))


@cache
def _prepared(size: tuple[int, int]) -> Callable[[Partial, jax.Array], Any]:
    """One function object for equal sizes, so that JAX finds what it compiled."""

    def features(fn: Partial, crops: jax.Array) -> Any:
        margins = [(whole - side) for whole, side in zip(size, crops.shape[1:3], strict=True)]
        around = [(margin // 2, margin - margin // 2) for margin in margins]  # `prepare` leaves it out
        return fn(jnp.pad(crops, ((0, 0), *around, (0, 0))))

    return features


# The paper's ranges; it is silent on the steps.
TRANSLATIONS = np.arange(-60.0, 61.0, 5.0)  # pixels of its 224
SCALES = np.linspace(1.0, 1.8, 17).round(2)
ROTATIONS = np.arange(0.0, 360.0, 10.0)  # degrees
CANDIDATES = 128  # pictures drawn, among which those to look at are chosen


def choose_images(net: Net, data: ImageSet, *, num: int, seed: int) -> Chosen:
    """`num` pictures by seed: those classified rightly first, and one of each class before a second one of any."""
    if num < 1:
        raise UserError(f"num_images={num}: at least 1 is needed")
    source, logits = sets.validation_of(data), nets.logits_layer(net)
    drawn = np.random.default_rng(seed).permutation(len(source))[: max(num, CANDIDATES) if logits else num]
    views = nets.read_views(source, drawn, net)
    predicted = np.full(len(drawn), -1)
    if logits is not None:
        scores = nets.check_finite(net, in_batches(net.features((logits,)), views.images, batch_size=32))
        predicted = scores[logits].argmax(axis=1)
    has_labels = logits is not None and data.class_names == net.class_names
    known = (views.labels >= 0) & has_labels
    labels = np.where(known, views.labels, predicted)
    right = labels == predicted
    earlier = [((labels[:n] == labels[n]) & (right[:n] == right[n])).sum() for n in range(len(drawn))]
    best = np.lexsort((earlier, ~right))[:num]
    best = best[np.argsort(drawn[best])]
    stored = np.stack([source[int(index)]["image"] for index in drawn[best]])
    words = nets.logit_names(net)
    names = tuple(words[label] for label in labels[best]) if words else ()
    pictures = tuple(views.names[row] for row in best)
    return Chosen(drawn[best], stored, labels[best], known[best], right[best], names, pictures)


def amounts_at(size: Size) -> dict[str, np.ndarray]:
    """{transform: amounts}; translations in whole pixels of images of `size`, so that nothing is interpolated."""
    translations = np.unique(np.round(TRANSLATIONS * nets.size_of(size)[0] / 224))
    return {"translation": translations, "scale": SCALES, "rotation": ROTATIONS}


class OfImages(TypedDict):
    """Numbers of each image by layer, float [N]."""

    slope: dict[str, Any]
    linearity: dict[str, Any]


class Stability(TypedDict):
    """How often the most probable class stays, of the amounts that change the picture."""

    mean: float
    images: Any  # float [N], of each image
    amounts: Any  # float [A], of each amount, also of the one that changes nothing
    num_amounts: int  # those that change the picture


class Numbers(TypedDict):
    """What the figure says of one transform; by layer the means over the images. None is what needs classes."""

    per: str  # unit of the slopes
    slope: dict[str, float]
    slope_ratio: float | None
    raw_slope: dict[str, float]
    linearity: dict[str, float]
    of_images: OfImages
    label_stability: Stability | None
    amounts: Any  # float [A]
    quarter_turn_gain: NotRequired[Any]  # float [N], of rotation


def numbers(
    measured: Curves, *, transform: str, amounts: np.ndarray, layers: Sequence[str], labels: np.ndarray
) -> Numbers:
    """What MEANINGS says, for one transform; what needs classes is None without them."""
    extents, distances = TRANSFORMS[transform].extent(amounts), relative(measured)
    slopes = {layer: float(slope(extents, distances[layer]).mean()) for layer in layers}
    shares = label_probability(measured, labels)
    result: Numbers = {
        "per": TRANSFORMS[transform].unit,
        "slope": slopes,
        "slope_ratio": slopes[layers[0]] / slopes[layers[-1]] if slopes[layers[-1]] else None,
        "raw_slope": {layer: slope(extents, measured.distances[layer]).mean() for layer in layers},
        "linearity": {layer: linearity(extents, distances[layer]).mean() for layer in layers},
        "of_images": {
            "slope": {layer: slope(extents, distances[layer]) for layer in layers},
            "linearity": {layer: linearity(extents, distances[layer]) for layer in layers},
        },
        "label_stability": None,
        "amounts": amounts,
    }
    if shares is not None:
        kept, moved = stability(measured), extents > 0
        result["label_stability"] = {
            "mean": kept[:, moved].mean(),
            "images": kept[:, moved].mean(axis=1),
            "amounts": kept.mean(axis=0),
            "num_amounts": int(moved.sum()),
        }
    if transform == "rotation":
        result["quarter_turn_gain"] = None if shares is None else quarter_turns(amounts, shares)
    return result


def arrays(chosen: Chosen, amounts: Mapping[str, np.ndarray], measured: Mapping[str, Curves]) -> dict[str, np.ndarray]:
    """All that the figure shows, by name: Euclidean distances, the norms to divide them by, probabilities."""
    named = {"indices": chosen.indices, "labels": chosen.labels, "pictures": np.array(chosen.pictures)}
    for name, of in measured.items():
        named[f"{name}/amounts"] = amounts[name]
        if of.probabilities is not None:
            named[f"{name}/probabilities"] = of.probabilities
        named |= {f"{name}/distances/{layer}": distances for layer, distances in of.distances.items()}
        named |= {f"{name}/norms/{layer}": norms for layer, norms in of.norms.items()}
    return named
