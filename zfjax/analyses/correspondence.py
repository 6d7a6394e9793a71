"""Whether the network sees the same part in different pictures: Table 1's consistency of sign.

Mask the same part in each picture. e_i = x_i - x~_i is the change of picture i's feature vector, and

    Delta = mean over pairs i != j of the normalised Hamming distance between sign(e_i) and sign(e_j).

The lower, the more alike the pictures answer. `table` reads all it tells from `mismatches` of `sign_changes`.
`mask_squares` paints the masks (Fig. 8), and `random_places` says where those of the control stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from zfjax import nets
from zfjax.analyses import occlusion
from zfjax.errors import UserError
from zfjax.features import Features, check_finite, in_batches
from zfjax.nets import Net, Size, Views

FEATURES_AT_ONCE = 1 << 14  # compared in one product: memory, and counts that float32 holds exactly
PAIRS_AT_ONCE = 1 << 22  # looked up by one batch of permutations: memory


def sign_changes(
    fn: Features,
    images: ArrayLike,
    masks: np.ndarray,
    *,
    side: Size,
    fill: ArrayLike = 0.0,
    batch_size: int = 32,
    name: str = "fn",
) -> Any:
    """sign(x - x~) of every feature of every image, under every mask.

    The images go through `fn` once, and once under each mask. All batches run through one program, so a feature that
    does not see the mask changes by exactly 0.

    Args:
      fn: float [B, H, W, C] -> features [B, ...] or a tree of them, of any network; `features.layers_of` makes one.
      images: float [N, H, W, C], what `fn` reads.
      masks: [M, N, 2], for each mask its place (y, x) in each image.
      side, fill: as for `mask_squares`.
      batch_size: images per call of `fn`.
      name: what `fn` is called where its features are refused, as "net='small'".

    Returns:
      The tree of `fn` with int8 [M, N, D]; UserError as from `mask_squares`, or for features that are not finite.

    Examples:
      >>> import numpy as np, zfjax
      >>> images = np.ones((2, 4, 4, 1), np.float32)
      >>> places = np.full((3, 2, 2), 2.0)  # three masks, each in the middle of both images
      >>> zfjax.correspondence.sign_changes(lambda images: images.mean((1, 2)), images, places, side=2)[:, :, 0]
      array([[1, 1],
             [1, 1],
             [1, 1]], dtype=int8)
    """
    images, masks = np.asarray(images), np.asarray(masks)
    if masks.ndim != 3 or masks.shape[1:] != (len(images), 2):
        raise UserError(f"masks of shape {masks.shape}: [M, {len(images)}, 2], a place in each image, is needed")
    whole = check_finite(in_batches(fn, images, batch_size=batch_size), name)
    signs = []
    for places in masks:
        hidden = np.asarray(mask_squares(images, places, side=side, fill=fill))
        masked = check_finite(in_batches(fn, hidden, batch_size=batch_size), name)
        signs.append(jax.tree.map(lambda x, m: _signs(x, m).reshape(len(images), -1), whole, masked))
    return jax.tree.map(lambda *changes: np.stack(changes), *signs)


def mismatches(signs: np.ndarray, *, features_at_once: int = FEATURES_AT_ONCE) -> np.ndarray:
    """How many features have unequal signs, for each two of K vectors: int8 [K, D] of -1, 0, 1 -> int32 [K, K].

    Paper is silent: sign is ternary here, as features are often exactly 0; unequal counts 1, also 0 against +-1, and
    features that neither mask touches count as agreeing. `touched` gives the other reading, without these.
    `features_at_once` bounds the memory, and changes no count.
    """
    total = np.zeros((len(signs), len(signs)), np.int32)
    for start in range(0, signs.shape[1], features_at_once):
        total += np.asarray(_unequal(signs[:, start : start + features_at_once]))
    return total


def touched(signs: np.ndarray) -> np.ndarray:
    """How many features at least one of two masks changes: int8 [K, D] of -1, 0, 1 -> int64 [K, K]."""
    changed = (signs != 0).sum(axis=1, dtype=np.int64)
    distances: np.ndarray = (changed[:, None] + changed[None] + mismatches((signs != 0).astype(np.int8))) // 2
    return distances


def _of_touched(unequal: np.ndarray, either: np.ndarray, rows: np.ndarray) -> float | None:
    """Mean over masks and pairs of images of the share of touched features whose signs differ; None without any."""
    first, second = np.triu_indices(rows.shape[1], 1)
    counts, of = unequal[rows[:, first], rows[:, second]], either[rows[:, first], rows[:, second]]
    return float((counts[of > 0] / of[of > 0]).mean()) if (of > 0).any() else None


def consistency(unequal: np.ndarray, chosen: np.ndarray, num_features: int) -> np.ndarray:
    """Delta of some of the vectors that `mismatches` compared.

    Args:
      unequal: whole numbers [K, K].
      chosen: [..., n] which n vectors, at least 2 (else UserError).
      num_features: D, length of the vectors.

    Returns:
      float64 [...], 0 to 1.
    """
    n = chosen.shape[-1]
    if n < 2:
        raise UserError(f"{n} feature vectors: at least 2 are needed, as pairs are compared")
    pairs = unequal[chosen[..., :, None], chosen[..., None, :]]  # 0 where i = j
    means: np.ndarray = pairs.sum(axis=(-2, -1), dtype=np.int64) / (n * (n - 1) * num_features)
    return means


class Score(NamedTuple):
    """One cell of Table 1."""

    delta: float  # mean over the draws
    std: float  # over the draws; they share images, so it is their spread and no standard error
    all: float  # Delta of all images together; of a control the mean over its masks
    changed: float  # share of features that the masks change at all: where few change, few can be unequal
    p: float | None  # `permutation_p_value` of a part; None of a control
    p_aligned: float | None  # rank of a part's `all` among aligned masks, over their number + 1; None of a control
    touched: float | None = None  # as `all`, of the features alone that one of the two masks changes; None: none


class ScoreFacts(TypedDict):
    """`Score` as a result holds it."""

    delta: float
    std: float
    all: float
    changed: float
    p: float | None
    p_aligned: float | None
    touched: float | None


def facts_of(score: Score) -> ScoreFacts:
    """The fields of a score by their names."""
    return cast(ScoreFacts, score._asdict())


def check_draw(num_images: int, num: int | None) -> None:
    """UserError unless pairs can be made of `num_images` of `num` images; None where their number is not yet known."""
    if num_images < 2 or (num is not None and num_images > num):
        most = "or more" if num is None else f"to {num}, the number of images,"
        raise UserError(f"num_images={num_images}: 2 {most} is needed")


def table(
    signs: np.ndarray,
    masks: Mapping[str, Sequence[int]],
    *,
    controls: Sequence[str],
    aligned: str | None = None,
    num_images: int,
    num_draws: int,
    num_permutations: int,
    seed: int,
) -> dict[str, Score]:
    """A column of Table 1: the score of each part and control in one layer.

    Args:
      signs: int8 [M, N, D] from `sign_changes`.
      masks: {row: its masks among the M}; one of a part, any number of a control.
      controls: the rows that are no part; parts are tested against the first.
      aligned: the control whose masks stand at one place in all images. Parts of aligned images nearly do so too, and
        may be consistent for that alone: their rank among such masks is a second test.
      num_images: 2 to N, of each draw, which takes the same in every row and one of the row's masks; the paper has 5.
      num_draws, num_permutations: at least 1 of each, else UserError.
      seed: of draws and permutations.

    Examples:
      >>> import numpy as np, zfjax
      >>> signs = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (3, 6, 100))
      >>> signs[0] = signs[0, :1]  # under the first mask all six images answer alike
      >>> rows = {"eye": [0], "random": [1, 2]}
      >>> counts = {"num_images": 5, "num_draws": 20, "num_permutations": 99}
      >>> scores = zfjax.correspondence.table(signs, rows, controls=["random"], seed=0, **counts)
      >>> scores["eye"].delta, scores["random"].delta > 0.4
      (0.0, True)
    """
    _, num, num_features = signs.shape
    check_draw(num_images, num)
    if num_draws < 1 or num_permutations < 1:
        raise UserError(f"num_draws={num_draws}, num_permutations={num_permutations}: at least 1 of each is needed")
    flat = signs.reshape(-1, num_features)
    unequal, either = mismatches(flat), touched(flat)
    row_of, rng, scores = np.arange(len(unequal)).reshape(signs.shape[:2]), np.random.default_rng(seed), {}
    drawn = rng.random((num_draws, num)).argsort(axis=1)[:, :num_images]
    for name, own in masks.items():
        rows, p = row_of[np.asarray(own)], None
        deltas = consistency(unequal, rows[rng.integers(len(own), size=(num_draws, 1)), drawn], num_features)
        whole, aligned_p = consistency(unequal, rows, num_features), None
        if name not in controls:
            called = np.concatenate([rows, row_of[np.asarray(masks[controls[0]])]])
            p = permutation_p_value(
                unequal, called, num_features=num_features, num_permutations=num_permutations, rng=rng
            )
            if aligned is not None:
                others = consistency(unequal, row_of[np.asarray(masks[aligned])], num_features)
                aligned_p = (1 + int((others <= whole).sum())) / (1 + len(others))
        changed = float(np.mean(signs[np.asarray(own)] != 0))
        scores[name] = Score(
            float(deltas.mean()),
            float(deltas.std()),
            float(whole.mean()),
            changed,
            p,
            aligned_p,
            _of_touched(unequal, either, rows),
        )
    return scores


def sign_consistency(differences: ArrayLike) -> float:
    """Table 1's Delta of e [N, D], finite: the changes of N feature vectors, at least 2 (else UserError).

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.correspondence.sign_consistency(np.array([[1.0, -2.0], [3.0, -1.0]]))  # the same signs in both images
      0.0
    """
    if np.ndim(differences) != 2:
        raise UserError(f"differences of shape {np.shape(differences)}: [N, D], a vector for each image, is needed")
    if not np.isfinite(differences).all():
        raise UserError("differences: finite numbers are needed, as NaN and infinity - infinity have no sign")
    signs = _signs(np.asarray(differences), np.zeros((), np.asarray(differences).dtype))
    return float(consistency(mismatches(signs), np.arange(len(signs)), signs.shape[1]))


def permutation_p_value(
    unequal: np.ndarray,
    masks: np.ndarray,
    *,
    num_features: int,
    num_permutations: int,
    rng: np.random.Generator,
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> float:
    """How rarely masks chosen without regard to the part are as consistent as the part: a one-sided test.

    Null hypothesis: in each image the part's mask is one more random mask, so any could be called the part. In each
    permutation every image calls one so; p is the share of permutations, the observed labels counted with them, whose
    Delta is at most that of the part.

    Args:
      unequal: from `mismatches`.
      masks: whole numbers [1 + R, N], rows of `unequal`: first the part's in each image, then its R random places.
      num_features: D.
      num_permutations, rng: at least 1, and their draw.
      pairs_at_once: of images, looked up by one batch of permutations; bounds the memory.

    Returns:
      p, 1 / (1 + num_permutations) to 1.
    """
    num_masks, num_images = masks.shape
    part, as_consistent = consistency(unequal, masks[0], num_features), 1
    at_once = max(1, pairs_at_once // num_images**2)
    for start in range(0, num_permutations, at_once):
        called = rng.integers(num_masks, size=(min(at_once, num_permutations - start), num_images))
        chosen = masks[called, np.arange(num_images)]
        as_consistent += int((consistency(unequal, chosen, num_features) <= part).sum())
    return as_consistent / (1 + num_permutations)


def _signs(whole: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """The sign of whole - masked, -1, 0 or 1; int8. Compared, as bytes have no negative difference."""
    return (whole > masked).astype(np.int8) - (whole < masked).astype(np.int8)


@jax.jit
def _unequal(signs: jax.Array) -> jax.Array:
    """[K, D] -> int32 [K, K]; ones and zeros are multiplied, so the products are exact on any device."""
    same = jnp.zeros((len(signs), len(signs)), jnp.float32)
    for value in (-1, 0, 1):
        has = (signs == value).astype(jnp.float32)
        same = same + has @ has.T
    return signs.shape[1] - same.astype(jnp.int32)


def mask_squares(images: ArrayLike, places: ArrayLike, *, side: Size, fill: ArrayLike = 0.0) -> jax.Array:
    """Fill a square of `side` pixels around a place of each image.

    Of the squares of whole pixels it is the one whose centre is nearest to the place; what would hang over the border
    is left out. Paper is silent: the size of the square, and its grey (0 here, the mean of mean-subtracted pixels).

    Args:
      images: float [N, H, W, C].
      places: [N, 2], (y, x) in pixels; pixel (i, j) covers [i, i + 1) x [j, j + 1).
      side: pixels, 1 to the smaller of H and W; or (height, width) of a rectangle.
      fill: the value painted, or a picture [H, W, C] of which the square is cut out.

    Returns:
      [N, H, W, C]; UserError for a place outside its image, or a side that is none of these.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.correspondence.mask_squares(jnp.ones((1, 3, 3, 1)), [(1.0, 1.0)], side=2)[0, :, :, 0]
      Array([[0., 0., 1.],
             [0., 0., 1.],
             [1., 1., 1.]], dtype=float32)
    """
    images, places = jnp.asarray(images), np.asarray(places, np.float64)
    if images.ndim != 4 or places.shape != (len(images), 2):
        raise UserError(f"images of shape {images.shape}, places {places.shape}: [N, H, W, C] and [N, 2] are needed")
    (height, width), sides = images.shape[1:3], nets.size_of(side)
    if not (1 <= sides[0] <= height and 1 <= sides[1] <= width):
        raise UserError(f"side={side}: a square of 1 to {min(height, width)} pixels is needed")
    outside = ~((places >= 0) & (places < [height, width])).all(axis=1)
    if outside.any():
        y, x = places[outside][0].tolist()
        place = f"places[{outside.argmax()}]=({y:g}, {x:g})"
        raise UserError(f"{place}: (y, x) inside the image of {height}x{width} pixels is needed")
    filled = jnp.asarray(occlusion.in_type_of(np.empty(images.shape[1:], images.dtype), fill))
    masked: jax.Array = _paint(images, filled, first=jnp.asarray(_first_pixels(places, sides)), sides=sides)
    return masked


def random_places(parts: np.ndarray, size: Size, *, side: Size, num: int, rng: np.random.Generator) -> np.ndarray:
    """The control: places whose square lies inside the image and, where that is possible, on none of its parts.

    Drawn evenly among those whose square covers the least of the parts' squares: nothing, save where there is no room.

    Args:
      parts: [N, P, 2] (y, x) in pixels.
      size: side of the images, or their (height, width), pixels.
      side: of the squares, pixels.
      num, rng: places for each image, and their draw.

    Returns:
      float [num, N, 2], (y, x) in pixels.

    Examples:
      >>> import numpy as np, zfjax
      >>> parts = np.full((2, 1, 2), 4.0)
      >>> places = zfjax.correspondence.random_places(parts, 32, side=8, num=3, rng=np.random.default_rng(0))
      >>> places.shape
      (3, 2, 2)
    """
    sides = nets.size_of(side)
    firsts = [np.arange(length - own + 1) for length, own in zip(nets.size_of(size), sides, strict=True)]
    if min(*sides, *map(len, firsts)) < 1:
        raise UserError(f"side={side}: a square of at least 1 pixel inside the images of {size} is needed")
    drawn = []
    for squares in _first_pixels(np.asarray(parts), sides):
        rows, columns = (
            np.maximum(0, sides[axis] - np.abs(first[None] - squares[:, axis, None]))
            for axis, first in enumerate(firsts)
        )
        covered = np.einsum("pr,pc->rc", rows, columns)
        free = np.argwhere(covered == covered.min())
        drawn.append(free[rng.integers(len(free), size=num)] + np.array(sides) / 2)
    return np.stack(drawn, axis=1)


def _first_pixels(places: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Top row and left column, int32 [..., 2], of the rectangles of `sides` pixels around `places` [..., 2]."""
    return np.ceil(places - np.array(sides) / 2 - 0.5).astype(np.int32)


