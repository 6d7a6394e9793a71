"""The errors of networks over a whole split, of any kind: tables on all devices, functions on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments.pages.lettering import counted, on_console
from zfjax import features, nets, parallel
from zfjax.data import Source, name_of
from zfjax.data.loader import eval_batches
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.training import evaluation

CROPS = {"center": "centre crop", "ten": "ten crops"}  # of an image, in words


class Scored(NamedTuple):
    """Errors by the crops that they are of, and what was not measured."""

    errors: dict[str, evaluation.EnsembleErrors]
    not_applicable: dict[str, str]  # {crops: why not}


def score(networks: Sequence[Net], source: Source, logits: np.ndarray, **options: int) -> Scored:
    """Errors over the whole split.

    Args:
      networks: with the same classes and size of pictures.
      source: the split.
      logits: of the source's labels, from `logits_of`.
      options: batch_size, num_workers.
    """
    tables = [net for net in networks if isinstance(net, nets.OfTable)]
    if len(tables) == len(networks):
        return Scored(
            {views: errors_of(tables, source, logits=logits, views=views, **options) for views in ("center", "ten")}, {}
        )
    other = next(net for net in networks if not isinstance(net, nets.OfTable))
    fns = [logits_function(net) for net in networks]
    errors = evaluation.errors_of_functions(fns, batches_of(source, logits, "center", **options))
    why = f"{other.name} prepares its own images of the centre of a picture; only a table of layers has other crops"
    return Scored({"center": errors}, {"ten": why})


def check_classes(source: Source, data: str, net: Net) -> None:
    """UserError, before any picture is opened, where pictures of a folder have no class of the network."""
    without = np.flatnonzero(np.asarray(getattr(source, "labels", ())) < 0)
    if len(without):
        named = f"{name_of(source, int(without[0]))!r}" + (
            f" and {len(without) - 1:,} more" if len(without) > 1 else ""
        )
        classes = ", ".join([*net.class_names[:5], *(["..."] if len(net.class_names) > 5 else [])])
        raise UserError(
            f"data={data!r}: of its {counted(len(source), 'picture')} {named} are in no folder with the name of a "
            f"class of {on_console(net.name)} ({classes}); put each into the folder of its class, or leave it out"
        )


def logits_function(net: Net) -> Callable[[Any], jax.Array]:
    """pictures uint8 [B, H, W, C] -> logits [B, classes] of their centres."""
    last = net.layers[-1]
    fn = features.jitted(nets.features_of_pictures(net, [last]))
    return lambda pictures: fn(pictures)[last]


def errors_of(
    networks: Sequence[nets.OfTable], source: Source, *, logits: np.ndarray, views: evaluation.Crops, **options: int
) -> evaluation.EnsembleErrors:
    """Errors of networks of tables, on all devices, averaging the softmax over `views` and nets."""
    host, num_hosts = parallel.host_count()
    size, channels = nets.size_of(networks[0].picture_size), networks[0].channels
    means = [np.broadcast_to(net.mean, (*size, channels)) for net in networks]
    members = [evaluation.Member(net.architecture, mean) for net, mean in zip(networks, means, strict=True)]
    evaluate = evaluation.make_evaluate_ensemble(members, views=views)
    hosts = {"host": host, "num_hosts": num_hosts}
    return evaluate([net.params for net in networks], batches_of(source, logits, views, **hosts, **options))


def batches_of(source: Source, logits: np.ndarray, views: str, **options: int) -> Iterator[dict[str, np.ndarray]]:
    """The split's batches with a bar, their labels those of the logits."""
    host, num_hosts = options.get("host", 0), options.get("num_hosts", 1)
    with tqdm(total=len(source), desc=CROPS[views], unit="img", disable=host > 0) as bar:
        for batch in eval_batches(source, **options):
            yield {**batch, "label": logits[batch["label"]]}
            bar.update(int(batch["mask"].sum()) * num_hosts)
