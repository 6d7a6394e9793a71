"""Make tests/golden/captum_*.npz: what Captum's Deconvolution, GuidedBackprop and Saliency give on small nets.

    python tests/make_captum_golden.py

needs PyTorch and Captum (`pip install -e '.[bench]'`), takes about ten seconds, and prints for each net how far
`with_relu_rule` is from Captum in float64. Nothing is written where that is more than 1e-9 of the largest value.
"""

import warnings

import captum.attr
import captum_nets
import jax
import numpy as np
import tiny_nets
import torch
from torch_twins import TWINS

HOOKED = {"deconvnet": captum.attr.Deconvolution, "guided": captum.attr.GuidedBackprop}


def by_captum(name):
    """{what: float64 array} of a net: its parameters, two images, their logits, and what comes down from one logit."""
    params, images = captum_nets.draw(name)
    twin = TWINS[name](params).eval()
    batch = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    logits = twin(batch)
    target = logits.argmax(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum says that it sets hooks
        down = {rule: method(twin).attribute(batch, target) for rule, method in HOOKED.items()}
    down["gradient"] = captum.attr.Saliency(twin).attribute(batch, target, abs=False)
    pixels = {rule: signal.detach().numpy().transpose(0, 2, 3, 1) for rule, signal in down.items()}
    return {**params, "images": images, "logits": logits.detach().numpy(), "target": target.numpy(), **pixels}


def main():
    """Make all files, or none."""
    jax.config.update("jax_enable_x64", True)
    goldens = {name: by_captum(name) for name in captum_nets.NETS}
    for name, golden in goldens.items():
        for rule in captum_nets.RULES:
            found = captum_nets.by_rule(name, golden, rule, np.float64)
            errors = {part: tiny_nets.relative_error(value, golden[part]) for part, value in found.items()}
            print(f"{name:14}", "  ".join(f"{part} {error:.1e}" for part, error in errors.items()))
            if not max(errors.values()) < 1e-9:
                raise SystemExit(f"{name}, {rule}: no agreement with Captum, nothing written")
    for name, golden in goldens.items():
        np.savez_compressed(captum_nets.FOLDER / f"captum_{name}.npz", **golden)


if __name__ == "__main__":
    main()
