"""ImageNet prepared once: a TFDS builder that reads the official tars or class folders, without TensorFlow."""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import hashlib
import io
import itertools
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from zfjax import files
from zfjax.architecture import Size
from zfjax.data import archives, imagenet, pictures, preparation
from zfjax.data.archives import AnyPhoto, Split, find_splits, official_synsets
from zfjax.errors import FailedError, UserError, check_name, check_utf8, naming, of_the_system
from zfjax.extras import extra
from zfjax.pixels import as_size, size_of, size_words

with extra("train"):
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

_EQUAL_NAMED = 20  # groups of photos of equal bytes that are named; all are counted
MAX_SIZE = 4096  # pixels, of which a worker holds a sum: 400 MB
_RESIZED = {  # what became of a photo, by whether its picture is square
    True: "Photos resized to shortest side {height}, centre {height} x {width}",
    False: "The centre of photos, of the shape of {height} x {width} pixels, resized to them",
}
PICTURES_PER_SHARD = 8192  # 250 MB at 256 pixels: ImageNet is 157 + 7 files, few enough to hold all of them open


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a preparation will do, known before any picture is decoded."""

    source: Path  # holds the tars or class folders
    size: Size  # side of the stored pictures, or their (height, width), pixels
    workers: int  # processes
    skip_bad: bool  # leave out undecodable photos instead of stopping
    splits: dict[str, Split]  # "train", "validation" -> its photos
    counts: dict[str, int]  # photos per split
    left_out: files.LeftOut  # what lies in the source and is none of them
    unseen: tuple[str, ...]  # classes without a validation photo, where there is a validation split
    class_names: tuple[str, ...]  # dense label -> folder name: the training classes, sorted
    pictures_per_shard: int  # of one file


def survey(
    source: Path,
    size: Size,
    *,
    workers: int,
    skip_bad: bool,
    pictures_per_shard: int = PICTURES_PER_SHARD,
    val_share: float | None = None,
) -> Plan:
    """Lists every photo once: finds cut tars, foreign classes and names in minutes, before hours of decoding.

    Raises:
      FileNotFoundError, UserError: from `find_splits`; for a tar that is cut short; for a name that is not UTF-8; for
        a single training class; for a validation photo of a class that the training split does not have.
    """
    splits, left_out = find_splits(source, val_share), files.LeftOut()
    counts: dict[str, int] = {}
    folders: dict[str, dict[str, AnyPhoto]] = {}  # split -> class -> one of its photos
    for split, photos in splits.items():
        counts[split], folders[split] = 0, {}
        for photo in tqdm(photos(left_out), desc=f"listing {split}", unit=" photos", leave=False):
            _check_name(photo)
            counts[split] += 1
            folders[split].setdefault(photo.folder, photo)
        if not counts[split]:
            raise UserError(f"--source {source}: the {split} split holds no photo; put some there, or take it away")
    classes = folders["train"] if "train" in folders else folders["validation"]
    for folder, photo in folders.get("validation", {}).items():
        if folder not in classes:
            raise UserError(
                f"validation photo {_named(photo)} is of class {files.printable(folder)}, which is not among the "
                "training classes: take it away, or add the class there"
            )
    if "train" in folders and len(classes) < 2:
        one = next(iter(classes))
        raise UserError(f"--source {source} holds one class alone, {one}: at least two are needed; add another one")
    unseen = tuple(sorted(set(classes) - set(folders.get("validation", classes))))
    names = tuple(sorted(classes))
    return Plan(source, size, workers, skip_bad, splits, counts, left_out, unseen, names, pictures_per_shard)


def _named(photo: AnyPhoto) -> str:
    """A photo in words: its class, its name, and the file that holds it."""
    return files.printable(f"{photo.folder}/{photo.name} in {photo.file}")


def _check_name(photo: AnyPhoto) -> None:
    """UserError for a name that cannot be stored: it is no UTF-8."""
    for name in (photo.folder, photo.name):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            where = f"{files.printable(photo.file)} ({files.printable(photo.folder)}/{files.printable(photo.name)})"
            raise UserError(f"{where}: the name is not UTF-8; rename it, or all by convmv -t utf8") from error


class _OwnInfo(tfds.core.DatasetInfo):
    """What is known of a set that is prepared here: TFDS would ask Google's storage for one of its name.

    It would also leave an empty folder in the system's place for temporary files each time.
    """

    def initialize_from_bucket(self) -> None:
        """Nothing: nobody is asked."""


class Imagenet(tfds.core.GeneratorBasedBuilder):
    """ImageNet as JPEGs of one size, with the training split's mean beside it; one configuration per size.

    Departure: TFDS's own writer collects 1 GB, spills it through TensorFlow and then sorts an unshuffled split in
    memory, so `_download_and_prepare` writes each shard straight from the generator, in the order listed.
    """

    VERSION = tfds.core.Version(imagenet.VERSION)

    def __init__(self, *, data_dir: Path, plan: Plan):
        self._plan = plan
        height, width = size_of(plan.size)
        config = tfds.core.BuilderConfig(name=f"{size_words(plan.size)}px", description=f"{height} x {width} pixels")
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        (height, width), features = size_of(self._plan.size), tfds.features
        return _OwnInfo(
            builder=self,
            description=f"{_RESIZED[height == width].format(height=height, width=width)} (Zeiler & Fergus 2013).",
            features=features.FeaturesDict(
                {
                    "image": features.Image(shape=(height, width, 3), encoding_format="jpeg"),
                    "label": features.ClassLabel(names=self._plan.class_names),
                    "class": features.Text(),
                    "file_name": features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[AnyPhoto, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in self._plan.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[AnyPhoto, dict[str, Any]]]:
        plan, labels = self._plan, {name: label for label, name in enumerate(self._plan.class_names)}
        photos = plan.splits[split]()
        with tqdm(total=plan.counts[split], desc=f"preparing {split}", unit=" photos", smoothing=0.05) as bar:
            for chunk in preparation.convert(photos, plan.size, workers=plan.workers):
                for photo, reason in chunk.bad:
                    if not plan.skip_bad:
                        raise UserError(
                            f"{split} photo {_named(photo)}: {reason}; --skip-bad leaves such files out and lists them"
                        )
                    name = f"{split}/{photo.folder}/{photo.name}"
                    self._tally.skipped_names.append(name)
                    self._tally.skipped.append(f"{files.printable(name)}: {reason}")
                if split == "train":
                    self._tally.total += chunk.total
                self._tally.digests.extend(chunk.digests)
                for photo, jpeg in chunk.stored:
                    label = labels[photo.folder]
                    self._tally.stored[split, label] += 1
                    yield photo, {"image": jpeg, "label": label, "class": photo.folder, "file_name": photo.name}
                bar.update(len(chunk.stored) + len(chunk.bad))

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Writes all splits, then the mean and the facts, into TFDS's incomplete folder; a rename makes it the set."""
        del download_config
        self._tally = _Tally(np.zeros((*size_of(self._plan.size), 3), np.int64))
        generators = self._split_generators(dl_manager)
        infos = [self._write_split(split, examples) for split, examples in generators.items()]
        self._check_classes(infos)
        self.info.set_splits(tfds.core.SplitDict(infos))
        for info in infos:
            if info.name == "train":
                np.save(self.data_path / imagenet.MEAN, (self._tally.total / info.num_examples).astype(np.float32))
        sums = {split: np.array(of_split, np.uint32) for split, of_split in self._tally.checksums.items()}
        files.save_arrays(Path(self.data_path) / imagenet.CHECKSUMS, sums)
        self.facts = {
            "format": imagenet.FORMAT,
            "source": files.printable(str(self._plan.source.resolve())),
            "size": self._plan.size,
            "jpeg_quality": pictures.JPEG_QUALITY,
            "class_names": list(self._plan.class_names),
            "official_labels": _official_labels(self._plan.class_names),
            "counts": {info.name: info.num_examples for info in infos},
            "skipped": self._tally.skipped,
            "left_out": self._plan.left_out.reasons,
            "equal": self._equal(),
            "unseen": list(self._plan.unseen),
            "fingerprint": self._tally.digest.hexdigest()[:16],
            "shards": {
                info.name: [
                    [Path(file).name, count, Path(file).stat().st_size]
                    for file, count in zip(info.filepaths, info.shard_lengths, strict=True)
                ]
                for info in infos
            },
        }

    def _check_classes(self, infos: list[tfds.core.SplitInfo]) -> None:
        """UserError for a class that would vanish from a split, as none of its photos there can be decoded."""
        for split in (info.name for info in infos):
            for label, name in enumerate(self._plan.class_names):
                absent = split == "validation" and name in self._plan.unseen
                if not absent and not self._tally.stored[split, label]:
                    raise UserError(
                        f"no {split} photo of class {name} can be decoded: mend them, or take the class away"
                    )

    def _equal(self) -> dict[str, Any]:
        """The photos of equal bytes under several names: their number, and the names of the first few groups."""
        digests = np.array(self._tally.digests, np.uint64)
        values, counts = np.unique(digests, return_counts=True)
        places = {value: np.flatnonzero(digests == value) for value in values[counts > 1][:_EQUAL_NAMED]}
        wanted = {int(place) for of_value in places.values() for place in of_value}
        names: dict[int, str] = {}
        if wanted:
            bad, place = set(self._tally.skipped_names), 0
            for split, photos in self._plan.splits.items():
                for photo in photos():
                    name = f"{split}/{photo.folder}/{photo.name}"
                    if name not in bad:
                        if place in wanted:
                            names[place] = files.printable(name)
                        place += 1
        first = [[names[int(place)] for place in of_value] for of_value in places.values()]
        return {"count": int((counts[counts > 1] - 1).sum()), "first": first}

    def _write_split(self, split: str, examples: Iterator[tuple[AnyPhoto, dict[str, Any]]]) -> tfds.core.SplitInfo:
        template = self._get_filename_template(split)
        records = self._serialized(split, examples)
        paths: list[Path] = []
        lengths, num_bytes = [], 0
        for record in records:
            paths.append(Path(self.data_path) / f"{split}.{len(paths)}")
            count, size = write_shard(paths[-1], record, itertools.islice(records, self._plan.pictures_per_shard - 1))
            lengths.append(count)
            num_bytes += size
        if not paths:
            raise UserError(f"the {split} split of {self._plan.source} holds no photo that can be decoded: mend them")
        for index, path in enumerate(paths):  # the final names carry the number of shards
            path.rename(template.sharded_filepath(shard_index=index, num_shards=len(paths)))
        return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)

    def _serialized(self, split: str, examples: Iterator[tuple[AnyPhoto, dict[str, Any]]]) -> Iterator[bytes]:
        features = self.info.features
        serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
        checksums = self._tally.checksums.setdefault(split, array.array("I"))
        for _, example in examples:
            self._tally.digest.update(f"{example['label']} {example['file_name']} ".encode() + example["image"])
            record = serializer.serialize_example(features.encode_example(example))
            checksums.append(zlib.crc32(record))
            yield record


