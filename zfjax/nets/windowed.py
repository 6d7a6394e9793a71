"""The ways down of a network that knows which part of its images each unit looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zfjax.architecture import Size
from zfjax.deconvnet import Way
from zfjax.errors import UserError, saying_keywords
from zfjax.pixels import size_words
from zfjax.units import Seed, Unit, by_layer, of_layers
from zfjax.windows import Windows


class ByWindows:
    """`Net.project` and `project_ways` of a network that has `project_windows`: the pictures are zero beside these."""

    if TYPE_CHECKING:  # what each kind of such a network does itself

        def project_windows(  # noqa: D102
            self,
            images: Any,
            units: Unit,
            *,
            ways: Sequence[Way],
            layer: str | None = None,
            of: Any = None,
            seed: Seed = "value",
        ) -> dict[Way, Windows]: ...
        @property
        def name(self) -> str: ...  # noqa: D102
        @property
        def layers(self) -> tuple[str, ...]: ...  # noqa: D102
        @property
        def image_size(self) -> Size: ...  # noqa: D102

    def __repr__(self) -> str:
        """One line without the weights, which fill pages of a notebook."""
        layers = " to ".join(dict.fromkeys(self.layers[:1] + self.layers[-1:]))
        size = size_words(self.image_size)
        return f"<{type(self).__name__} {self.name!r}: layers {layers}, images of {size} pixels>"

    @saying_keywords
    def project(
        self,
        images: Any,
        units: Unit,
        *,
        layer: str | None = None,
        of: Any = None,
        way: Way = "deconvnet",
        seed: Seed = "value",
    ) -> np.ndarray:
        """One signed picture for each unit: see `Net.project`."""
        return self.project_ways(images, units, ways=(way,), layer=layer, of=of, seed=seed)[way]

    @saying_keywords
    def project_ways(
        self,
        images: Any,
        units: Unit,
        *,
        ways: Sequence[Way],
        layer: str | None = None,
        of: Any = None,
        seed: Seed = "value",
    ) -> dict[Way, np.ndarray]:
        """{way: one signed picture for each unit}; each image goes up once: see `project_ways`."""
        if by_layer(units):
            num = len(units)
            if np.shape(of) not in ((), (num,)):
                raise UserError(f"of={of}: the image of each of {num} units, or one of all, is needed")
            image = np.broadcast_to(np.arange(num) if of is None else of, num)

            def of_one_layer(some: Any, rows: Any) -> dict[Way, np.ndarray]:
                own = np.zeros(len(some), int) if rows is None else image[rows]
                return self.project_ways(images, some, ways=ways, layer=layer, of=own, seed=seed)

            together: dict[Way, np.ndarray] = of_layers(units, len(images) if of is None else num, of_one_layer)
            return together
        windows = self.project_windows(images, units, ways=ways, layer=layer, of=of, seed=seed)
        return {way: of_way.paste(np.shape(images)[1:3]) for way, of_way in windows.items()}
