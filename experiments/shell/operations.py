"""The operations of a training step, each as a program of its own, for `experiments.benchmark step`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.shell.workloads import Workload
from zfjax import ops, training
from zfjax.architecture import Architecture, ContrastNorm, Conv, Dense, Pool
from zfjax.network import Params

MATRIX = 2048  # side of the matrices whose product is the peak that others are held against


class Operation(NamedTuple):
    """What runs, and how much of it are products."""

    layer: str | None
    name: str
    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    flop: float  # two for each product that is added up; 0 of what is no sum of products


def of_step(workload: Workload, architecture: Architecture, params: Params) -> Iterator[Operation]:
    """Every operation of a step on noise, from the image up; each way back stands beside its way up.

    Crops, dropout, the loss and additions of biases are left out; the contrast norm's sum over neighbours is one of
    products.
    """
    key, rows = jax.random.key(0), workload.batch_size

    def noise(shape: tuple[int, ...]) -> jax.Array:
        return jax.random.normal(key, (rows, *shape), workload.compute_dtype)

    cast = jax.tree.map(lambda leaf: leaf.astype(workload.compute_dtype), dict(params))
    for number, row in enumerate(architecture.layers):
        sizes, kernel = architecture.sizes()[row.name], cast[row.name]["kernel"]
        below = sizes.input if isinstance(row, Conv) else (math.prod(sizes.input),)
        filters = partial(ops.conv, layer=row) if isinstance(row, Conv) else jnp.matmul
        places = math.prod(sizes.filtered[:2]) if isinstance(row, Conv) else 1
        flop = 2.0 * rows * places * math.prod(sizes.kernel)
        yield from _there_and_back(filters, (noise(below), kernel), layer=row.name, flop=flop, is_first=number == 0)
        if isinstance(row, Dense):
            if row.hidden:
                yield from _stage(jax.nn.relu, noise(sizes.output), layer=row.name, name="ReLU", flop=0.0)
            continue
        shape = sizes.filtered
        yield from _stage(jax.nn.relu, noise(shape), layer=row.name, name="ReLU", flop=0.0)
        for stage in row.after:
            of = noise(shape)
            if isinstance(stage, Pool):
                yield from _stage(partial(_pooled, stage), of, layer=row.name, name="pool", flop=0.0)
                shape = sizes.output
            else:
                assert isinstance(stage, ContrastNorm)
                flop = 2.0 * of.size * shape[-1]
                yield from _stage(partial(ops.contrast_norm, norm=stage), of, layer=row.name, name="norm", flop=flop)
    yield Operation(None, "update", *_update(params), 0.0)
    square = jax.random.normal(key, (MATRIX, MATRIX), workload.compute_dtype)
    yield Operation(None, "matrix product", jnp.matmul, (square, square), 2.0 * MATRIX**3)


def _pooled(pool: Pool, maps: jax.Array) -> jax.Array:
    return ops.max_pool(maps, size=pool.size, stride=pool.stride).values


def _there_and_back(
    fn: Callable[..., jax.Array], arguments: tuple[jax.Array, jax.Array], *, layer: str, flop: float, is_first: bool
) -> Iterator[Operation]:
    """The filters or the product of a layer, and its gradients; that of the image is not needed."""
    maps, kernel = arguments
    name = "filters" if kernel.ndim == 4 else "product"
    above = jnp.ones_like(fn(maps, kernel))

    def gradient(  # noqa: PLR0917  an operation is a function and the tuple of its arguments
        number: int, maps: jax.Array, kernel: jax.Array, above: jax.Array
    ) -> jax.Array:
        of = (lambda x: fn(x, kernel)) if number == 0 else (lambda w: fn(maps, w))
        gradients: jax.Array = jax.linear_transpose(of, (maps, kernel)[number])(above)[0]
        return gradients

    yield Operation(layer, name, fn, arguments, flop)
    yield Operation(layer, f"{name}, gradient of the kernel", partial(gradient, 1), (maps, kernel, above), flop)
    if not is_first:
        yield Operation(layer, f"{name}, gradient of the maps", partial(gradient, 0), (maps, kernel, above), flop)


def _stage(
    fn: Callable[[jax.Array], jax.Array], maps: jax.Array, *, layer: str, name: str, flop: float
) -> Iterator[Operation]:
    """A stage, and its way there and back in one: the gradient needs again what was seen on the way up."""
    yield Operation(layer, name, fn, (maps,), flop)
    above = jnp.ones_like(fn(maps))
    both = lambda maps, above: jax.vjp(fn, maps)[1](above)  # noqa: E731
    yield Operation(layer, f"{name}, gradient", both, (maps, above), flop)


def _update(params: Params) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Momentum, the step and the renormalisation of the filters."""
    optimizer = training.make_optimizer(training.Recipe())

    def update(params: Params, state: Any, gradient: Params) -> Any:
        change, state = optimizer.update(gradient, state, params)
        return training.renormalize(optax.apply_updates(params, change)), state

    return update, (params, optimizer.init(params), params)