def prepare(
    source: Path | str,
    data_dir: Path | str,
    *,
    size: Size = 256,
    workers: int = 1,
    skip_bad: bool = False,
    overwrite: bool = False,
    pictures_per_shard: int = PICTURES_PER_SHARD,
    val_share: float | None = None,
) -> dict[str, Any]:
    """Prepares `source` under `data_dir`, or finds it prepared.

    The set appears by one rename when all of it is written; whatever stops the preparation, nothing half done can be
    taken for a set, and the next run removes what is left.

    Args:
      source: folder with the photos, in one of the forms of `archives.find_splits`.
      data_dir: receives imagenet/<size>px/<version>/.
      size: side of the stored pictures, or their (height, width), pixels.
      workers: processes that decode and encode.
      skip_bad: leave out undecodable photos instead of stopping at the first.
      overwrite: replace a set of this size that is already there, once the new one is whole.
      pictures_per_shard: of each of the set's files.
      val_share: share of each class that becomes the validation split, where the source has none.

    Returns:
      the set's facts (see `imagenet.read_facts`), with "folder", and "fresh": whether it was prepared now.

    Raises:
      FileNotFoundError, UserError: what is wrong with an argument or the source (see `survey`).
      OSError: where writing fails, naming the folder.

    Examples:
      facts = imagenet_builder.prepare("photos", "data", size=128, workers=4)
    """
    for name, value in (
        ("--size", min(size_of(size))),
        ("--workers", workers),
        ("pictures_per_shard", pictures_per_shard),
    ):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if (largest := max(size_of(size))) > MAX_SIZE:
        raise UserError(f"--size must be at most {MAX_SIZE:,} pixels, not {largest:,}")
    size = as_size(size_of(size))
    folder = imagenet.set_folder(data_dir, size)
    check_name("data_dir", data_dir)
    check_utf8("data_dir", data_dir)
    source, data_dir = Path(source), Path(data_dir)
    if folder.exists() and not overwrite:
        return {**imagenet.read_facts(folder), "folder": folder, "fresh": False}
    with contextlib.ExitStack() as held:
        with naming("data_dir", data_dir, "name a folder that can be made, or is there"):
            held.enter_context(files.claimed(folder.parent))
        plan = survey(
            source,
            size,
            workers=workers,
            skip_bad=skip_bad,
            pictures_per_shard=pictures_per_shard,
            val_share=val_share,
        )
        archives.beside(source, plan.splits, plan.left_out, ours=folder.parents[1])
        workshop, replaced = folder.parent / "incomplete.new", folder.parent / "incomplete.old"
        try:
            files.clear(folder, replaced)
            # TFDS wants a place for downloads and announces one; there is none
            with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(io.StringIO()):
                builder = Imagenet(data_dir=workshop, plan=plan)
                builder.download_and_prepare(download_dir=empty)
            imagenet.write_facts(imagenet.set_folder(workshop, size), builder.facts)
            if folder.exists():
                folder.rename(replaced)
            imagenet.set_folder(workshop, size).rename(folder)
            files.clear(folder, replaced)
        except BaseException as error:  # Ctrl-C too
            with contextlib.suppress(OSError):  # the next preparation removes what this one cannot
                files.clear(folder, replaced)
            if not isinstance(error, OSError):
                raise
            if not isinstance(error, FailedError) and of_the_system(error) is None:
                raise
            why = error.strerror or error
            raise FailedError(f"preparing {folder} failed, nothing new is left there: {why}") from error
    return {**imagenet.read_facts(folder), "folder": folder, "fresh": True}


