"""Where the processes of a run find each other (see run.py)."""

from dataclasses import dataclass

from flax_transformer.config.setting_types import require_types
from flax_transformer.errors import require, require_positive


@dataclass(frozen=True, kw_only=True)
class HostsConfig:
    """Which of a run's processes this is; TPU pods, Slurm and Open MPI are found without it.

    Not part of `Config`: a run may go on with any number of processes.
    """

    coordinator: str | None = None
    """Address and port of process 0, such as 10.0.0.1:1234, the same for every process."""
    count: int | None = None
    """Number of processes, one or more on each host."""
    index: int | None = None
    """Which of them this is, counted from 0."""
    patience: int = 60
    """Seconds that the processes wait for one another at the start, and later for a sign of life,
    before all of them end."""

    def __post_init__(self):
        require_types(self, "hosts")
        require_positive(self, "hosts", "patience")
        given = [value is not None for value in (self.coordinator, self.count, self.index)]
        require(
            all(given) or not any(given),
            "hosts.coordinator, hosts.count and hosts.index go together: give all three, or none "
            "on one machine, a TPU pod, Slurm or Open MPI",
        )
        if self.coordinator is None or self.count is None or self.index is None:
            return
        host, _, port = self.coordinator.rpartition(":")
        require(
            bool(host) and port.isdecimal() and 0 < int(port) < 2**16,
            f"hosts.coordinator is '{self.coordinator}', but must be ADDRESS:PORT, with a port "
            "from 1 to 65535",
        )
        require(
            0 <= self.index < self.count,
            f"hosts.index is {self.index}, but must be from 0 to {self.count - 1} with "
            f"hosts.count {self.count}",
        )
