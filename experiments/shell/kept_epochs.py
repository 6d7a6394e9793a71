"""The networks of a run's kept epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.shell.training_log import TrainingLog
from zfjax import nets
from zfjax.errors import UserError, command_line
from zfjax.nets import Net
from zfjax.training import checkpoints


class KeptNets(Mapping[int, Net]):
    """The nets at the end of some epochs of a run: {epoch: net}, each read from its checkpoint when it is asked for."""

    def __init__(self, paths: Mapping[int, Path]):
        self._paths = dict(paths)

    def __getitem__(self, epoch: int) -> Net:
        return nets.load_net(self._paths[epoch])

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def nets_of_epochs(name: Path | str | None, net: Net, epochs: Sequence[int]) -> Mapping[int, Net]:
    """{epoch: net}, two or more, ascending: of a module's object that holds them, or the kept ones of a run.

    Args:
      name: as for `nets.load_epochs`; None where the net was opened elsewhere.
      net: else the net of <run>/checkpoints/<step>.
      epochs: those that are wanted; none: all of an object's, and of a run as for `epoch_checkpoints`.
    """
    by_epoch = nets.load_epochs(name)
    if by_epoch is None:
        return KeptNets(epoch_checkpoints(net, epochs))
    if missing := sorted(set(epochs) - set(by_epoch)):
        raise UserError(f"epochs={missing}: {name} holds the epochs {list(by_epoch)}")
    chosen = {epoch: one for epoch, one in by_epoch.items() if not epochs or epoch in epochs}
    if len(chosen) < 2:
        raise UserError(f"epochs={list(chosen)}: two or more are needed; {name} holds the epochs {list(by_epoch)}")
    return chosen


def epoch_checkpoints(net: Net, epochs: Sequence[int]) -> dict[int, Path]:
    """{epoch: checkpoint at its end}, ascending, of the net's run, up to the net's own checkpoint.

    Args:
      net: of <run>/checkpoints/<step>; the run's metrics.jsonl says which step ended which epoch.
      epochs: those that are wanted; none: those of Fig. 4 that are there, and the last.

    Returns:
      Two or more; UserError for a net that is no run's, where an epoch is not kept, or where fewer than two are.
    """
    if not isinstance(net, nets.TrainedNet):
        raise UserError(
            f"net={net.name!r}: the kept epochs of a training run are needed, and this net has none; "
            "`zfjax.evolution.measure` compares any nets that you hold, {epoch: net}, and `--net module:NAME` takes an "
            "object that is, or returns, such"
        )
    ends = {record["epoch"]: record["step"] for record in TrainingLog(net.run).records() if record["kind"] == "epoch"}
    path = net.path
    kept = {epoch: path.parent / str(step) for epoch, step in sorted(ends.items()) if step <= int(path.name)}
    kept = {epoch: checkpoint for epoch, checkpoint in kept.items() if checkpoint.is_dir()}
    if missing := sorted(set(epochs) - set(kept)):
        raise UserError(f"epochs={missing}: {net.run} holds the checkpoints after the epochs {list(kept)}")
    wanted = set(epochs) or set(checkpoints.EVOLUTION_EPOCHS) | set(list(kept)[-1:])
    chosen = {epoch: checkpoint for epoch, checkpoint in kept.items() if epoch in wanted}
    if len(chosen) < 2:
        longer = command_line("python -m experiments.train_imagenet", "--resume", net.run, "--num-epochs", "N")
        raise UserError(
            f"epochs={list(chosen)}: two or more are needed; training keeps the checkpoints after the epochs "
            f"{', '.join(map(str, checkpoints.EVOLUTION_EPOCHS))} and the latest {checkpoints.LATEST}: train for "
            f"longer with `{longer}`"
        )
    return chosen