def write_shard(path: Path, first: bytes, others: Iterator[bytes]) -> tuple[int, int]:
    """Writes `first` and `others`; returns how many records and bytes that were."""
    count = size = 0
    with _as_os_error():
        writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in itertools.chain([first], others):
        with _as_os_error():
            writer.write(record)
        count, size = count + 1, size + len(record)
    with _as_os_error():
        writer.close()
    return count, size


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """array_record reports a full disk, at a later write or at the close, as RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise FailedError(str(error)) from error


@dataclasses.dataclass
class _Tally:
    """What adds up while the records pass by."""

    total: np.ndarray  # int64 [H, W, 3], sum of the training pictures
    digest: Any = dataclasses.field(default_factory=hashlib.sha256)  # over every record
    skipped: list[str] = dataclasses.field(default_factory=list)  # "<split>/<class>/<file name>: reason"
    skipped_names: list[str] = dataclasses.field(default_factory=list)  # the same without the reason
    stored: collections.Counter[tuple[str, int]] = dataclasses.field(default_factory=collections.Counter)  # by label
    digests: array.array[int] = dataclasses.field(default_factory=lambda: array.array("Q"))  # of every photo's bytes
    checksums: dict[str, array.array[int]] = dataclasses.field(default_factory=dict)  # split -> CRC-32 of each record


def _official_labels(class_names: tuple[str, ...]) -> list[int | None]:
    """ImageNet's index of each class; None for a class that is not one of its 1000."""
    index = {synset: index for index, synset in enumerate(official_synsets())}
    return [index.get(name) for name in class_names]
