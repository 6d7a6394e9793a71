"""Every UserError of the core is raised by some case below, whose message names the argument, the value, the rule.

The last test reads the modules' source: a `raise UserError` that no case reaches fails it.
"""

import ast
import dataclasses
import functools
import importlib
import math
import pathlib
import re
import traceback

import jax
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import parallel, pixels, training

CORE = ("architecture", "ops", "network", "deconvnet", "training.step", "pixels", "parallel")
FC8 = zfjax.Dense("fc8", 5, hidden=False)
MAPS = np.zeros((2, 4, 4, 3), np.float32)
CONV1, CONV2 = (np.zeros((2, *tiny_nets.MINI.sizes()[layer].output), np.float32) for layer in ("conv1", "conv2"))
PICTURES, MEAN = np.zeros((2, 9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.float32)


def table(*layers, image_size=32, **fields):
    return zfjax.Architecture("bad", layers, image_size=image_size, **fields)


def conv(**fields):
    return table(zfjax.Conv("conv1", **{"features": 4, "kernel": 3, **fields}), FC8)


def forward(images=None, params=None, **arguments):
    images = tiny_nets.images(34) if images is None else images
    params = tiny_nets.params(tiny_nets.MINI) if params is None else params
    return zfjax.forward(params, images, architecture=tiny_nets.MINI, **arguments)


def project(top, layer, params=None, seed="value", **trace):
    params = params or tiny_nets.params(tiny_nets.MINI)
    return zfjax.project(params, trace, top, layer=layer, architecture=tiny_nets.MINI, seed=seed)


def gradient_without_norms():
    trace = {"conv1": zfjax.LayerTrace(CONV1, CONV1.astype(np.uint8))}
    return zfjax.gradient(tiny_nets.params(tiny_nets.MINI), trace, CONV1, layer="conv1", architecture=tiny_nets.MINI)


def by_position(way):
    return way(tiny_nets.params(tiny_nets.MINI), {}, MAPS, "conv3", tiny_nets.MINI)


def one_image(unit):
    return zfjax.isolate(MAPS[:1], unit)


def descend(way):
    params, conv3 = tiny_nets.params(tiny_nets.MINI), np.zeros((2, 3, 3, 6), np.float32)
    return zfjax.deconvnet.descend(params, {}, conv3, layer="conv3", architecture=tiny_nets.MINI, way=way)


def gradient(**missing):
    """`gradient` from conv2, of whose trace something is missing."""
    params, trace = tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)[1]
    trace = trace | {"conv2": trace["conv2"]._replace(**missing)}
    return zfjax.gradient(params, trace, CONV2, layer="conv2", architecture=tiny_nets.MINI)


def project_places(**changed):
    places = {name: np.array([0]) for name in ("image", "channel", "row", "column")}
    places |= {name: np.array([number]) for name, number in changed.items()}
    params, images = tiny_nets.params(tiny_nets.MINI), tiny_nets.images(34)
    return zfjax.deconvnet.project_places(params, images, places, layer="conv3", architecture=tiny_nets.MINI)


def project_units(unit, **options):
    options = {"architecture": tiny_nets.MINI, **options}
    return zfjax.deconvnet.project_places(tiny_nets.params(tiny_nets.MINI), tiny_nets.images(34), unit, **options)


def dense_table(**fields):
    return table(zfjax.Dense("fc6", **{"features": 4, **fields}), FC8)


def norm(**fields):
    return conv(after=(zfjax.ContrastNorm(**fields),))


def pool(**fields):
    return conv(after=(zfjax.Pool(**fields),))


def unpool(values, switches, shape):
    return zfjax.unpool(values, switches.astype(np.uint8), shape=shape)


def without_layer(name):
    return {key: value for key, value in tiny_nets.params(tiny_nets.MINI).items() if key != name}


def with_bias(bias):
    """The parameters with another bias in conv1; None leaves it out."""
    params = tiny_nets.params(tiny_nets.MINI)
    return params | {"conv1": {"kernel": params["conv1"]["kernel"]} | ({} if bias is None else {"bias": bias})}


