"""The GPUs of a machine, and which memory they are near to, as the kernel's files say.

    /proc/driver/nvidia, /sys/bus/pci -> [cards] -> Card -> core sets of GPU actors

The driver lists the GPUs that this container may use, and the kernel the NUMA node of each PCI
device. Where one of them says nothing (no driver, a virtual machine that hides its topology), GPUs
are numbers without a place. This module starts no CUDA and knows nothing of actors or Ray.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastformers.inference.cpu import kernel_text

# An identifier in CUDA_VISIBLE_DEVICES: a number in the order of PCI addresses, or a UUID.
VISIBLE_CARDS = "CUDA_VISIBLE_DEVICES"
_ADDRESS = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_UUID = re.compile(r"^GPU UUID:\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU.

    Attributes:
        index: Place in the order of PCI addresses, which is NVML's, too.
        uuid: Its UUID, such as "GPU-5a2c..."; None where it is not known.
        numa_node: Node whose memory and cores are near to it; None where it is not known.
    """

    index: int
    uuid: str | None = None
    numa_node: int | None = None


def discover_cards(num_cards: int, root: Path = Path("/")) -> tuple[Card, ...]:
    """The GPUs of this machine, at least as many as Ray counts.

    Args:
        num_cards: GPUs that Ray says the machine has.
        root: Directory that holds `sys` and `proc`; a fake tree in tests.
    """
    listed = (root / "proc/driver/nvidia/gpus").glob("*")
    addresses = [path.name for path in listed if _ADDRESS.fullmatch(path.name)]
    cards = [
        Card(index=index, uuid=_read_uuid(root, address), numa_node=_read_node(root, address))
        for index, address in enumerate(sorted(addresses, key=str.lower))
    ]
    return (*cards, *(Card(index=index) for index in range(len(cards), num_cards)))


def find_own_card(visible: str | None, cards: Iterable[Card]) -> Card | None:
    """The card that a process sees first.

    Args:
        visible: Value of CUDA_VISIBLE_DEVICES, as Ray sets it for an actor; None where it is unset.
        cards: The GPUs of the machine.

    Returns:
        The card; None where no such card is known, as for a part of a GPU (MIG).
    """
    first = ("0" if visible is None else visible).split(",")[0].strip()
    for card in cards:
        if first == str(card.index) or (first and (card.uuid or "").startswith(first)):
            return card
    return None


def number_cards_by_address() -> None:
    """Make CUDA number the GPUs as NVML and this module do, before it starts in this process."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"


def _read_uuid(root: Path, address: str) -> str | None:
    found = _UUID.search(kernel_text(root / "proc/driver/nvidia/gpus" / address / "information"))
    return None if found is None else found[1]


def _read_node(root: Path, address: str) -> int | None:
    """The NUMA node of a PCI device; the kernel says -1 where its firmware names none."""
    text = kernel_text(root / "sys/bus/pci/devices" / address.lower() / "numa_node").strip()
    return int(text) if text.isdigit() else None
