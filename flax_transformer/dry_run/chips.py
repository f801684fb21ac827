"""What accelerators can do, as their makers publish it.

TPU: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "Key chip specifications". They give
the interconnect of a chip in both directions and over all its links together: v4 600 GB/s over 6
links, v5e 400 over 4, v5p 1200 over 6, v6e 800 over 4. The table below has one link in one
direction. Which axes close to a ring is in the same pages: v5e and v6e where 16 chips stand along
an axis, v4 and v5p where whole cubes of 4 x 4 x 4 do.
GPU: NVIDIA's data sheets of A100, H100, H200 and HGX B200 (SXM, dense bfloat16, without sparsity;
NVLink), whose GB of memory are 2^30 bytes; for the B200, of which they differ, bus and clock as
XLA's description of it has them (7.67 TB/s). Between hosts a network card for every GPU, as
NVIDIA's DGX have it: A100 200 Gb/s, the others 400 Gb/s (their user guides, "Network connections").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chip:
    """Peak figures of one chip, in units of FLOP/s, bytes and bytes/s."""

    name: str
    flops: float
    """Matrix products of bfloat16."""
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    """One way over one link to a neighbour; for GPUs all links together, which a switch joins."""
    ring: int = 0
    """Chips along an axis of a slice close to a ring where their number is a multiple of this; 0
    for GPUs, which have no axes."""
    network_bandwidth: float = 0.0
    """For GPUs: one way between hosts, through the network card beside each."""


_H200 = Chip("H200", 989e12, 141 * 2**30, 4800e9, 450e9, 0, 50e9)

# By `device_kind`, as jax gives it.
CHIPS = {
    "TPU v4": Chip("TPU v4", 275e12, 32 * 2**30, 1228e9, 50e9, ring=4),
    "TPU v5 lite": Chip("TPU v5e", 197e12, 16 * 2**30, 819e9, 50e9, ring=16),
    "TPU v5": Chip("TPU v5p", 459e12, 95 * 2**30, 2765e9, 100e9, ring=4),
    "TPU v6 lite": Chip("TPU v6e", 918e12, 32 * 2**30, 1638e9, 100e9, ring=16),
    "NVIDIA A100-SXM4-40GB": Chip("A100 40 GB", 312e12, 40 * 2**30, 1555e9, 300e9, 0, 25e9),
    "NVIDIA A100-SXM4-80GB": Chip("A100 80 GB", 312e12, 80 * 2**30, 2039e9, 300e9, 0, 25e9),
    "NVIDIA H100 80GB HBM3": Chip("H100", 989e12, 80 * 2**30, 3350e9, 450e9, 0, 50e9),
    "NVIDIA H200": _H200,
    "NVIDIA H200 141GB HBM3e": _H200,  # as XLA describes it
    "NVIDIA B200": Chip("B200", 2250e12, 178 * 2**30, 7672e9, 900e9, 0, 50e9),
}


def interconnect_bandwidth(chip: Chip, devices: Sequence[Any]) -> float:
    """Returns the bytes/s that the worst placed of `devices` can send, over all its links at once.

    The network between hosts of GPUs is no such link: see `Chip.network_bandwidth`.

    Along an axis of the slice a chip has two links if the axis closes to a ring. If not, the chip
    at its end has a single link, and all chips wait for it. 0 for one device.
    """
    if len(devices) == 1:
        return 0.0
    if not chip.ring:
        return chip.link_bandwidth
    sizes = [len(set(axis)) for axis in zip(*(device.coords for device in devices), strict=True)]
    closed = [size % chip.ring == 0 for size in sizes]
    if len([size for size in sizes if size > 1]) > 2:  # three axes close together or not at all
        closed = [all(closed)] * len(sizes)
    links = [0 if size == 1 else 2 if ring else 1 for size, ring in zip(sizes, closed, strict=True)]
    return sum(links) * chip.link_bandwidth
