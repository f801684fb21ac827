"""The least time that a step can take on a chip: that of its busiest resource.

It is the roofline of Williams et al. 2009. Products, memory and interconnect are assumed to work
at their peak and all at the same time, so a real step is slower.
"""

from dataclasses import dataclass

from flax_transformer.dry_run.chips import Chip, interconnect_bandwidth
from flax_transformer.dry_run.compilation import Step


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step."""

    products: float
    """All matrix products of the program, at the chip's bfloat16 peak."""
    memory: float
    """All bytes moved, at the memory's bandwidth."""
    interconnect: float
    """All bytes that collectives make a chip send, over all its links at once."""

    network: float = 0.0
    """Of these, all that go from one host of GPUs to another, through its network card."""

    @property
    def seconds(self) -> float:
        return max(self.products, self.memory, self.interconnect, self.network)

    @property
    def bound(self) -> str:
        """The resource that takes longest."""
        parts = {
            "matrix products": self.products,
            "memory": self.memory,
            "interconnect": self.interconnect,
            "network": self.network,
        }
        return max(parts, key=lambda name: parts[name])


def roofline(step: Step, chip: Chip) -> Roofline:
    """Returns the roofline of a step that has been compiled."""
    sent = sum(each.sent for each in step.collectives.values())
    crossing = sum(each.crossing for each in step.collectives.values())
    links = interconnect_bandwidth(chip, list(step.mesh.devices.flat))
    return Roofline(
        products=step.traced_flops / step.mesh.size / chip.flops,
        memory=step.bytes_moved / chip.memory_bandwidth,
        interconnect=sent / links if links else 0.0,
        network=crossing / chip.network_bandwidth if crossing else 0.0,
    )


def utilisation(step: Step, chip: Chip, seconds: float) -> float:
    """Returns model FLOPs utilisation.

    That is the matrices' share of what the chips could do in `seconds`.
    """
    return step.model_flops.matrices / (seconds * chip.flops * step.mesh.size)
