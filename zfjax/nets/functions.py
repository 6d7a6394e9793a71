"""Any JAX function as a network, by the any-model engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zfjax import features as layer_features
from zfjax.anymodel.between import in_program_order
from zfjax.anymodel.choices import OnUnknown
from zfjax.anymodel.crops import Crop, crop_of, field_of
from zfjax.anymodel.names import features_of
from zfjax.anymodel.names import layers as layers_in
from zfjax.anymodel.rules import NoRule, Rule, projected_from, with_relu_rule
from zfjax.anymodel.tracing import state_kept
from zfjax.architecture import ReceptiveField, Size
from zfjax.deconvnet import Way
from zfjax.errors import UserError
from zfjax.files import digest
from zfjax.nets.places import check_shape, check_way, layer_of, places_of
from zfjax.nets.protocol import Training, check_layer
from zfjax.nets.windowed import ByWindows
from zfjax.pixels import size_of
from zfjax.units import Seed, Unit, check_seed, warn_below_zero
from zfjax.windows import Windows

_SHOWN = 8  # layers that a message names


@dataclass(frozen=True, eq=False, repr=False)
class FunctionNet(ByWindows):
    """Any JAX function as a `Net`, by the any-model engine: Flax Linen and NNX, Equinox, Haiku, Keras, or your own.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> def apply(params, images):
      ...     maps = jax.nn.relu(images[:, ::2, ::2] @ params)
      ...     return {"conv": maps, "logits": maps.mean((1, 2))}
      >>> net = zfjax.FunctionNet(apply, jnp.ones((3, 2)), image_size=(8, 12), class_names=("cat", "dog"))
      >>> net.layers, zfjax.nets.shapes_of(net)
      (('conv', 'logits'), {'conv': (4, 6, 2), 'logits': (2,)})
      >>> net.project(jnp.ones((1, 8, 12, 3)), zfjax.Unit(1, layer="conv")).shape
      (1, 8, 12, 3)

      Of a function of logits alone, by the paths of modules inside it:

        net = FunctionNet(model, image_size=64, layers=["block_1", "block_2", "logits"])

    Attributes:
      fn: fn(images) -> {layer: features [B, H, W, C] or [B, C]}, from the image up; or, with `params`,
        fn(params, images). It must work under jit, and treat each image independently. If `layers` are
        paths inside it, its output may be anything.
      params: any tree of arrays, the first argument of `fn`; None if `fn` has them bound.
      image_size: side of the images, or (height, width), pixels.
      channels: of the pictures and images.
      picture_size: size of the pictures, at least that of the images; 0: the same.
      preprocess: crops of pictures, float32 [B, *image_size, C] with values 0 to 255, -> images; None: divided by 255.
      class_names: of the last layer's features, its logits; empty where there are none.
      num_classes: as many as the last layer has units, where these are classes without names; 0 where they are none, as
        those of an embedding. None, and no names: they are taken for features, unless `fn` calls them "logits" itself.
      class_maps: layers whose maps are the classes too, as those below a mean over all places.
      name: its name on pages and in results.
      data: the set that it was trained on, by its name for `zfjax.open_data`; None: figures need `--data`.
      mean_colour: of the training pictures, 0 to 255 for each channel, which an occluding square shows; None where it
        is not known.
      receptive_fields: {layer: ReceptiveField} of layers of which the program does not prove it.
      first_filters: float32 [h, w, C, N], the filters of the first layer, to be drawn; None: those of the program.
      on_unknown: as for `zfjax.with_relu_rule`; of a mapping its pairs are kept, in their order.
      on_mixing: as for `zfjax.project_fn`.
      layers: from the image up; keys of what `fn` gives, paths of modules inside it, of those that `zfjax.layers`
        lists, and "logits" for what `fn` gives, if that is one array. None named: all that `fn` gives.
      training: what it was trained on, which claims about it are judged by; None where that is not known.
      units_at_once: projected together by `project`, which bounds the memory. Where `fn` takes images of other sizes
        and the engine can prove that a unit looks no further, `project` feeds a crop: the unit's receptive field.
    """

    fn: Callable[..., Any]
    params: Any = None
    image_size: Size = 224
    channels: int = 3
    picture_size: Size = 0
    preprocess: Callable[[jax.Array], jax.Array] | None = None
    class_names: tuple[str, ...] = ()
    num_classes: int | None = None
    class_maps: tuple[str, ...] = ()
    name: str = "function"
    data: str | None = None
    mean_colour: tuple[float, ...] | None = None
    receptive_fields: Mapping[str, ReceptiveField] | None = None
    first_filters: np.ndarray | None = None
    on_unknown: OnUnknown = "error"
    on_mixing: Literal["error", "keep"] = "error"
    layers: tuple[str, ...] = ()
    units_at_once: int = 16
    training: Training | None = None

    def __post_init__(self) -> None:
        given = self.image_size if np.size(self.picture_size) == 1 and not self.picture_size else self.picture_size
        for name, value in (("image_size", self.image_size), ("picture_size", given)):  # lists, and numbers of NumPy
            height, width = size_of(value)
            object.__setattr__(self, name, (height, width) if np.ndim(value) else height)
        size, picture = size_of(self.image_size), size_of(self.picture_size)
        if min(size) < 1 or picture[0] < size[0] or picture[1] < size[1]:
            raise UserError(f"image_size={self.image_size!r}, picture_size={picture}: 1 <= image_size <= picture_size")
        for name in ("channels", "units_at_once"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if isinstance(self.on_unknown, Mapping):
            object.__setattr__(self, "on_unknown", tuple(self.on_unknown.items()))  # can be hashed, as jit needs
        if isinstance(self.layers, str):
            raise UserError(f"layers={self.layers!r}: a list of names is needed, as [{self.layers!r}]")
        with state_kept():
            object.__setattr__(self, "layers", tuple(self.layers) or self._keys())
            last = self.shapes[self.layers[-1]]
        if self.class_names and len(self.class_names) != last[-1]:
            raise UserError(
                f"class_names of {len(self.class_names)} classes: the last layer, {self.layers[-1]!r}, has {last[-1]}"
            )
        if self.num_classes not in (None, last[-1], len(self.class_names)):
            raise UserError(
                f"num_classes={self.num_classes}: the last layer, {self.layers[-1]!r}, has {last[-1]} units; that "
                "number is needed, or 0 where they are no classes"
            )

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{layer: shape of its features of one image}."""
        shapes = jax.eval_shape(self._called, self.params, self._prepared_shape)
        for layer, array in shapes.items():
            if array.ndim not in (2, 4) or array.shape[0] != 1:
                raise UserError(
                    f"fn returns {array.shape} as {layer!r} for one image: features [B, H, W, C] or [B, C] are needed"
                )
        return {layer: tuple(array.shape[1:]) for layer, array in shapes.items()}

    def _keys(self) -> tuple[str, ...]:
        """The keys as `fn` inserts them; sorted ones, as of a `fn` under jit or vmap, in the program's order."""
        keys: list[str] = []

        def watched(params: Any, images: jax.Array) -> Any:
            answer = self._function(params)(images)
            keys[:] = list(answer) if isinstance(answer, Mapping) else []
            return answer

        shapes = jax.eval_shape(watched, self.params, self._prepared_shape)
        if not keys:
            given = f"an array {list(shapes.shape)}" if hasattr(shapes, "shape") else str(jax.tree.structure(shapes))
            raise UserError(
                f"fn returns {given}: {{layer: features}} is needed, or layers=[...] of those that zfjax.layers(fn, "
                f"images) lists{self._modules_in_words()}"
            )
        if keys != sorted(keys):
            return tuple(keys)
        image = self._prepared_shape
        return in_program_order(self._function(self.params), keys, shape=image.shape[1:], dtype=image.dtype)

    def _modules_in_words(self) -> str:
        """Some of what `layers` could name: the modules that give features, and the last one."""
        inside = layers_in(self._function(self.params), self._prepared_shape)
        paths = [path for path, layer in inside.items() if layer.is_module and len(layer.shape) in (2, 4)]
        named = paths if len(paths) <= _SHOWN else [*paths[: _SHOWN - 1], "...", paths[-1]]
        return f" ({', '.join(named)}), and logits for what it returns" if named else ""

    @property
    def _prepared_shape(self) -> Any:
        image = jax.ShapeDtypeStruct((1, *size_of(self.image_size), self.channels), np.float32)
        return jax.eval_shape(self._preprocessed, image)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the program, its preprocessing included, and of every array in it."""
        image = jax.ShapeDtypeStruct((1, *size_of(self.image_size), self.channels), np.float32)
        program = jax.make_jaxpr(lambda params, crops: self._called(params, self._preprocessed(crops)))(
            self.params, image
        )
        arrays = digest([jax.tree.leaves(self.params), program.consts])
        return hashlib.blake2b(f"{arrays} {program.jaxpr}".encode(), digest_size=16).hexdigest()

    @cached_property
    def gives_logits(self) -> bool:
        """Whether `fn` itself calls the last of its features "logits"."""
        return self.layers[-1] == "logits" and not self._inside

    def with_params(self, params: Any) -> FunctionNet:
        """The same function with other parameters: another epoch, weights drawn anew. Their training is not known."""
        other = replace(self, params=params, training=None, first_filters=None)  # they are read off the program
        object.__setattr__(other, "_compiled", self._compiled)  # the same function, so the same programs
        return other

    def prepare(self, pictures: Any) -> jax.Array:
        """The centre of pictures uint8 [B, *picture_size, C], preprocessed. UserError for pictures of another shape."""
        check_shape(pictures, (*size_of(self.picture_size), self.channels), argument="pictures", net=self.name)
        (height, width), (high, wide) = size_of(self.image_size), pictures.shape[1:3]
        top, left = (high - height) // 2, (wide - width) // 2
        crops = jnp.asarray(pictures)[:, top : top + height, left : left + width]
        return self._preprocessed(crops.astype(jnp.float32))

    def features(self, layers: Sequence[str], *, rule: Rule | None = None) -> Partial:
        """fn(images) -> {layer: features}.

        `rule`: of the way back through its rectifiers, as for `zfjax.with_relu_rule`; whatever else has a gradient of
        its own keeps that.
        """
        layers = layer_features.listed(layers, self.layers)
        for layer in layers:
            check_layer(self, layer)
        return Partial(self._function_of(layers, rule), self.params)

    def features_of_pictures(self, layers: Sequence[str]) -> Partial:
        """fn(pictures) -> {layer: features}."""
        chosen = self.features(layers).func

        def prepared(params: Any, pictures: jax.Array) -> Any:
            return chosen(params, self.prepare(pictures))

        return Partial(self._compiled.setdefault(("pictures", tuple(layers)), prepared), self.params)

    def project_windows(
        self,
        images: Any,
        units: Unit,
        *,
        ways: Sequence[Way],
        layer: str | None = None,
        of: Any = None,
        seed: Seed = "value",
    ) -> dict[Way, Windows]:
        """{way: of each unit the crop that it was projected in, by `zfjax.project_fn`}: see `nets.project_windows`."""
        layer = check_layer(self, layer_of(units, layer))
        ways = tuple(map(check_way, ways))
        images = np.asarray(images)
        check_shape(images, self._prepared_shape.shape[1:], argument="images", net=self.name)
        places = places_of(units, images, of=of, fn=self.features([layer]), layer=layer)
        num, place = len(places["image"]), np.stack([places["row"], places["column"]], axis=1).astype(np.int32)
        check_seed(seed)
        step, starts = self._projection_of(layer, ways), np.zeros(num, np.float32)
        crop, size, corners = self._crop_of(layer, images), images.shape[1:3], np.zeros_like(place)
        if crop is not None:
            size, (corners, place) = crop.size, crop.around(*place.T)
        dtype = jax.dtypes.canonicalize_dtype(images.dtype)
        pictures = {way: np.zeros((num, *size, images.shape[3]), dtype) for way in ways}
        for rows in layer_features.full_batches(num, self.units_at_once):
            fed = [
                images[n, y : y + size[0], x : x + size[1]]
                for n, (y, x) in zip(places["image"][rows], corners[rows], strict=True)
            ]
            some = {"channel": places["channel"][rows], "place": place[rows]}
            drawn, starts[rows] = step(self.params, np.stack(fed), **some, from_one=seed == "one")
            for way, of_way in pictures.items():
                of_way[rows] = drawn[way]
        warn_below_zero(starts, seed=seed)
        return {way: Windows(of_way, *corners.T.astype(np.int32)) for way, of_way in pictures.items()}

    def receptive_field(self, layer: str) -> ReceptiveField | None:
        """What was said of it, or else what the program proves; None where neither is."""
        check_layer(self, layer)
        given = self.receptive_fields or {}
        if layer not in given and layer not in self._fields:
            known = len(self.shapes[layer]) == 3 and self._keeps_places
            shape = self._prepared_shape.shape[1:]
            self._fields[layer] = field_of(self._map_of(layer), shape, np.float32) if known else None
        return given[layer] if layer in given else self._fields[layer]

    def why_no_way_down(self, layer: str) -> str | None:
        """Why neither the deconvnet nor guided backpropagation leads down from a layer; None where they do.

        The gradient needs no rule and always leads down.
        """
        if check_layer(self, layer) not in self._no_rules:
            fn, options = self._map_of(layer), dict[str, Any](on_unknown=self.on_unknown, on_mixing=self.on_mixing)

            def projected(images: jax.Array) -> Any:
                return projected_from(fn, images, unit=0, rule="deconvnet", from_one=True, **options)

            self._no_rules[layer] = None
            try:
                jax.eval_shape(projected, self._prepared_shape)
            except NoRule as error:
                first, more = error.operations[0], len(error.operations) - 1
                others = f" and {more} more operation{'s' * (more > 1)}" if more else ""
                where = f" of {first.module}" if first.module else ""
                self._no_rules[layer] = (
                    f"no rule covers {first.operation}{where} at {first.source}{others} on the way down from layer "
                    f"{layer}; say by the on_unknown= of {self.name} what becomes of it, as 'keep' for its own "
                    "gradient, or a rule by its name, as {'gelu': zfjax.as_relu}"
                )
        return self._no_rules[layer]

    @cached_property
    def _no_rules(self) -> dict[str, str | None]:
        return {}  # by layer: what `why_no_way_down` says

    @cached_property
    def _compiled(self) -> dict[Any, Callable[..., Any]]:
        return {}  # one function object for equal arguments, so that JAX finds what it compiled; kept as long as `self`

    @cached_property
    def _crops(self) -> dict[Any, Crop | None]:
        return {}  # by layer and type: what `crop_of` could prove

    @cached_property
    def _keeps_places(self) -> bool:
        """Whether a pixel of a picture changes the image at its own place alone: preprocessing may move pixels."""
        if self.preprocess is None:
            return True
        height, width = size_of(self.image_size)
        place = (height // 3, width // 4)
        black = jnp.zeros((1, height, width, self.channels), jnp.float32)
        before, after = (self._preprocessed(crops) for crops in (black, black.at[(0, *place)].set(255)))
        if np.shape(before)[:3] != (1, height, width):
            return False
        return np.argwhere(np.any(before != after, axis=(0, 3))).tolist() == [list(place)]

    @cached_property
    def _fields(self) -> dict[str, ReceptiveField | None]:
        return {}  # by layer: what `field_of` could prove

    def _map_of(self, layer: str) -> Callable[[jax.Array], jax.Array]:
        return lambda images: self._called(self.params, images, (layer,))[layer]

    def _function_of(self, layers: tuple[str, ...], rule: Rule | None = None) -> Callable[..., Any]:
        def chosen(params: Any, images: jax.Array) -> dict[str, jax.Array]:
            called = partial(self._called, params, layers=layers)
            return (called if rule is None else with_relu_rule(called, rule, on_unknown="keep"))(images)

        return self._compiled.setdefault((layers, rule), chosen)

    def _crop_of(self, layer: str, images: np.ndarray) -> Crop | None:
        """What of an image is enough for most units of the layer, where the engine can prove it."""
        if len(self.shapes[layer]) != 3 or images.shape[1:] != (*size_of(self.image_size), self.channels):
            return None
        dtype = jax.dtypes.canonicalize_dtype(images.dtype)
        if (layer, dtype) not in self._crops:
            self._crops[layer, dtype] = crop_of(self._map_of(layer), images.shape[1:], dtype)
        return self._crops[layer, dtype]

    def _projection_of(self, layer: str, ways: tuple[Way, ...]) -> Callable[..., Any]:
        is_dense = len(self.shapes[layer]) == 1

        @jax.jit
        def projected(params: Any, images: Any, *, channel: Any, place: Any, from_one: Any) -> Any:
            unit = Unit(channel, None if is_dense else tuple(place.T))
            pictures = {}
            for way in ways:  # XLA sees that all go up alike
                pictures[way], top = projected_from(
                    lambda images: self._called(params, images, (layer,))[layer],
                    images,
                    unit=unit,
                    rule=way,
                    on_unknown=self.on_unknown,
                    on_mixing=self.on_mixing,
                    from_one=from_one,
                )
            return pictures, top.reshape(len(top), -1).sum(axis=1)

        return self._compiled.setdefault((layer, ways), projected)

    def _function(self, params: Any) -> Callable[[jax.Array], Any]:
        return self.fn if self.params is None else partial(self.fn, params)

    def _called(self, params: Any, images: jax.Array, layers: Sequence[str] = ()) -> dict[str, jax.Array]:
        """The features of these layers, or of all."""
        fn, layers = self._function(params), layers or self.layers
        if self._inside:
            return features_of(fn, layers, images)
        every = fn(images)
        return {layer: every[layer] for layer in layers}

    @cached_property
    def _inside(self) -> bool:
        """Some of the layers are none that `fn` gives by their name."""
        shapes = jax.eval_shape(self._function(self.params), self._prepared_shape)
        return not isinstance(shapes, Mapping) or not shapes.keys() >= set(self.layers)

    def _preprocessed(self, crops: jax.Array) -> jax.Array:
        return crops / 255 if self.preprocess is None else self.preprocess(crops)