@partial(jax.jit, static_argnames="sides")
def _paint(images: jax.Array, fill: jax.Array, *, first: jax.Array, sides: tuple[int, int]) -> jax.Array:
    def covered(axis: int) -> jax.Array:
        pixel = jnp.arange(images.shape[1 + axis])[None]
        return (first[:, axis, None] <= pixel) & (pixel < first[:, axis, None] + sides[axis])

    square = covered(0)[:, :, None, None] & covered(1)[:, None, :, None]
    return jnp.where(square, fill[None], images)


CONTROLS = ("random", "one random place")

MEANINGS = {
    "delta": "normalised Hamming distance of sign(x - masked x), mean over pairs, and over draws of pictures",
    "std": "standard deviation over the draws, which share pictures: their spread, no standard error",
    "all": "the same distance over all pictures together; of a control the mean over its masks",
    "touched": "as all, of the features alone that one of the two masks changes: in delta the others count as agreeing",
    "changed": "share of the features that a mask changes at all: where few change, few can be unequal",
    "p": "one-sided: share of permutations, where each picture takes its part or one of its random places by chance, "
    "whose distance over all pictures is at most the part's",
    "p_aligned": "one-sided: rank of the part's distance over all pictures among those of places that are the same in "
    "every picture, as a part of aligned pictures nearly is",
}


