"""Nets in the words of Haiku, Flax Linen, Flax NNX and Equinox, small images, ten classes, random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import weights

SIZE = 64


def drawn(tree):
    """The tree, of arrays or of their shapes, with random numbers by `weights.draw`, which knows arrays by name."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        names = "/".join(str(getattr(part, "key", getattr(part, "name", part))) for part in path)
        names = names.removesuffix("/value")  # of NNX
        return jnp.asarray(0 if "counter" in names else weights.draw(rng, names, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def haiku_net(make):
    """One of Haiku's own nets."""
    import haiku as hk

    net = hk.without_apply_rng(hk.transform_with_state(lambda images, training: make(hk)(images, training)))
    images = jnp.zeros((1, SIZE, SIZE, 3))
    params, state = drawn(jax.eval_shape(lambda: net.init(jax.random.key(0), images, True)))
    return lambda images: net.apply(params, state, images, False)[0]


def haiku_resnet50():
    return haiku_net(lambda hk: hk.nets.ResNet50(10, resnet_v2=False))


def haiku_resnet18_v2():
    return haiku_net(lambda hk: hk.nets.ResNet18(10, resnet_v2=True))


def haiku_mobilenet_v1():
    return haiku_net(lambda hk: hk.nets.MobileNetV1(num_classes=10))


def linen_resnet18():
    import flax.linen as nn

    class Block(nn.Module):
        width: int
        stride: int

        @nn.compact
        def __call__(self, x):
            def norm(x):
                return nn.BatchNorm(use_running_average=True)(x)

            y = nn.relu(norm(nn.Conv(self.width, (3, 3), (self.stride, self.stride), use_bias=False)(x)))
            y = norm(nn.Conv(self.width, (3, 3), use_bias=False)(y))
            if x.shape != y.shape:
                x = norm(nn.Conv(self.width, (1, 1), (self.stride, self.stride), use_bias=False)(x))
            return nn.relu(x + y)

    class ResNet18(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(64, (7, 7), (2, 2), use_bias=False)(images)))
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
            for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
                x = Block(width, stride)(x)
            return nn.Dense(10)(x.mean((1, 2)))

    model = ResNet18()
    variables = drawn(jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))))
    return lambda images: model.apply(variables, images)


def linen_vit():
    """A vision transformer of two blocks: patches of 16 pixels, a class token, attention and GELU."""
    import flax.linen as nn

    class ViT(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = nn.Conv(32, (16, 16), (16, 16), name="patches")(images).reshape(len(images), -1, 32)
            token = self.param("token", nn.initializers.normal(0.02), (1, 1, 32))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(images), 1, 32)), x], axis=1)
            x = x + self.param("places", nn.initializers.normal(0.02), (1, x.shape[1], 32))
            for _ in range(2):
                x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
                x = x + nn.Dense(32)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))
            return nn.Dense(10)(nn.LayerNorm()(x)[:, 0])

    model = ViT()
    variables = drawn(jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))))
    return lambda images: model.apply(variables, images)


def nnx_squeezenet():
    """Fire modules, batch norms on their running statistics, overlapping pools, dropout in evaluation."""
    from flax import nnx

    class Fire(nnx.Module):
        def __init__(self, before, squeezed, expanded, rngs):
            self.squeeze = nnx.Conv(before, squeezed, (1, 1), rngs=rngs)
            self.expand1 = nnx.Conv(squeezed, expanded, (1, 1), rngs=rngs)
            self.expand3 = nnx.Conv(squeezed, expanded, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(2 * expanded, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.squeeze(x))
            return self.norm(jnp.concatenate([nnx.relu(self.expand1(x)), nnx.relu(self.expand3(x))], axis=3))

    class SqueezeNet(nnx.Module):
        def __init__(self, rngs):
            self.conv1 = nnx.Conv(3, 32, (7, 7), strides=2, rngs=rngs)
            self.fire2, self.fire3 = Fire(32, 8, 32, rngs), Fire(64, 8, 32, rngs)
            self.fire4, self.fire5 = Fire(64, 16, 64, rngs), Fire(128, 16, 64, rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.conv10 = nnx.Conv(128, 10, (1, 1), rngs=rngs)

        def __call__(self, images):
            x = nnx.max_pool(nnx.relu(self.conv1(images)), (3, 3), (2, 2))
            x = nnx.max_pool(self.fire3(self.fire2(x)), (3, 3), (2, 2), "SAME")
            return nnx.relu(self.conv10(self.dropout(self.fire5(self.fire4(x))))).mean((1, 2))

    model = nnx.jit(lambda: SqueezeNet(nnx.Rngs(0)))()
    model.eval()
    nnx.update(model, drawn(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))
    return model


def equinox_resnet():
    """Residual blocks with batch norms, whose statistics were gathered from random images, and a group norm."""
    import equinox as eqx

    keys = iter(jax.random.split(jax.random.key(0), 32))

    def conv(before, width, size, stride=1):
        return eqx.nn.Conv2d(before, width, size, stride, padding=size // 2, key=next(keys))

    def norm(width):
        return eqx.nn.BatchNorm(width, axis_name="batch", mode="batch")

    class Block(eqx.Module):
        conv1: eqx.nn.Conv2d
        conv2: eqx.nn.Conv2d
        shortcut: eqx.nn.Conv2d
        norm1: eqx.nn.BatchNorm
        norm2: eqx.nn.BatchNorm

        def __init__(self, before, width, stride):
            self.conv1, self.conv2 = conv(before, width, 3, stride), conv(width, width, 3)
            self.shortcut = conv(before, width, 1, stride)
            self.norm1, self.norm2 = norm(width), norm(width)

        def __call__(self, x, state):
            y, state = self.norm1(self.conv1(x), state)
            y, state = self.norm2(self.conv2(jax.nn.relu(y)), state)
            return jax.nn.relu(y + self.shortcut(x)), state

    class ResNet(eqx.Module):
        stem: eqx.nn.Conv2d
        norm: eqx.nn.GroupNorm
        pool: eqx.nn.MaxPool2d
        blocks: tuple[Block, ...]
        head: eqx.nn.Linear

        def __init__(self):
            self.stem, self.norm, self.pool = conv(3, 16, 7, 2), eqx.nn.GroupNorm(4, 16), eqx.nn.MaxPool2d(3, 2, 1)
            self.blocks = (Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
            self.head = eqx.nn.Linear(64, 10, key=next(keys))

        def __call__(self, image, state):
            x = self.pool(jax.nn.relu(self.norm(self.stem(image))))
            for block in self.blocks:
                x, state = block(x, state)
            return self.head(x.mean((1, 2))), state

    def run(model, images, state):
        return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(images, state)

    model, state = eqx.nn.make_with_state(ResNet)()
    seen = jax.random.normal(jax.random.key(2), (4, 3, SIZE, SIZE))
    _, state = eqx.filter_jit(run)(model, seen, state)
    model = eqx.nn.inference_mode(model)
    return lambda images: run(model, jnp.moveaxis(images, 3, 1), state)[0]
