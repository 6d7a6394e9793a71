"""The command line of an experiment: flags in, a result or one line of error out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tyro

from zfjax import parallel


def main(
    config_type: type[Any],
    run: Callable[[Any], dict[str, Any]],
    doc: str | None,
    report: Callable[[dict[str, Any]], None],
    *,
    when_stopped: str = "nothing was written",
) -> None:
    """Parse the flags into `config_type`, run, and let `report` print what came out.

    Args:
      config_type: frozen dataclass; its fields are the flags.
      run: config -> result; empty on every host but the first, where there are several.
      doc: the module's docstring, shown by --help.
      report: prints a few lines of the result.
      when_stopped: what Ctrl-C left behind.
    """
    config: Any = tyro.cli(config_type, description=doc)
    try:
        parallel.connect_hosts()
        result = run(config)
    except (ValueError, OSError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; {when_stopped}") from None
    if result:
        report(result)