class Compared(NamedTuple):
    """Table 1 of one network, with the features it was computed from."""

    scores: dict[str, dict[str, Score]]  # by layer and row of the table
    signs: dict[str, np.ndarray]  # int8 [M, N, D] of each layer, from `sign_changes`
    places: np.ndarray  # float [M, N, 2] of all masks, (y, x) in pixels of the images
    masks: dict[str, Sequence[int]]  # by row: its masks among the M
    fill: np.ndarray  # uint8 [H, W, 3], what the squares show, as a reader sees it


def compared_layers(net: Net) -> tuple[str, ...]:
    """The last hidden layer with maps and the last hidden one, the paper's layers 5 and 7."""
    return tuple(dict.fromkeys((occlusion.watched_layer(net), nets.hidden_layers(net)[-1])))


def compare_parts(
    net: Net,
    views: Views,
    parts: Sequence[str],
    *,
    side: Size,
    layers: Sequence[str] = (),
    num_images: int = 5,
    num_draws: int = 100,
    num_random: int = 10,
    num_aligned: int = 39,
    num_permutations: int = 9999,
    seed: int = 0,
) -> Compared:
    """Mask parts and random places of some pictures, and compute Table 1 from the network's features.

    Args:
      net: any network. Its squares show what `occlusion.filler` calls "mean".
      views: the pictures, with the places of their parts.
      parts: names of the parts.
      side: of the square, pixels.
      layers: whose features are compared; by default `compared_layers`.
      num_images, num_draws: as for `table`.
      num_random: masks of each picture at random places of its own.
      num_aligned: masks at one random place in all pictures.
      num_permutations: as for `table`.
      seed: of places, draws and permutations.

    Returns:
      Compared; UserError for a number out of range.

    Examples:
      photos, parts = annotations.open_annotations("faces.json", net)
      views = zfjax.nets.read_views(photos.validation, range(24), net)
      correspondence.compare_parts(net, views, parts, side=24).scores["conv5"]
    """
    check_draw(num_images, len(views.images))  # before the work, as `table` comes after it
    if views.parts is None:
        raise UserError("views.parts=None: pictures whose parts are known are needed")
    layers = tuple(layers) or compared_layers(net)
    random: dict[str, Any] = {"side": side, "num_random": num_random, "num_aligned": num_aligned}
    places, masks = place_masks(views.parts, parts, nets.size_of(net.image_size), seed=seed, **random)
    fill = occlusion.filler(net, views, "mean", square=side)(views, 0)
    fn, named = net.features(tuple(dict.fromkeys(layers))), f"net={net.name!r}"
    signs = sign_changes(fn, views.images, places, side=side, fill=fill.image, name=named)
    options: dict[str, Any] = {"num_images": num_images, "num_draws": num_draws, "num_permutations": num_permutations}
    options |= {"controls": CONTROLS, "aligned": CONTROLS[1], "seed": seed}
    scores = {layer: table(signs[layer], masks, **options) for layer in layers}
    return Compared(scores, signs, places, masks, fill.picture)


def place_masks(
    parts: np.ndarray,
    names: Sequence[str],
    size: Size,
    *,
    side: Size,
    num_random: int,
    num_aligned: int,
    seed: int,
) -> tuple[np.ndarray, dict[str, Sequence[int]]]:
    """(places [M, N, 2] of all masks, {row of the table: its masks among the M}).

    Args:
      parts: [N, P, 2] (y, x) in pixels of images of `size`.
      names: of the P parts.
      size, side, num_random, num_aligned, seed: as for `compare_parts`.
    """
    rng = np.random.default_rng(seed)
    apart = random_places(parts, size, side=side, num=num_random, rng=rng)
    aligned = random_places(parts[:1, :0], size, side=side, num=num_aligned, rng=rng)  # no part to avoid
    aligned = np.broadcast_to(aligned, (num_aligned, *apart.shape[1:]))
    places = np.concatenate([np.moveaxis(parts, 1, 0), apart, aligned])
    first, last = len(names), len(names) + num_random
    masks: dict[str, Sequence[int]] = {name: [part] for part, name in enumerate(names)}
    return places, {**masks, CONTROLS[0]: range(first, last), CONTROLS[1]: range(last, len(places))}
