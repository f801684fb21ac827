"""How a training step scales over TPU chips that are not there: a dry run for every slice.

    python -m benchmarks.train_step.scaling --config configs/wmt_base.py --rows-per-chip 64

Every chip has the same number of rows, so that without collectives the time would stay the same.
Needs the TPU compiler, pip install '.[tpu]', and no TPU. Points stand in the record, a folder of
benchmarks/records/scaling/, as soon as they are known and are not compiled again; a picture lies
beside them. Times are the roofline's: the least that a step can take, not measured.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.recording import RECORDS, measurement, read_record, write_record
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.config.json import config_to_dict
from flax_transformer.config.shipped import load_config_file
from flax_transformer.dry_run.topology import prepare_environment
from flax_transformer.dry_run.tpu_topology import require_compiler
from flax_transformer.errors import UserError

PACKAGES = ("jax", "flax", "libtpu")
NOTE = "dry runs: roofline times of compiled steps, nothing was executed"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compiles one training step for slices of 1 to 256 chips."""

    config: Path
    rows_per_chip: int = 64
    """Rows of a step on each chip."""
    topologies: tuple[str, ...] = ("v5e:1x1", "v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16")
    name: str | None = None
    """Name of the record; by default that of the config file."""
    records: Path = RECORDS / "scaling"
    """Folder of all such records."""


def measure(config: Config, rows_per_chip: int, topology: str) -> dict[str, Any]:
    """Returns what a dry run finds for one slice."""
    from flax_transformer.dry_run.chips import CHIPS
    from flax_transformer.dry_run.compilation import TooLarge, compile_step
    from flax_transformer.dry_run.roofline import roofline, utilisation
    from flax_transformer.dry_run.topology import topology_devices

    devices = topology_devices(topology)
    chip = CHIPS[devices[0].device_kind]
    rows = rows_per_chip * len(devices)
    batch = dataclasses.replace(config.batch, rows=rows)
    step = compile_step(dataclasses.replace(config, batch=batch), devices)
    point: dict[str, Any] = {"chips": len(devices), "rows": rows}
    if isinstance(step.memory, TooLarge):
        return point | {"fits": False, "memory_bytes": step.memory.needed}
    least = roofline(step, chip)
    return point | {
        "fits": step.memory.total <= chip.memory,
        "memory_bytes": step.memory.total,
        "bytes_moved": step.bytes_moved,
        "collectives": {k: dataclasses.asdict(each) for k, each in step.collectives.items()},
        "seconds": dataclasses.asdict(least),
        "bound": least.bound,
        "target_tokens_per_second": step.target_tokens / least.seconds,
        "mfu": utilisation(step, chip, least.seconds),
    }


def open_record(path: Path, arguments: Arguments, config: Config) -> dict[str, Any]:
    """Returns the measurement so far, or a new one; raises `UserError` for other settings."""
    settings = config_to_dict(config) | {"rows_per_chip": arguments.rows_per_chip}
    for section in ("data", "decoding", "optimizer"):
        settings.pop(section)
    settings["batch"].pop("rows")
    figures = {"config": json.loads(json.dumps(settings)), "points": {}}
    new = measurement(PACKAGES, NOTE, figures)
    for old in read_record(path):
        same = old["figures"]["config"] == figures["config"]
        if same and all(old["versions"][name] == new["versions"][name] for name in PACKAGES):
            return old
        raise UserError(f"{path} has other settings or versions; name another with --name")
    return new


def table(points: list[dict[str, Any]]) -> str:
    """Writes one line for every slice."""
    lines = [
        f"{'chips':>5}{'rows':>8}{'memory':>11}{'products':>11}{'traffic':>11}{'links':>11}"
        f"{'least step':>12}{'tokens/s':>14}{'MFU':>7}"
    ]
    for point in points:
        head = f"{point['chips']:>5}{point['rows']:>8}{point['memory_bytes'] / 2**30:>7.2f} GiB"
        if "seconds" not in point:
            lines.append(head + "  does not fit")
            continue
        parts = point["seconds"]
        times = [parts["products"], parts["memory"], parts["interconnect"]]
        lines.append(
            head
            + "".join(f"{1e3 * seconds:>8.2f} ms" for seconds in times)
            + f"{1e3 * max(times):>9.2f} ms{point['target_tokens_per_second']:>14,.0f}"
            + f"{point['mfu']:>7.1%}"
        )
    return "\n".join(lines)


def draw(points: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws the parts of a step's least time over the number of chips."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    known = [point for point in points if "seconds" in point]
    chips = [point["chips"] for point in known]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    names = {"products": "matrix products", "memory": "memory", "interconnect": "interconnect"}
    for part, name in names.items():
        axes.plot(chips, [1e3 * point["seconds"][part] for point in known], "o-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(chips, [str(number) for number in chips])
    axes.set(xlabel="chips", ylabel="least time per step, ms", ylim=(0, None), title=title)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words, Arguments(config=tyro.MISSING))
    require_compiler()
    prepare_environment()  # before jax is loaded, which reads it
    config = load_config_file(arguments.config)
    name = arguments.name or arguments.config.stem
    path = arguments.records / name / "record.json"
    record = open_record(path, arguments, config)
    known = record["figures"]["points"]
    for topology in arguments.topologies:
        if topology not in known:
            print(f"compiling for {topology}...", flush=True)
            known[topology] = measure(config, arguments.rows_per_chip, topology)
            write_record(path, [record])
    points = sorted(known.values(), key=lambda point: point["chips"])
    print(table(points))
    title = f"{name}, {arguments.rows_per_chip} rows per chip"
    draw(points, title, path.with_name("roofline.png"))


if __name__ == "__main__":
    run_command(main)
