"""What `experiments.benchmark` measures, in JAX and in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from experiments.shell.sizes import SizeFlag
from zfjax.architecture import ALEXNET, ZFNET, Architecture
from zfjax.errors import UserError

Work = Callable[[], Any]  # does the work on one batch, or starts it
Engine = tuple[Work, Callable[[Any], Any]]  # the work, and what waits for its result
STORED_MARGIN = 32  # pixels by which stored pictures are larger than the crop: 256 for 224
UNITS = 9  # of each image, or of each map


@dataclass(frozen=True)
class Table:
    """Which of the paper's networks, and its sizes."""

    architecture: Literal["zfnet", "alexnet"] = "zfnet"
    image_size: SizeFlag = 224
    """Size of the images in pixels: a side, or HEIGHTxWIDTH."""
    width: float = 1.0
    """Factor on the features of every layer but the last."""
    num_classes: int = 1000

    def table(self) -> Architecture:
        """The architecture that is meant."""
        table = {"zfnet": ZFNET, "alexnet": ALEXNET}[self.architecture].scaled(self.width)
        return table.with_sizes(image=self.image_size, **{table.layer_names[-1]: self.num_classes})


@dataclass(frozen=True)
class Workload(Table):
    """What is measured, and how long."""

    batch_size: int = 32
    """Images per step."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    against: Literal["torch"] | None = None
    """Measure this one too, in turns."""
    steps: int = 5
    """Steps between two readings of the clock."""
    rounds: int = 5
    """Readings of the clock; their median is printed."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "rounds", "num_classes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: at least 1 is needed")
