"""A layer, a map or a number that cannot be ends a command before any data are opened."""

import importlib
import sys

import foreign_nets
import pytest

from zfjax.data import sets
from zfjax.transfer import frozen_features

NET = ("--net", "foreign_nets:SMALL", "--data", "pictures")
PHOTOS = ("--net", "foreign_nets:SMALL", "--images", "pictures")

CASES = [
    ("deconv_figures", [*NET, "--layers", "conv9"], "layer='conv9': one of "),
    ("deconv_figures", [*NET, "--maps", "conv9:1"], "maps='conv9:1': 'conv9' is not among the layers drawn"),
    ("feature_evolution", [*NET, "--num-probes", "0"], "num_probes=0: at least 1 is needed"),
    ("invariance_curves", [*NET, "--layers", "conv9"], "layer='conv9': one of "),
    ("occlusion_maps", [*NET, "--square", "999"], "square=999: 1 to "),
    ("part_correspondence", [*NET, "--mask-size", "nan"], "mask_size=nan: a share of the picture's shorter side"),
    ("part_correspondence", [*NET[:2], "--data", "demo", "--class-name", "cow"], "class_name='cow': one of bear, "),
    ("activation_maximization", [*NET, "--decay", "2"], "decay=2.0: a share from 0 to below 1 is needed"),
    ("sanity_checks", [*NET, "--layer", "conv9"], "layer='conv9': one of "),
    ("first_layer", [*NET, "--num-maps", "0"], "num_maps=0: at least 1 is needed"),
    ("atlas", [*NET, "--tile", "1"], "tile=1: a whole number of at least 8 is needed"),
    ("atlas", [*NET, "--quality", "101"], "quality=101: 1 to 100 is needed"),
    ("evaluate_imagenet", [*NET, "--num-workers", "-1"], "num_workers=-1: at least 0 is needed"),
    ("layer_analysis", [*PHOTOS, "--svm", "conv9"], "layer='conv9': one of "),
    ("transfer_learning", [*PHOTOS, "--arms", "pretrained", "--layer", "conv9"], "layer='conv9': one of "),
    ("train_imagenet", ["--preset", "demo", "--width", "0"], "width=0.0: a finite factor above 0 is needed"),
    ("train_imagenet", ["--preset", "demo", "--image-size", "3"], "the image is too small"),
    ("train_imagenet", ["--preset", "demo", "--save-steps", "0"], "save_steps=0: at least 1 is needed"),
    ("architecture_ablation", ["--width", "nan"], "width=nan: a finite factor above 0 is needed"),
    ("architecture_ablation", ["--image-size", "3"], "the image is too small"),
]


@pytest.mark.parametrize(("name", "flags", "words"), CASES)
def test_the_line_comes_before_the_data(tmp_path, monkeypatch, name, flags, words):
    monkeypatch.chdir(tmp_path)
    foreign_nets.folder(tmp_path / "pictures")
    monkeypatch.setattr("zfjax.parallel.connect_hosts", lambda **_: None)
    for opening in ("open_images", "open_data"):
        monkeypatch.setattr(sets, opening, lambda *_, **__: pytest.fail("data were opened"))
    monkeypatch.setattr(frozen_features, "open_photos", lambda *_, **__: pytest.fail("data were opened"))
    monkeypatch.setattr(sys, "argv", [name, *flags])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"experiments.{name}").main()
    assert words in str(ended.value.code)


def test_a_correlation_that_none_can_be_is_refused_before_the_photos():
    net = foreign_nets.SMALL
    with pytest.raises(ValueError, match="remove_duplicates=2: a correlation above 0 and at most 1 is needed"):
        frozen_features.open_photos("caltech101", "nowhere", net=net, threshold=2, folder="kept")
