"""Slow references in float64 numpy, written from the paper as plain loops over places, windows and neighbours.

Arrays are NHWC, kernels HWIO, as in the library; of the library only the rows of a table are read.
"""

import numpy as np

from zfjax import Architecture, ContrastNorm, Conv


def windows(side: int, size: int, stride: int) -> list[int]:
    """Where pooling windows begin: one after the other until the last pixel is covered, each beginning inside."""
    starts = [0]
    while starts[-1] + size < side and starts[-1] + stride < side:
        starts.append(starts[-1] + stride)
    return starts


def conv(images, kernel, layer: Conv) -> np.ndarray:
    """Slide the filters of each group over its input maps."""
    images, kernel = np.asarray(images, np.float64), np.asarray(kernel, np.float64)
    size, _, inputs, filters = kernel.shape
    padded = np.pad(images, ((0, 0), layer.padding, layer.padding, (0, 0)))
    ys = range(0, padded.shape[1] - size + 1, layer.stride)
    xs = range(0, padded.shape[2] - size + 1, layer.stride)
    out = np.zeros((len(images), len(ys), len(xs), filters))
    for maps, mine in _groups(inputs, filters, layer.groups):
        for i, y in enumerate(ys):
            for j, x in enumerate(xs):
                out[:, i, j, mine] = np.tensordot(padded[:, y : y + size, x : x + size, maps], kernel[..., mine], 3)
    return out


def conv_transpose(signal, kernel, layer: Conv, input_shape) -> np.ndarray:
    """Each activation paints its filter, times its value, where the filter stood; the paint adds up."""
    signal, kernel = np.asarray(signal, np.float64), np.asarray(kernel, np.float64)
    size, _, inputs, filters = kernel.shape
    height, width, channels = input_shape
    before, after = layer.padding
    canvas = np.zeros((len(signal), height + before + after, width + before + after, channels))
    for maps, mine in _groups(inputs, filters, layer.groups):
        for i in range(signal.shape[1]):
            for j in range(signal.shape[2]):
                y, x = i * layer.stride, j * layer.stride
                paint = np.tensordot(signal[:, i, j, mine], kernel[..., mine], ([1], [3]))
                canvas[:, y : y + size, x : x + size, maps] += paint
    return canvas[:, before : before + height, before : before + width]


def _groups(inputs: int, filters: int, groups: int) -> list[tuple[slice, slice]]:
    each = filters // groups
    return [(slice(g * inputs, (g + 1) * inputs), slice(g * each, (g + 1) * each)) for g in range(groups)]


