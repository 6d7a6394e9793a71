"""One module for each figure and table of the paper: `python -m experiments.NAME`, or its `run(config)`."""

import os
import signal
import sys


def leave(number: int, _frame: object) -> None:
    """What Ctrl-C does until a command takes over, as while it imports: nothing was begun, so nothing is cleaned up."""
    os.write(2, b"stopped; nothing was written\n")
    os._exit(128 + number)


if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # python -m experiments.X
    signal.signal(signal.SIGINT, leave)

from importlib.metadata import version  # noqa: E402  after the handler above: importing is what may be stopped

from zfjax import extras  # noqa: E402

try:
    extras.check("figures")
except extras.MissingExtraError as error:
    if sys.argv[:1] != ["-m"]:
        raise
    raise SystemExit(f"error: {error}") from None

# On CPU, XLA 0.10's YNN kernels take two to four times as long as Eigen's for the convolutions of this network and
# their gradients (conv1's weights: 550 ms against 125 ms, batch 32 on two cores); for matrix products they are as
# good or better. The flag is read when JAX starts its backend, and other versions may not know it.
_FLAG = "xla_cpu_experimental_ynn_fusion_type"
if version("jaxlib").startswith("0.10.") and _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_FLAG}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT".strip()
