"""Small Caltech folders, VOC devkits and sets as TFDS leaves them, for the tests of their readers and experiments."""

import struct

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.file_adapters import FileFormat
from tiny_photos import photo

CALTECH = {
    "101_ObjectCategories/ant/image_0002.jpg": photo(2),
    "101_ObjectCategories/ant/image_0001.jpg": photo(1),
    "101_ObjectCategories/BACKGROUND_Google/image_0001.jpg": photo(3),
    "101_ObjectCategories/bass/image_0001.JPG": photo(4),
}

STRAY = {
    "101_ObjectCategories/BACKGROUND_Google/tmp": b"x",
    "101_ObjectCategories/ant/._image_0001.jpg": b"x",
    "101_ObjectCategories/ant/more/image_0009.jpg": photo(9),
}

NAMES = {"train": ["2008_1", "2008_2", "2008_3"], "val": ["2008_4", "2008_5"]}
SHOWN = {"cat": [1, -1, 0, -1, 1], "dog": [-1, 1, 1, 0, 1]}  # of the photos above, in that order
VOC = "VOCdevkit/VOC2012"


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def devkit(lists=True):
    """A devkit of five photos; without `lists` the labels stand in the annotations alone."""
    files = {f"{VOC}/ImageSets/Main/{split}.txt": "\n".join(names) + "\n" for split, names in NAMES.items()}
    everything = NAMES["train"] + NAMES["val"]
    for number, name in enumerate(everything):
        things = [(label, SHOWN[label][number]) for label in SHOWN if SHOWN[label][number] >= 0]
        objects = "".join(f"<object><name>{c}</name><difficult>{1 - shown}</difficult></object>" for c, shown in things)
        objects += "<object><name>cat</name><difficult>1</difficult></object>" if SHOWN["cat"][number] == 1 else ""
        files[f"{VOC}/Annotations/{name}.xml"] = f"<annotation>{objects}</annotation>"
        files[f"{VOC}/JPEGImages/{name}.jpg"] = photo(number)
    if lists:
        for label, values in SHOWN.items():
            lines = [f"{name} {value:2d}" for name, value in zip(everything, values, strict=True)]
            files[f"{VOC}/ImageSets/Main/{label}_train.txt"] = "\n".join(lines[:3])
            files[f"{VOC}/ImageSets/Main/{label}_val.txt"] = "\n".join(lines[3:])
            files[f"{VOC}/ImageSets/Main/{label}_trainval.txt"] = "\n".join(lines)
    return files


def prepared_by_tfds(data_dir, name, features, examples, file_format):
    """A set as TFDS leaves it: records, features.json, label names, dataset_info.json."""
    folder = data_dir / name / "3.0.1"
    folder.mkdir(parents=True)
    dataset, config = (*name.split("/"), None)[:2]
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=dataset, version="3.0.1", data_dir=str(folder), module_name="test", config_name=config
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    info.set_file_format(file_format)
    serializer = tfds.core.ExampleSerializer(info.features.get_serialized_info())
    splits = []
    for split, rows in examples.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=dataset, split=split, filetype_suffix=file_format.file_suffix
        )
        records = [serializer.serialize_example(info.features.encode_example(row)) for row in rows]
        path = folder / template.sharded_filepath(shard_index=0, num_shards=1).name
        WRITERS[file_format](path, records)
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(rows)], num_bytes=1, filename_template=template)
        )
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(folder)
    return data_dir


def write_tfrecords(path, records):
    path.write_bytes(b"".join(struct.pack("<QI", len(r), 0) + r + bytes(4) for r in records))


def write_array_records(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


WRITERS = {FileFormat.TFRECORD: write_tfrecords, FileFormat.ARRAY_RECORD: write_array_records}


def caltech_by_tfds(folder, file_format, last_label=0):
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["bass", "ant"]),
        "image/file_name": tfds.features.Text(),
    }
    labels = (0, 1, 0, 1, last_label)
    rows = [{"image": photo(n), "label": labels[n], "image/file_name": f"image_{n}.jpg"} for n in range(5)]
    return prepared_by_tfds(folder, "caltech101", features, {"train": rows[:2], "test": rows[2:]}, file_format)


def voc_by_tfds(folder, file_format):
    labels = tfds.features.Sequence(tfds.features.ClassLabel(names=list(SHOWN)))
    features = {
        "image": tfds.features.Image(),
        "image/filename": tfds.features.Text(),
        "labels": labels,
        "labels_no_difficult": labels,
    }
    rows = [
        {
            "image": photo(number),
            "image/filename": f"{name}.jpg",
            "labels": [label for label in SHOWN if SHOWN[label][number] >= 0],
            "labels_no_difficult": [label for label in SHOWN if SHOWN[label][number] > 0],
        }
        for number, name in enumerate(NAMES["train"] + NAMES["val"])
    ]
    return prepared_by_tfds(folder, "voc/2012", features, {"train": rows[:3], "validation": rows[3:]}, file_format)