def crops(**arguments):
    return pixels.training_crops(PICTURES, MEAN, jax.random.split(jax.random.key(0), 2), **arguments)


KEYS = jax.random.split(jax.random.key(0), 3)
isolate = functools.partial(zfjax.isolate, MAPS)
dense = functools.partial(zfjax.isolate, MAPS[:, 0, 0])
POOL = zfjax.Pool()


def under_mpi(rank):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PMI_RANK", rank)
        environment.setenv("PMI_SIZE", "2")
        parallel.announced()


CASES = [
    # architecture: names
    (lambda: zfjax.ZFNET.layer("conv6"), "unknown layer 'conv6': zfnet has conv1, conv2"),
    (lambda: zfjax.ZFNET.without("pool1"), "unknown layer 'pool1'"),
    (lambda: zfjax.ZFNET.with_sizes(conv9=3), "unknown layer 'conv9'"),
    (lambda: zfjax.receptive_field(zfjax.ZFNET, "conv0"), "unknown layer 'conv0'"),
    (lambda: zfjax.receptive_field(zfjax.ZFNET, "conv1", stage="pool"), "stage='pool': one of 'output', 'filtered'"),
    (lambda: zfjax.ZFNET.without("fc8"), "without('fc8'): the last layer gives the result"),
    (lambda: zfjax.ZFNET.upto("fc6"), "upto('fc6'): a hidden dense layer cannot be the last; one of conv1, conv2"),
    # architecture and layers: numbers
    (lambda: zfjax.ZFNET.scaled(0), "width=0: a finite factor above 0"),
    (lambda: zfjax.ZFNET.scaled(math.inf), "width=inf: a finite factor above 0"),
    (lambda: zfjax.ZFNET.with_sizes(image=0), "architecture 'zfnet': image_size=0: a Python int of at least 1"),
    (lambda: zfjax.ZFNET.with_sizes(image=np.float64(112)), "image_size=np.float64(112.0): a Python int of at least 1"),
    (lambda: zfjax.ZFNET.with_sizes(image=(0, 5)), "image_size=(0, 5): a Python int of at least 1, or a tuple (height"),
    (lambda: zfjax.ZFNET.with_sizes(image=(5, 5, 5)), "image_size=(5, 5, 5): a Python int of at least 1, or a tuple"),
    (lambda: zfjax.ZFNET.with_sizes(image=(5.0, 5)), "image_size=(5.0, 5): a Python int of at least 1, or a tuple"),
    (lambda: zfjax.ZFNET.with_sizes(image=(True, 5)), "image_size=(True, 5): a Python int of at least 1, or a tuple"),
    (lambda: zfjax.ZFNET.with_sizes(image="224x160"), "image_size='224x160': a Python int of at least 1, or a tuple"),
    (lambda: zfjax.ZFNET.with_sizes(image=(224, 20)), "layer 'conv2': its input of 55x4, padded by (0, 0), is smaller"),
    (lambda: pixels.size_of_words("48,64"), "'48,64': a number of pixels, as 64, or HEIGHTxWIDTH, as 48x64, is needed"),
    (lambda: zfjax.ZFNET.with_sizes(conv3=-1), "layer 'conv3': features=-1: a Python int of at least 1"),
    (lambda: zfjax.ZFNET.with_sizes(conv3=True), "layer 'conv3': features=True: a Python int of at least 1"),
    (lambda: zfjax.ZFNET.with_sizes(fc6=2.5), "layer 'fc6': features=2.5: a Python int of at least 1"),
    (lambda: dataclasses.replace(zfjax.ZFNET, channels=0), "channels=0: a Python int of at least 1"),
    (lambda: table(FC8, input_scale=0), "architecture 'bad': input_scale=0: a finite Python number above 0"),
    (lambda: table(FC8, input_scale=math.nan), "input_scale=nan: a finite Python number above 0"),
    (lambda: table(FC8, input_scale=math.inf), "input_scale=inf: a finite Python number above 0"),
    (lambda: zfjax.Architecture("bad", FC8), "architecture 'bad': layers=Dense(name='fc8', features=5"),
    (
        lambda: table("conv1", FC8),
        "layers=('conv1', Dense(name='fc8', features=5, hidden=False, dropout=0.5)): a tuple",
    ),
    (lambda: conv(kernel=0), "layer 'conv1': kernel=0: a Python int of at least 1"),
    (lambda: conv(stride=0), "layer 'conv1': stride=0: a Python int of at least 1"),
    (lambda: conv(groups=0), "layer 'conv1': groups=0: a Python int of at least 1"),
    (lambda: conv(padding=(0, -1)), "layer 'conv1': padding=(0, -1): a tuple of two Python ints of at least 0"),
    (lambda: conv(padding=(1,)), "layer 'conv1': padding=(1,): a tuple of two Python ints of at least 0"),
    (lambda: conv(padding=[1, -1]), "layer 'conv1': padding=[1, -1]: a tuple of two Python ints of at least 0"),
    (lambda: conv(after=("relu",)), "layer 'conv1': after=('relu',): a tuple of ContrastNorm and at most one Pool"),
    (lambda: conv(after=POOL), "layer 'conv1': after=Pool(size=3, stride=2): a tuple of ContrastNorm and at"),
    (lambda: conv(after=(POOL, POOL)), "Pool(size=3, stride=2)): a tuple of ContrastNorm and at most one Pool"),
    (lambda: pool(size=0), "layer 'conv1': Pool.size=0: a Python int from 1 to 16"),
    (lambda: pool(size=17), "layer 'conv1': Pool.size=17: a Python int from 1 to 16"),
    (lambda: pool(stride=0), "layer 'conv1': Pool.stride=0: a Python int of at least 1"),
    (lambda: norm(num_maps=0), "layer 'conv1': ContrastNorm.num_maps=0: an odd Python int of at least 1"),
    (lambda: norm(num_maps=4), "layer 'conv1': ContrastNorm.num_maps=4: an odd Python int of at least 1"),
    (lambda: norm(k=0.0), "layer 'conv1': ContrastNorm.k=0.0: a finite Python number above 0"),
    (lambda: norm(alpha=-1e-4), "layer 'conv1': ContrastNorm.alpha=-0.0001: a finite Python number of at least 0"),
    (lambda: norm(beta=math.nan), "layer 'conv1': ContrastNorm.beta=nan: a finite Python number of at least 0"),
    (lambda: dense_table(features=0), "layer 'fc6': features=0: a Python int of at least 1"),
    (lambda: dense_table(hidden=1), "layer 'fc6': hidden=1: True or False"),
    (lambda: dense_table(dropout=1.5), "layer 'fc6': dropout=1.5: a Python number from 0 to below 1"),
    # architecture: geometry
    (lambda: table(FC8, zfjax.Dense("fc8", 3, hidden=False)), "layers ('fc8', 'fc8'): each name may stand once"),
    (lambda: table(zfjax.Dense("fc8", 5)), "architecture 'bad': the last layer has to be a Conv, or a Dense with"),
    (lambda: table(), "architecture 'bad': the last layer has to be a Conv, or a Dense with hidden=False"),
    (
        lambda: table(zfjax.Dense("fc6", 4), zfjax.Conv("conv1", 4, 3), FC8),
        "layer 'conv1': a convolution cannot stand above a dense layer",
    ),
    (lambda: conv(groups=2), "layer 'conv1': 3 input maps and 4 filters cannot be split into 2 groups"),
    (lambda: conv(groups=3), "layer 'conv1': 3 input maps and 4 filters cannot be split into 3 groups"),
    (
        lambda: zfjax.ZFNET.with_sizes(image=20),
        "layer 'conv2': its input of 4x4, padded by (0, 0), is smaller than its 5x5 filter: the image is too small",
    ),
    (
        lambda: table(zfjax.Conv("conv1", 4, 3, after=(zfjax.Pool(),)), FC8, image_size=3),
        "layer 'conv1': its map of 1x1 holds no window of Pool(size=3, stride=2), which needs a side of at least "
        "max(1, size - stride + 1) = 2: the image is too small",
    ),
    # ops
    (lambda: zfjax.max_pool(MAPS, size=0), "size=0, stride=2: a size of 1 to 16 and a stride of at least 1"),
    (lambda: zfjax.max_pool(MAPS, stride=0), "size=3, stride=0: a size of 1 to 16 and a stride of at least 1"),
    (lambda: zfjax.max_pool(MAPS.astype(int)), "maps of type int"),
    (lambda: zfjax.max_pool(MAPS[0]), "maps of shape (4, 4, 3): [B, H, W, C]"),
    (
        lambda: zfjax.max_pool(MAPS[:, :1]),
        "maps of shape (2, 1, 4, 3): [B, H, W, C] is needed, with H and W of at least max(1, size - stride + 1) = 2",
    ),
    (
        lambda: unpool(MAPS[:, :2], MAPS[:, :2], (4, 4)),
        "values (2, 2, 4, 3), switches (2, 2, 4, 3), shape=(4, 4): pooling (4, 4, 3) with size=3, stride=2 gives "
        "(2, 2, 2, 3)",
    ),
    (lambda: unpool(MAPS[0], MAPS[0], (9, 9)), "values of shape (4, 4, 3), float32: floating point"),
    (lambda: unpool(MAPS, MAPS[:1], (9, 9)), "switches (1, 4, 4, 3)"),
    # network
    (lambda: forward(tiny_nets.images(33)), "images of shape (2, 33, 33, 3): mini reads [B, 34, 34, 3]"),
    (lambda: forward(tiny_nets.images(34).astype(np.uint8)), "images of type uint8: floating point, with the mean"),
    (lambda: forward(tiny_nets.images(34)[0]), "images of shape (34, 34, 3): mini reads [B, 34, 34, 3]"),
    (lambda: forward(params=without_layer("fc7")), "params['fc7']['kernel'] of shape None: mini has (8, 6)"),
    (
        lambda: forward(
            params={**tiny_nets.params(tiny_nets.MINI), "conv3": tiny_nets.params(tiny_nets.MINI)["conv2"]}
        ),
        "params['conv3']['kernel'] of shape (3, 3, 2, 6): mini has (3, 3, 6, 6)",
    ),
    (lambda: forward(params=with_bias(np.zeros(1))), "params['conv1']['bias'] of shape (1,): mini has (4,)"),
    (lambda: forward(params=with_bias(None)), "params['conv1']['bias'] of shape None: mini has (4,)"),
    (lambda: forward(dropout_key=KEYS), "dropout_key of shape (3,): one key, or one for each of the 2 images"),
    # deconvnet
    (lambda: zfjax.isolate(MAPS[0], channel=0), "features of shape (4, 4, 3): [B, H, W, C] or [B, C]"),
    (lambda: isolate(), "channel=None, position=None: say which activation to keep"),
    (lambda: dense(channel=1, position=(0, 0)), "position=(0, 0): a dense layer has no places"),
    (lambda: isolate(channel=1.5), "channel=1.5: a whole number from 0 to 2 is needed"),
    (lambda: isolate(channel=3), "channel=3: a whole number from 0 to 2 is needed"),
    (lambda: dense(channel=-1), "channel=-1: a whole number from 0 to 2 is needed"),
    (lambda: isolate(channel=np.int64(9)), "channel=9: a whole number from 0 to 2 is needed"),
    (lambda: isolate(channel=np.array([0, 3])), "channel=[0 3]: a whole number from 0 to 2 is needed"),
    (lambda: isolate(position=(4, 0)), "position row=4: a whole number from 0 to 3 is needed"),
    (lambda: isolate(position=3), "position=3: (y, x) in the map is needed"),
    (lambda: isolate(zfjax.Unit(0, "conv3")), "position='conv3': (y, x) in the map is needed; a layer is named by"),
    (lambda: project(zfjax.Unit(0, (1,)), "conv3", **tiny_nets.run(tiny_nets.MINI)[1]), "position=(1,): (y, x) in the"),
    (lambda: project_units(zfjax.Unit(0, (0, 0, 0)), layer="conv3"), "position=(0, 0, 0): (y, x) in the map is needed"),
    (lambda: isolate((0, (1, 1), "conv3", 2)), "(channel, position, layer) at most is needed"),
    (lambda: isolate(position=(0, -1)), "position column=-1: a whole number from 0 to 3 is needed"),
    (lambda: isolate(channel=np.array([0, 1, 2])), "channel of shape (3,): one index, or one for each of the 2 images"),
    (lambda: isolate(zfjax.Unit(1), channel=1), "unit=Unit(channel=1, position=None, layer=None), channel=1"),
    (lambda: isolate([zfjax.Unit(1), zfjax.Unit(0, (0, 0))]), "Unit([1, 2], layer=...) is two units"),
    (lambda: isolate(position=(np.array([0, 1]), np.array([0]))), "position column of shape (1,): one index, or one"),
    (
        lambda: one_image(zfjax.Unit(np.array([0, 1]), (np.array([0, 1, 2]), 0))),
        "channel of shape (2,), position row of shape (3,): one index each, or the same number of them",
    ),
    (
        lambda: one_image(zfjax.Unit(np.zeros((2, 2), int))),
        "channel of shape (2, 2): one index, or one for each of the",
    ),
    (
        lambda: project(zfjax.Unit(0, layer="conv2"), "conv3"),
        "layer='conv3' and Unit(layer='conv2'): name one layer; one of them may be left out",
    ),
    (lambda: project(zfjax.Unit(0), None), "layer=None: name the layer that top stands in"),
    (lambda: project(zfjax.Unit(0, layer="conv9"), None), "unknown layer 'conv9': mini has conv1"),
    (lambda: project(zfjax.Unit(0), "conv3"), "trace['conv3'].features is missing"),
    (lambda: project(3, "conv3"), "top=3: an array of the shape of trace['conv3'].features, or a Unit, is needed"),
    (
        lambda: by_position(zfjax.project),
        "project(params, trace, top) and 2 more by position: layer= and architecture= are keywords, as in "
        "project(params, trace, top, layer=layer, architecture=architecture)",
    ),
    (
        lambda: zfjax.evaluation.update(zfjax.evaluation.init(), MAPS, 0, True),
        "update(errors, probabilities) and 2 more by position: labels= and mask= are keywords, as in "
        "update(errors, probabilities, labels=labels, mask=mask)",
    ),
    (
        lambda: by_position(zfjax.project_windows),
        "project_windows(params, trace, units) and 2 more by position: layer=",
    ),
    (
        lambda: zfjax.forward({}, MAPS, tiny_nets.MINI),
        "forward(params, images) and 1 more by position: architecture= and dropout_key= are keywords",
    ),
    (
        lambda: zfjax.project_fn(lambda images: images, MAPS, 1),
        "project_fn(fn, images) and 1 more by position: unit= and layer= are keywords, as in project_fn(fn, images",
    ),
    (
        lambda: zfjax.with_relu_rule(lambda images: images, "guided", "keep"),
        "with_relu_rule(fn, rule) and 1 more by position: on_unknown= is a keyword",
    ),
    (lambda: by_position(zfjax.gradient), "gradient(params, trace, top) and 2 more by position"),
    (lambda: by_position(zfjax.guided_backprop), "guided_backprop(params, trace, top) and 2 more by position"),
    (
        lambda: project(np.zeros((3, 3, 3, 6), np.float32), "conv3", **tiny_nets.run(tiny_nets.MINI)[1]),
        "top of 3 signals, trace['conv3'] of 2 images: one signal for each image, or all of one image, is needed",
    ),
    (lambda: descend("deconv"), "way='deconv': one of 'deconvnet', 'gradient', 'guided' is needed"),
    (lambda: gradient(features=None), "trace['conv2'].features is missing: hand on what `forward` gave"),
    (lambda: gradient(norm_inputs=()), "trace['conv2'].norm_inputs is missing: the layer's norm is differentiated"),
    (lambda: project_places(image=2), "places['image'] from 2 to 2: 0 to 1 is needed"),
    (lambda: project_places(row=3), "places['row'] from 3 to 3: 0 to 2 is needed"),
    (lambda: project_units({}), "layer=None: name the layer that the units stand in"),
    (
        lambda: project_units(zfjax.Unit(0, layer="conv3")),
        "Unit(channel=0, position=None, layer='conv3'): a channel, and a place (y, x) in its map, is needed in layer",
    ),
    (lambda: project_units(zfjax.Unit(0, (0, 0)), layer="fc6"), "a channel, and no place, is needed in layer 'fc6'"),
    (
        lambda: project_units(zfjax.Unit(np.arange(3), (0, 0)), layer="conv3"),
        "images of 2, for 3 units: one image, 3, or `of` is needed",
    ),
    (
        lambda: project_units(zfjax.Unit(np.arange(3), (0, 0)), layer="conv3", of=[0, 1]),
        "of=[0, 1]: one number each, or [3] of each, are needed, not {(2,)}",
    ),
    (lambda: project(MAPS, "pool5"), "unknown layer 'pool5': mini has conv1"),
    (lambda: project(MAPS, "conv3"), "top of shape (2, 4, 4, 3): layer 'conv3' hands on [B, 3, 3, 6]"),
    (lambda: project(MAPS[:, 0, 0], "fc6"), "top of shape (2, 3): layer 'fc6' hands on [B, 8]"),
    (lambda: project(CONV2, "conv2"), "trace['conv2'].switches is missing: the layer has a pool"),
    (lambda: gradient_without_norms(), "trace['conv1'].norm_inputs is missing: the layer's norm is differentiated"),
    (lambda: project(CONV2, "conv2", params=without_layer("conv2")), "params['conv2']['kernel'] of shape None"),
    # training.step
    (lambda: zfjax.renormalize({}, radius=0.0), "radius=0.0: a number above 0"),
    (
        lambda: training.make_train_step(training.Recipe(), table(zfjax.Conv("conv1", 4, 3)), MEAN),
        "architecture 'bad': to be trained it needs a last Dense layer, of logits",
    ),
    (lambda: training.step.Recipe(seed=-1), "seed=-1: 0 or more and below 2**32 is needed"),
    (lambda: zfjax.renormalize({}, radius=float("nan")), "radius=nan: a number above 0"),
    (lambda: project(zfjax.Unit(0), "conv3", seed="two"), "seed='two': one of 'value', 'one' is needed"),
    (lambda: project(CONV1, "conv1", seed="one"), "seed='one': top is an array and holds what it starts from"),
    # pixels
    (lambda: pixels.subtract_mean(PICTURES, MEAN[1:]), "mean of shape (8, 9, 3): the pictures are (9, 9, 3)"),
    (lambda: pixels.center_crop(PICTURES, MEAN, 10), "size=10: a crop of the 9x9 pictures"),
    (lambda: pixels.ten_crops(PICTURES, MEAN, 0), "size=0: a crop of the 9x9 pictures"),
    (lambda: crops(size=10), "size=10: a crop of the 9x9 pictures"),
    (lambda: crops(size=5, crops="five"), "crops='five': one of 'ten', 'random'"),
    (lambda: pixels.center_crop(PICTURES, MEAN, 2.5), "size=2.5: a whole number of pixels, or (height, width)"),
    (lambda: pixels.center_crop(PICTURES[0], MEAN, 5), "pictures of shape (9, 9, 3): [B, H, W, C] is needed"),
    (lambda: pixels.cut(PICTURES, (0, 0, 2, 2), 0.0), "picture of shape (2, 9, 9, 3): [H, W, C] is needed"),
    (lambda: pixels.as_picture(MEAN, -1.0), "scale=-1.0: the value that becomes white, at least 0"),
    (lambda: pixels.as_picture(MEAN, float("nan")), "scale=nan: the value that becomes white"),
    (lambda: pixels.in_colours(MEAN[0, 0]), "pictures of shape (3,): [..., H, W, C] is needed"),
    # parallel
    (lambda: under_mpi("one"), "PMI_RANK='one': a whole number is needed"),
    (lambda: under_mpi("2"), "PMI_RANK=2 and PMI_SIZE=2: no process has this number"),
    (lambda: parallel.check_alike([{"seed": ("a", "0")}, {"seed": ("b", "7")}]), "seed is 0 on host 0 and 7 on host 1"),
    (lambda: parallel.split(np.zeros((6, 2))), "batch of 6 rows: a multiple of the 4 local devices"),
    (lambda: parallel.check_batch_size(6), "batch_size=6: a multiple of the number of devices, 4,"),
    (lambda: parallel.check_batch_size(0), "batch_size=0: a multiple of the number of devices, 4,"),
    (lambda: parallel.connect_hosts("localhost:1234"), "coordinator='localhost:1234' needs num_hosts and host"),
    (lambda: parallel.connect_hosts("nowhere", num_hosts=2, host=1), "coordinator='nowhere': HOST:PORT of host 0 is"),
    (lambda: parallel.connect_hosts("a:99999", num_hosts=2, host=1), "coordinator='a:99999': HOST:PORT of host 0 is"),
    (lambda: parallel.connect_hosts("a:1", num_hosts=0, host=0), "coordinator='a:1' needs num_hosts and host in 0"),
    (lambda: parallel.connect_hosts("a:1", num_hosts=2, host=1, timeout=0), "timeout=0: 1 to 1,000,000 seconds are"),
    (lambda: parallel.connect_hosts(num_hosts=2, host=1), "coordinator=None: num_hosts and host need its address"),
    (
        lambda: parallel.connect_hosts("localhost:1", num_hosts=2, host=2),
        "host in 0..num_hosts-1; got num_hosts=2, host=2",
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES, ids=[message for _, message in CASES])
def test_the_message_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def raised_at(call):
    """(file, line) of the statement that raised."""
    try:
        call()
    except ValueError as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return frame.filename, frame.lineno
    raise AssertionError("no ValueError")


def test_every_user_error_of_the_core_has_a_case():
    reached = {raised_at(call) for call, _ in CASES}
    missed = []
    for name in CORE:
        path = importlib.import_module(f"zfjax.{name}").__file__
        for node in ast.walk(ast.parse(pathlib.Path(path).read_text())):
            raises = isinstance(node, ast.Raise) and ast.unparse(node).startswith("raise UserError")
            if raises and not any((path, line) in reached for line in range(node.lineno, node.end_lineno + 1)):
                missed.append(f"{name}:{node.lineno} {ast.unparse(node)[:80]}")
    assert not missed, "\n".join(missed)


def test_a_good_call_raises_nothing():
    """The cases above differ from these in the one value that their message names."""
    conv(), pool(), pool(size=16, stride=16), norm(), norm(num_maps=1), dense_table(dropout=0)
    table(FC8, input_scale=1), table(zfjax.Conv("conv1", 4, 3, after=(POOL,)), FC8, image_size=4)
    zfjax.ZFNET.with_sizes(image=112), zfjax.max_pool(MAPS[:, :2])
    isolate(channel=2), isolate(channel=np.int64(2)), isolate(channel=np.array([0, 2])), isolate(position=(3, 3))
    dense(channel=0)
    jax.eval_shape(lambda: (crops(size=9), crops(size=5, crops="random"), pixels.ten_crops(PICTURES, MEAN, 9)))
    pixels.as_picture(MEAN, 0.0)
    parallel.check_batch_size(8), parallel.split(np.zeros((8, 2)))