def max_pool(maps, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Maximum of each window and its place dy * size + dx, the first of equal ones in row-major order."""
    maps = np.asarray(maps)
    ys, xs = windows(maps.shape[1], size, stride), windows(maps.shape[2], size, stride)
    values = np.zeros((len(maps), len(ys), len(xs), maps.shape[3]), maps.dtype)
    switches = np.zeros(values.shape, int)
    for b, i, j, c in np.ndindex(values.shape):
        window = maps[b, ys[i] : ys[i] + size, xs[j] : xs[j] + size, c]
        dy, dx = divmod(int(window.argmax()), window.shape[1])
        values[b, i, j, c], switches[b, i, j, c] = window[dy, dx], dy * size + dx
    return values, switches


def unpool(values, switches, shape, size: int, stride: int) -> np.ndarray:
    """Put each value at the place of its maximum, zeros elsewhere; values that share a place add."""
    values, switches = np.asarray(values, np.float64), np.asarray(switches)
    out = np.zeros((len(values), *shape[:2], values.shape[3]))
    for b, i, j, c in zip(*np.nonzero(values), strict=True):
        dy, dx = divmod(int(switches[b, i, j, c]), size)
        out[b, i * stride + dy, j * stride + dx, c] += values[b, i, j, c]
    return out


def contrast_norm(maps, norm: ContrastNorm) -> np.ndarray:
    """Krizhevsky et al. 2012, section 3.3, as printed: the sum runs over max(0, i - n/2) .. min(N - 1, i + n/2)."""
    maps = np.asarray(maps, np.float64)
    out = np.zeros_like(maps)
    last = maps.shape[3] - 1
    for i in range(last + 1):
        energy = np.zeros(maps.shape[:3])
        for j in range(max(0, i - norm.num_maps // 2), min(last, i + norm.num_maps // 2) + 1):
            energy += maps[..., j] ** 2
        out[..., i] = maps[..., i] / (norm.k + norm.alpha * energy) ** norm.beta
    return out


def contrast_norm_transpose(signal, maps, norm: ContrastNorm) -> np.ndarray:
    """What each of `maps` changes of all that `contrast_norm` gives, times the signal there, added up.

    b_i = a_i / d_i ** beta changes with its own a_i, and with every a_j of its neighbourhood by way of d_i.
    """
    maps, signal = np.asarray(maps, np.float64), np.asarray(signal, np.float64)
    out = np.zeros_like(maps)
    last = maps.shape[3] - 1
    for i in range(last + 1):
        neighbours = range(max(0, i - norm.num_maps // 2), min(last, i + norm.num_maps // 2) + 1)
        divisor = norm.k + norm.alpha * sum(maps[..., j] ** 2 for j in neighbours)
        out[..., i] += signal[..., i] / divisor**norm.beta
        for j in neighbours:
            slope = -norm.beta * maps[..., i] / divisor ** (norm.beta + 1) * 2 * norm.alpha * maps[..., j]
            out[..., j] += signal[..., i] * slope
    return out


def forward(params, images, table: Architecture) -> dict[str, dict]:
    """Every layer's input shape, map before the pool, switches, what its ReLU and norms saw, and features, going up."""
    maps = np.asarray(images, np.float64) * table.input_scale
    trace = {}
    for row in table.layers:
        kernel, bias = (np.asarray(params[row.name][part], np.float64) for part in ("kernel", "bias"))
        seen = {"input": maps.shape[1:], "filtered": None, "switches": None, "norm_inputs": {}}
        if isinstance(row, Conv):
            maps = seen["rectified"] = np.maximum(conv(maps, kernel, row) + bias, 0)
            for place, stage in enumerate(row.after):
                if isinstance(stage, ContrastNorm):
                    seen["norm_inputs"][place] = maps
                    maps = contrast_norm(maps, stage)
                else:
                    seen["filtered"] = maps.shape[1:]
                    maps, seen["switches"] = max_pool(maps, stage.size, stage.stride)
        else:
            maps = maps.reshape(len(maps), -1) @ kernel + bias
            maps = seen["rectified"] = np.maximum(maps, 0) if row.hidden else maps
        trace[row.name] = {**seen, "features": maps}
    return trace


RELUS = {
    "deconvnet": lambda signal, active: np.maximum(signal, 0),
    "gradient": lambda signal, active: signal * active,
    "guided": lambda signal, active: np.maximum(signal, 0) * active,
}


def project(params, trace: dict[str, dict], top, layer: str, table: Architecture, way="deconvnet") -> np.ndarray:
    """Sec. 2.1: unpool at the switches, rectify, filter with the transposed filters, layer by layer to pixels.

    No bias, no contrast norm, no ReLU after the last filtering; the logits, which no ReLU made, meet none. The two
    other ways go through the norms, and a ReLU's place passes nothing that was silent on the way up.
    """
    names = [row.name for row in table.layers]
    signal = np.asarray(top, np.float64)
    for row in table.layers[names.index(layer) :: -1]:
        kernel, seen = np.asarray(params[row.name]["kernel"], np.float64), trace[row.name]
        if isinstance(row, Conv):
            for place, stage in reversed(list(enumerate(row.after))):
                if not isinstance(stage, ContrastNorm):
                    signal = unpool(signal, seen["switches"], seen["filtered"], stage.size, stage.stride)
                elif way != "deconvnet":
                    signal = contrast_norm_transpose(signal, seen["norm_inputs"][place], stage)
            signal = conv_transpose(RELUS[way](signal, seen["rectified"] > 0), kernel, row, seen["input"])
        else:
            signal = RELUS[way](signal, seen["rectified"] > 0) if row.hidden else signal
            signal = (signal @ kernel.T).reshape(len(signal), *seen["input"])
    return signal * table.input_scale
