"""The atlas: every unit of a network on one static site, which opens from a folder and asks nobody for anything.

`build(net, images, out)` looks through the images once (`scan`), measures every unit (`measures`), draws what excites
it most (`drawing`), and writes a site of pages (`site`) with the numbers beside it.
"""

from zfjax.atlas.making import Atlas, UnitView, build
from zfjax.atlas.options import Options
from zfjax.atlas.records import EMBEDS

__all__ = ["EMBEDS", "Atlas", "Options", "UnitView", "build"]
