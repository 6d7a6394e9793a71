"""Top-1 and top-5 accuracy of SqueezeNet v1.0 among ImageNet's 1000 classes: proof that the import is the network.

    python -m experiments.squeezenet_accuracy --weights models/squeezenet_v1.0 --data SOURCE

--data is ImageNet's official validation tar or class folders, as for `prepare_imagenet --source`, or a set prepared
from them. The centre square of each photo is resized to 256 pixels (bilinear); its centre 227 x 227 is shown. With
--outputs, an .npz of another implementation's inputs ("inputs", [B, 3, 227, 227], BGR) and of what its layers hand on
("pool1" and so on), the two are compared layer by layer first, and a network that differs is refused.
Expected time: 20 s for 500 photos on two CPU cores. Expected result: 57.5 % / 80.3 % on the 50,000 validation photos
(Iandola et al. 2016); 57.6 % / 80.6 % on 500 photos of ten classes stored at 224 pixels; 57.0 % / 80.8 % on a set
prepared from them at that size, whose JPEGs are encoded anew. Writes <out>/result.json.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from experiments.shell import command, results
from zfjax import nets, pretrained
from zfjax.data import archives, sets
from zfjax.data.pictures import preprocess
from zfjax.errors import UserError
from zfjax.features import jitted
from zfjax.training import evaluation

COMMAND = "squeezenet_accuracy"
REPORTED = {"top1": 0.575, "top5": 0.803}  # Iandola et al. 2016: all 50,000 validation photos


@dataclass(frozen=True)
class Config:
    """Measure SqueezeNet's accuracy on validation photos."""

    weights: Path
    """Folder with architecture.json and squeezenet_v1.0.npz."""
    data: str
    """Folder with ImageNet's validation tar or class folders, or a prepared set."""
    outputs: Path | None = None
    """An .npz of another implementation's inputs and outputs, to compare with."""
    out: Path | None = None
    """Folder for result.json; by default runs/squeezenet."""
    batch_size: int = 50
    """Photos per forward pass."""
    overwrite: bool = False
    """Replace a result that is already there."""


class Photos(NamedTuple):
    """Validation photos, decoded when they are asked for."""

    num: int
    labeled: Iterator[tuple[np.ndarray, int]]  # a square, uint8 [S, S, 3], and its label, ImageNet's own 0..999
    fingerprint: str


def run(config: Config) -> dict[str, Any]:
    """Measure and write result.json.

    Returns:
      What result.json holds. UserError or OSError for weights or photos that do not fit, a class that is not one of
      ImageNet's, a network that differs from the outputs, or an output folder that already holds a result.
    """
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: at least 1 is needed")
    out = nets.RUNS / "squeezenet" if config.out is None else config.out
    results.check_free(out, COMMAND, overwrite=config.overwrite)
    caffe = pretrained.squeezenet(config.weights)
    rows = [] if config.outputs is None else compared(caffe, config.outputs)
    pretrained.check_parity(rows)
    photos, net = photos_of(config.data), nets.load_net(f"squeezenet:{config.weights}")
    with results.claimed(out, COMMAND, overwrite=config.overwrite):
        began = time.monotonic()
        errors = errors_of(net, caffe, photos, batch_size=config.batch_size)
        result = {
            "accuracy": {top: round(1 - error, 6) for top, error in errors.shares().items()},
            "reported": REPORTED,
            "paper": None,
            "num_images": photos.num,
            "num_classes": len(net.class_names),
            "parity": [row._asdict() | {"relative": row.relative} for row in rows],
            "seconds": time.monotonic() - began,
            "net": {"name": net.name, "fingerprint": net.fingerprint},
            "weights": {"path": config.weights, "fingerprint": net.fingerprint},
            "data": {"name": config.data, "fingerprint": photos.fingerprint},
            "config": config,
            "versions": results.versions(),
        }
        return results.write(out, COMMAND, result, {})


def compared(caffe: pretrained.CaffeNet, outputs: Path) -> list[pretrained.ParityRow]:
    """The parity report of the layers in another implementation's .npz."""
    other = pretrained.read_exporter_run(outputs)

    def as_images(inputs: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(inputs, 1, 3)[..., ::-1])

    fn = caffe.layers_of(list(other.outputs))
    return pretrained.exporter_parity(fn, other, as_images=as_images, preprocess=caffe.preprocess)


def errors_of(net: nets.Net, caffe: pretrained.CaffeNet, photos: Photos, *, batch_size: int) -> evaluation.Errors:
    """Counts over all photos, in batches that are filled up, so that one program serves all."""
    fn, errors = jitted(net.features(["logits"])), evaluation.init()
    with tqdm(total=photos.num, desc="centre crop", unit="img", disable=None) as bar:
        for start in range(0, photos.num, batch_size):
            some = [next(photos.labeled) for _ in range(start, min(start + batch_size, photos.num))]
            filled = [*some, *some[:1] * (batch_size - len(some))]
            images = np.concatenate([caffe.preprocess(picture[None]) for picture, _ in filled])
            labels, mask = np.array([label for _, label in filled], np.int32), np.arange(batch_size) < len(some)
            errors = evaluation.update(errors, fn(images)["logits"], labels, mask)
            bar.update(len(some))
    return errors


def photos_of(data: str) -> Photos:
    """The validation photos of a folder with official tars or class folders, or of a prepared set."""
    folder, names = Path(data), (archives.TARS["validation"], archives.FOLDERS["validation"])
    if any((folder / name).exists() for name in names):
        return _official_photos(folder)
    images = sets.open_data(data)
    source, official = sets.validation_of(images), images.official_labels
    if official is None:
        raise UserError(f"data={data!r}: its classes are not all among ImageNet's 1000")
    examples = (source[index] for index in range(len(source)))
    labeled = ((example["image"], official[int(example["label"])]) for example in examples)
    return Photos(len(source), labeled, images.fingerprint)


def _official_photos(source: Path) -> Photos:
    listed = list(archives.find_splits(source)["validation"]())
    index = {synset: label for label, synset in enumerate(archives.official_synsets())}
    for photo in listed:
        if photo.folder not in index:
            raise UserError(f"data={str(source)!r}: {photo.folder!r} is not one of ImageNet's 1000 synsets")
    hashed = hashlib.blake2b(digest_size=16)
    for photo in listed:
        hashed.update(f"{photo.folder} {photo.name} {photo.size} ".encode())

    def labeled() -> Iterator[tuple[np.ndarray, int]]:
        for photo in listed:
            data = photo.read()
            side = min(Image.open(io.BytesIO(data)).size)  # so that the square keeps the photo's own pixels
            yield preprocess(data, side), index[photo.folder]

    return Photos(len(listed), labeled(), hashed.hexdigest())


def report(result: dict[str, Any]) -> None:
    """Print the parity report and the accuracy."""
    if result["parity"]:
        rows = [pretrained.ParityRow(row["layer"], row["difference"], row["largest"]) for row in result["parity"]]
        print("\n".join(pretrained.parity_lines(rows)))
    print(f"SqueezeNet v1.0 on {result['num_images']:,} photos, {result['num_classes']:,} classes, centre crop:")
    for top, accuracy in result["accuracy"].items():
        print(f"{top} accuracy {accuracy:.1%} (reported on all 50,000: {result['reported'][top]:.1%})")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
