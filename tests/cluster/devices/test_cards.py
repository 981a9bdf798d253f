"""The GPUs of a machine, read from a fake tree of the kernel's files."""

import pytest

from fastformers.cluster.devices.cards import Card, discover_cards, find_own_card

ADDRESSES = ("0000:C1:00.0", "0000:41:00.0", "0000:81:00.0")


@pytest.fixture
def tree(tmp_path):
    """A machine with three GPUs; the firmware does not say where the last one is."""
    for address, uuid, node in zip(ADDRESSES, "cab", ("1", "0", "-1"), strict=True):
        proc = tmp_path / "proc/driver/nvidia/gpus" / address
        proc.mkdir(parents=True)
        (proc / "information").write_text(f"Model: \t NVIDIA L4\nGPU UUID: \t GPU-{uuid}5a2\n")
        device = tmp_path / "sys/bus/pci/devices" / address.lower()
        device.mkdir(parents=True)
        (device / "numa_node").write_text(f"{node}\n")
    (tmp_path / "proc/driver/nvidia/gpus/other").mkdir()
    return tmp_path


def test_cards_are_numbered_by_their_address(tree):
    assert discover_cards(3, tree) == (
        Card(index=0, uuid="GPU-a5a2", numa_node=0),
        Card(index=1, uuid="GPU-b5a2", numa_node=None),
        Card(index=2, uuid="GPU-c5a2", numa_node=1),
    )


def test_without_a_driver_there_are_as_many_as_ray_counts(tmp_path, tree):
    assert discover_cards(2, tmp_path / "nothing") == (Card(index=0), Card(index=1))
    assert discover_cards(4, tree)[3] == Card(index=3)
    assert discover_cards(0, tmp_path / "nothing") == ()


@pytest.mark.parametrize(
    ("visible", "index"),
    [("1", 1), ("2,0", 2), (" 0 ", 0), (None, 0), ("GPU-c5", 2), ("7", None), ("MIG-1-2", None)],
)
def test_a_process_finds_the_card_that_it_sees_first(tree, visible, index):
    card = find_own_card(visible, discover_cards(3, tree))
    assert (None if card is None else card.index) == index


def test_a_process_that_sees_no_card_has_none(tree):
    assert find_own_card("", discover_cards(3, tree)) is None
