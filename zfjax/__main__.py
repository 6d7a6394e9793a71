"""`python -m zfjax`: the command `zfjax`."""

from zfjax.cli import main

main()
