"""What a first layer's filters are like: how far one dominates, which are dead, which frequencies they cover (Fig. 6).

Frequencies are in cycles per pixel of the input, so that filters of 11x11 with stride 4 and of 7x7 with stride 2 can
be compared: 0.5 is the finest grating that pixels hold, 1 / (2 * stride) the finest that the layer's grid holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax.numpy as jnp
import numpy as np

from zfjax import nets
from zfjax.analyses import strongest, top_activations
from zfjax.analyses.strongest import Strongest
from zfjax.analyses.top_activations import State
from zfjax.data import Source
from zfjax.errors import UserError
from zfjax.nets import Net, Size
from zfjax.pixels import size_of
from zfjax.training import filter_rms

DEAD = 1 / 20  # share of the median RMS
GRID = 64  # frequencies per cycle in each direction of the zero-padded Fourier transform; finer for larger pictures

# Paper is silent on the bands: an octave between the finest gratings that grids of stride 4 and of stride 2 hold
BANDS = {"low": (0.0, 1 / 8), "middle": (1 / 8, 1 / 4), "high": (1 / 4, 1.0)}  # cycles per pixel

MEANINGS = {
    "dominance": "RMS of the strongest filter over that of the median one, and its share of all filters' energy "
    "(sum of squares)",
    "largest_rms": "RMS of the strongest filter, in units of the weights; renormalisation begins at a radius of 0.1",
    "renormalisation_acted": "false where no filter ends above the radius without it either",
    "dead_by_weight": f"filters whose RMS is less than {DEAD} of the median filter's",
    "dead_by_activity": "filters that no validation image excites",
    "band_energy": "mean share of a filter's energy at low, middle and high frequencies, "
    f"{', '.join(f'{band} {low:g} to {high:g}' for band, (low, high) in BANDS.items())} cycles per pixel; of "
    "filters that are not dead by weight",
    "band_peaks": "share of these filters whose spectrum is largest in the band",
    "projections_of_layer_2": "as of Figure 2: where they start, how many from below 0, maps that are nothing but "
    "rounding, images tied at the maximum",
    "of_filters": "for tests over filters: RMS of each; share of the energy at middle frequencies, and share beyond "
    "1 / (2 stride), of each that is not dead by weight",
    "aliased_by_noise": "share beyond 1 / (2 stride) of white noise: what the stride alone makes of it",
    "aliased_energy": "mean share of a filter's energy beyond 1 / (2 stride) cycles per pixel, which the layer's grid "
    "takes for coarser patterns; of filters that are not dead by weight",
    "on_finer_grid": "the same of these filters at the smaller stride of the network that they are compared with: what "
    "a smaller stride gives by itself",
}


class Dominance(NamedTuple):
    """How far the strongest filter stands out."""

    largest_over_median: float  # its RMS in units of the median RMS; 1 where all are equally strong
    energy_share: float  # its share of the sum of squares; 1 / number of filters where all are equally strong


def dominance(kernel: np.ndarray) -> Dominance:
    """How far the strongest filter stands out: "a few of them dominate", unless filters are renormalised (sec. 3).

    Args:
      kernel: float [h, w, I, N], HWIO.

    Returns:
      Dominance; UserError for a kernel of another number of axes, or one whose median filter is zero.

    Examples:
      >>> import numpy as np, zfjax
      >>> kernel = np.ones((3, 3, 2, 4)) * np.array([1, 1, 1, 5.0])
      >>> zfjax.filters.dominance(kernel)
      Dominance(largest_over_median=5.0, energy_share=0.8928571428571429)
    """
    rms = _rms(kernel)
    if not np.median(rms) > 0:
        raise UserError(f"kernel of shape {np.shape(kernel)}: at least half of its filters are zero")
    return Dominance(float(rms.max() / np.median(rms)), float(rms.max() ** 2 / np.sum(rms**2)))


def weak(kernel: np.ndarray, below: float = DEAD) -> np.ndarray:
    """bool [N]: filters dead by weight, whose RMS is less than `below` times the median one's.

    Paper is silent on what "dead" means: such a filter is an empty tile of Fig. 6 and adds next to nothing to what
    the layer hands on. A filter can also be dead by activity, as no image excites it: see `top_activations.alive`.

    Examples:
      >>> import numpy as np, zfjax
      >>> kernel = np.ones((3, 3, 2, 3)) * np.array([1, 1, 1e-3])
      >>> zfjax.filters.weak(kernel)
      array([False, False,  True])
    """
    rms = _rms(kernel)
    is_weak: np.ndarray = rms < below * np.median(rms)
    return is_weak


class Spectrum(NamedTuple):
    """Where the energy of N filters lies; R rings."""

    frequencies: np.ndarray  # float [R] cycles per pixel, inner edge of each ring; ascending, from 0
    energy: np.ndarray  # float [N, R] share of each filter's energy in the ring; zeros for a filter of zeros


def radial_spectrum(kernel: np.ndarray) -> Spectrum:
    """The power spectrum of each filter, summed over input maps and over rings of equal frequency.

    The ring of a frequency (fy, fx) is floor(GRID * sqrt(fy^2 + fx^2)).

    Examples:
      >>> import numpy as np, zfjax
      >>> spectrum = zfjax.filters.radial_spectrum(np.random.default_rng(0).normal(size=(7, 7, 3, 4)))
      >>> spectrum.frequencies.shape, spectrum.energy.shape
      ((46,), (4, 46))
    """
    power, radius = _power(kernel)
    rings = np.floor(radius * GRID + 1e-9).astype(int)
    member = rings.reshape(-1, 1) == np.arange(rings.max() + 1)
    energy = power.reshape(-1, power.shape[-1]).T @ member.astype(np.float64)
    return Spectrum(np.arange(rings.max() + 1) / GRID, _shares(energy))


def band_energy(kernel: np.ndarray) -> dict[str, np.ndarray]:
    """Share of each filter's energy in each of BANDS. -> {band: float [N]}

    Examples:
      >>> import numpy as np, zfjax
      >>> bands = zfjax.filters.band_energy(np.ones((7, 7, 3, 1)))
      >>> {band: energy.round(2) for band, energy in bands.items()}
      {'low': array([0.81]), 'middle': array([0.11]), 'high': array([0.09])}
    """
    spectrum = radial_spectrum(kernel)
    inside = {
        band: (low <= spectrum.frequencies) & (spectrum.frequencies < high) for band, (low, high) in BANDS.items()
    }
    return {band: spectrum.energy[:, rings].sum(axis=1) for band, rings in inside.items()}


def peak_frequency(kernel: np.ndarray) -> np.ndarray:
    """The frequency at which each filter's power spectrum is largest, cycles per pixel. -> float [N]

    Examples:
      >>> import numpy as np, zfjax
      >>> stripes = np.cos(np.pi * np.arange(8))[:, None, None, None] * np.ones((8, 8, 3, 1))
      >>> zfjax.filters.peak_frequency(stripes)
      array([0.5])
    """
    power, radius = _power(kernel)
    peaks: np.ndarray = radius.reshape(-1)[power.reshape(-1, power.shape[-1]).argmax(axis=0)]
    return peaks


def aliased_energy(kernel: np.ndarray, stride: int | tuple[int, int]) -> np.ndarray:
    """Share of each filter's energy that its layer's grid, of places `stride` pixels apart, takes for coarser patterns.

    The grid cannot tell a frequency from those that differ from it by a multiple of 1 / stride. What a filter passes
    beyond 1 / (2 * stride) in either direction comes back as something coarser: the origin of the "aliasing artifacts
    caused by the large stride" (sec. 4.1). It is an upper bound: several filters together may tell more than the grid.

    Args:
      kernel: float [h, w, I, N], HWIO.
      stride: pixels, or (down, across).

    Returns:
      float [N], 0 to 1; 0 for a filter of zeros. UserError for a stride below 1.

    Examples:
      >>> import numpy as np, zfjax
      >>> stripes = np.cos(np.pi * np.arange(8))[:, None, None, None] * np.ones((8, 8, 3, 1))
      >>> zfjax.filters.aliased_energy(stripes, 4).round(2), zfjax.filters.aliased_energy(stripes, 1).round(2)
      (array([0.99]), array([0.]))
    """
    strides = size_of(stride)
    if min(strides) < 1:
        raise UserError(f"stride={stride!r}: at least 1 pixel is needed")
    power, _ = _power(kernel)
    down, across = (np.abs(np.fft.fftfreq(len(power))) > 1 / (2 * own) + 1e-9 for own in strides)
    outside = power[down[:, None] | across[None, :]].sum(axis=0)
    total = power.sum(axis=(0, 1))
    shares: np.ndarray = np.divide(outside, total, out=np.zeros_like(total), where=total > 0)
    return shares


def aliased_by_noise(stride: int | tuple[int, int]) -> float:
    """`aliased_energy` of white noise, whose energy is the same at all frequencies: what the stride alone leaves."""
    point = np.zeros((1, 1, 1, 1))
    point[0] = 1  # one pixel has as flat a spectrum as noise has on average
    return float(aliased_energy(point, stride)[0])


def _rms(kernel: np.ndarray) -> np.ndarray:
    if np.ndim(kernel) != 4:
        raise UserError(f"kernel of shape {np.shape(kernel)}: height, width, input maps and filters are needed")
    return np.asarray(filter_rms(jnp.asarray(kernel)), np.float64)


def _power(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power spectrum [F, F, N] of [h, w, I, N], summed over I, and |frequency| [F, F], cycles per pixel."""
    if np.ndim(kernel) != 4:
        raise UserError(f"kernel of shape {np.shape(kernel)}: height, width, input maps and filters are needed")
    size = GRID * -(-max(np.shape(kernel)[:2]) // GRID)
    power = sum(np.abs(np.fft.fft2(plane, (size, size), axes=(0, 1))) ** 2 for plane in np.moveaxis(kernel, 2, 0))
    frequency = np.fft.fftfreq(size)
    return np.asarray(power), np.hypot(frequency[:, None], frequency[None, :])


def _shares(energy: np.ndarray) -> np.ndarray:
    total = energy.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(energy, total, out=np.zeros_like(energy), where=total > 0)
    return shares


NAMES = {"zfnet": "ZFNet", "alexnet": "AlexNet"}


class Bottom(NamedTuple):
    """The bottom of one net: its first filters, and some maps of the layer above."""

    name: str  # its architecture's, or what the net itself is called
    layers: tuple[str, ...]  # what the filters are called, and the second layer where there is one
    kernel: np.ndarray  # float32 [h, w, C, N], the first layer's filters
    alive: np.ndarray | None  # bool [N], some image excites the filter; None where the net has no layer of their maps
    stride: Size | None  # pixels between two places of the filters; None where it is not known
    second: Strongest | None  # some maps of layer 2 and the images that excite each most; None without a layer 2
    units: tuple[str, ...] = ()  # what these maps are called
    no_second: str = ""  # why `second` is None

    @property
    def title(self) -> str:
        """The net's name in the paper, where it has one."""
        return NAMES.get(self.name, self.name)


def check_bottom(net: Net) -> tuple[str, ...]:
    """The layers that are looked at, from the image up: that of the first filters' maps, and the next one with maps.

    UserError where the net's first filters cannot be read, in words that say why. Where the lowest layer stands above
    more weights than theirs, it is the next one, and the filters have no layer of their own.
    """
    nets.check_weights(net)
    is_own, maps = nets.first_filters(net).is_own, nets.map_layers(net)
    return (maps[:2] or (nets.lowest_layer(net),)) if is_own else maps[:1]


def stride_of(net: Net) -> Size | None:
    """Pixels between two places of the net's first filters, or (down, across); None where that cannot be known."""
    stride = nets.first_filters(net).stride
    return stride if stride is None or stride[0] != stride[1] else stride[0]


def look(net: Net, source: Source | None, state: State, *, num_maps: int, seed: int = 0) -> Bottom:
    """The net's first filters, which of them are alive, and some maps of its second layer, projected.

    Args:
      net: any network whose first filters can be read.
      source: the split that `state` was scanned from; None: the filters alone.
      state: {layer: TopActivations} of the layers of `check_bottom`.
      num_maps, seed: how many maps of the second layer are drawn, and which.

    Returns:
      Bottom; without a second layer where there is no `source`, no image excites any of its maps, or the deconvnet
      does not lead down from it.

    Examples:
      layers = filters.check_bottom(net)
      state = top_activations.init({layer: zfjax.nets.shapes_of(net)[layer][-1] for layer in layers})
      state = top_activations.scan(zfjax.nets.features_of_pictures(net, layers), batches, state)
      filters.look(net, photos, state, num_maps=16).kernel
    """
    layers, first = check_bottom(net), nets.first_filters(net)
    own, above = (layers[:1], layers[1:]) if first.is_own else ((), layers)
    drawn, units = None, []
    no_second = _why_no_second(net, above, source=source, state=state)
    if source is not None and not no_second:
        (second,) = above
        maps = strongest.choose_maps(state[second], num_maps, seed)
        drawn = strongest.project_and_cut(net, source, state[second], maps=maps, layer=second)
        units = [nets.unit_name(net, second, number) for number in maps]
    name = net.architecture.name if isinstance(net, nets.OfTable) else net.name
    called = own or (first.module or "the first weights",)
    alive = top_activations.alive(state[own[0]]) if own and source is not None else None
    layers = (*called, *(above if drawn is not None else ()))
    return Bottom(name, layers, first.kernel, alive, stride_of(net), drawn, tuple(units), no_second)


def _why_no_second(net: Net, above: Sequence[str], *, source: Source | None, state: State) -> str:
    """Why no maps of the layer above the first filters are drawn; "" where they are."""
    if not above or source is None:
        return NO_PICTURES if above else "no second layer has maps"
    if not top_activations.alive(state[above[0]]).any():
        return f"no validation image excites any map of {above[0]}"
    return nets.why_no_way_down(net, above) or ""


NO_PICTURES = "there are no pictures to look at, which --data would name"


class Filters(TypedDict):
    """Some of a layer's filters."""

    count: int
    share: float  # of all


class Aliasing(TypedDict):
    """What is too fine for a grid: see MEANINGS."""

    stride: Size
    aliased_energy: float
    aliased_by_noise: float
    aliased: list[float]  # of each filter that is not dead by weight


class OfFilters(TypedDict):
    """Numbers of single filters: see MEANINGS."""

    rms: list[float]
    middle: list[float]
    aliased: NotRequired[list[float]]  # absent where the stride is not known


class DominanceFacts(TypedDict):
    """`Dominance` as a result holds it."""

    largest_over_median: float
    energy_share: float


class Numbers(TypedDict):
    """The numbers of one net: see MEANINGS."""

    architecture: str
    num_filters: int
    channels: int  # of the images
    size: Size  # pixels
    stride: Size | None  # pixels; None where it is not known
    dominance: DominanceFacts
    largest_rms: float
    dead_by_weight: Filters
    dead_by_activity: NotRequired[Filters]  # absent where the net has no layer of the filters' maps
    band_energy: dict[str, float]  # by BANDS
    band_peaks: dict[str, float]
    of_filters: OfFilters
    # absent where the stride is not known
    aliased_energy: NotRequired[float]
    aliased_by_noise: NotRequired[float]
    on_finer_grid: NotRequired[Aliasing]  # absent where no such grid is asked for
    # absent where there is no second layer
    maps_of_layer_2: NotRequired[Any]  # int [M]
    units_of_layer_2: NotRequired[list[str]]  # [M]
    images_of_layer_2: NotRequired[list[list[str]]]  # [M, k]
    projections_of_layer_2: NotRequired[strongest.Notes]


def measure(bottom: Bottom, *, finer_stride: Size | None = None) -> Numbers:
    """The numbers of one net: see MEANINGS. What needs a stride is left out where that is not known.

    Args:
      bottom: of the net.
      finer_stride: pixels, that of a net with which this one is compared.
    """
    kernel, is_weak, spread = bottom.kernel, weak(bottom.kernel), dominance(bottom.kernel)
    height, width = kernel.shape[:2]
    peaks = peak_frequency(kernel[..., ~is_weak])
    in_band = {band: (low <= peaks) & (peaks < high) for band, (low, high) in BANDS.items()}
    energy = band_energy(kernel[..., ~is_weak])
    facts: Numbers = {
        "architecture": bottom.name,
        "num_filters": kernel.shape[-1],
        "channels": kernel.shape[2],
        "size": height if height == width else (height, width),
        "stride": bottom.stride,
        "dominance": {"largest_over_median": spread.largest_over_median, "energy_share": spread.energy_share},
        "largest_rms": float(np.max(filter_rms(kernel))),
        "dead_by_weight": {"count": int(is_weak.sum()), "share": float(is_weak.mean())},
        "band_energy": {band: float(share.mean()) for band, share in energy.items()},
        "band_peaks": {band: float(inside.mean()) for band, inside in in_band.items()},
        "of_filters": {"rms": _rms(kernel).tolist(), "middle": energy["middle"].tolist()},
    }
    if bottom.alive is not None:
        facts["dead_by_activity"] = {"count": int((~bottom.alive).sum()), "share": float((~bottom.alive).mean())}
    if bottom.stride is not None:
        own = _aliasing(kernel[..., ~is_weak], bottom.stride)
        facts["aliased_energy"], facts["aliased_by_noise"] = own["aliased_energy"], own["aliased_by_noise"]
        facts["of_filters"]["aliased"] = own["aliased"]
    if finer_stride is not None:
        facts["on_finer_grid"] = _aliasing(kernel[..., ~is_weak], finer_stride)
    if bottom.second is not None:
        facts["maps_of_layer_2"] = bottom.second.maps
        facts["units_of_layer_2"] = list(bottom.units)
        facts["images_of_layer_2"] = bottom.second.names.tolist()
        facts["projections_of_layer_2"] = strongest.notes(bottom.second)
    return facts


def _aliasing(kernel: np.ndarray, stride: Size) -> Aliasing:
    shares = aliased_energy(kernel, stride)
    return {
        "stride": stride,
        "aliased_energy": float(shares.mean()),
        "aliased_by_noise": aliased_by_noise(stride),
        "aliased": shares.tolist(),
    }
