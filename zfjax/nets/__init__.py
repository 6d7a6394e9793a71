"""Net: what every analysis, figure and page asks of a network, and the networks that answer it.

A trained run (`load_net("runs/x")`), an imported network, SqueezeNet and any JAX function (`FunctionNet`) are all
looked at in the same words: `net.prepare` makes the network's input of pictures, `net.features` gives a function of
images that every analysis takes, `net.project` carries single units down to pixels.
"""

from zfjax.anymodel.first_filters import FirstFilters
from zfjax.architecture import Size
from zfjax.data import num_channels
from zfjax.nets.beginning import first_filters, lowest_layer, own_filters
from zfjax.nets.functions import FunctionNet
from zfjax.nets.inside import between_layers
from zfjax.nets.opening import load_epochs, load_net, newest_run, object_of
from zfjax.nets.places import places_of
from zfjax.nets.protocol import Net, Training, check_layer
from zfjax.nets.questions import (
    RUNS,
    check_finite,
    check_way_down,
    check_weights,
    class_words,
    features_of_pictures,
    hidden_layers,
    home_of,
    logit_names,
    logits_layer,
    map_layers,
    num_classes,
    project_ways,
    project_windows,
    shapes_of,
    training_of,
    unit_name,
    ways_down,
    why_no_classes,
    why_no_way_down,
    width_of,
)
from zfjax.nets.tables import OfTable, TrainedNet
from zfjax.nets.views import Views, read_views
from zfjax.pixels import size_of

__all__ = [
    "FirstFilters",
    "FunctionNet",
    "Net",
    "OfTable",
    "RUNS",
    "Size",
    "TrainedNet",
    "Training",
    "Views",
    "between_layers",
    "check_finite",
    "check_layer",
    "check_way_down",
    "check_weights",
    "class_words",
    "features_of_pictures",
    "first_filters",
    "hidden_layers",
    "home_of",
    "load_epochs",
    "load_net",
    "logit_names",
    "logits_layer",
    "lowest_layer",
    "map_layers",
    "newest_run",
    "num_classes",
    "num_channels",
    "object_of",
    "own_filters",
    "places_of",
    "project_ways",
    "project_windows",
    "read_views",
    "shapes_of",
    "size_of",
    "training_of",
    "unit_name",
    "ways_down",
    "why_no_classes",
    "why_no_way_down",
    "width_of",
]
