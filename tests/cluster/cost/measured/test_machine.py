"""What a profile says of the machine, and what it must not say."""

import getpass
import json
import os
import socket
from pathlib import Path

from fastformers.cluster.cost.measured.machine import MeasuredMachine, describe_machine
from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.inference.cpu import read_cpu_numbers, read_isa

GRAVITON = """processor\t: 0
BogoMIPS\t: 2000.00
Features\t: fp asimd aes crc32 asimdhp cpuid asimddp sve i8mm bf16 sb dit
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd4f
CPU revision\t: 1
"""
XEON = """vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Processor
stepping\t: 8
flags\t\t: fpu vme smep smap avx2 avx512f avx512_vnni amx_bf16 amx_tile amx_int8
"""


def test_a_machine_is_described_by_what_decides_its_speed():
    machine = describe_machine(int8_gops=900.0, float_gops=200.0)
    assert machine.num_cpus == os.cpu_count()
    assert 0 < machine.memory_gib < 10_000
    assert {"fastformers", "onnxruntime", "numpy", "tokenizers"} <= set(machine.versions)
    assert from_plain(MeasuredMachine, json.loads(json.dumps(to_plain(machine)))) == machine


def test_nothing_is_said_of_whose_the_machine_is():
    text = json.dumps(to_plain(describe_machine()))
    for secret in (socket.gethostname(), getpass.getuser(), str(Path.cwd()), str(Path.home())):
        assert json.dumps(secret) not in text
    assert "/" not in text


def test_instruction_sets_are_named_as_the_kernel_does(tmp_path):
    cpuinfo = tmp_path / "proc" / "cpuinfo"
    cpuinfo.parent.mkdir()
    cpuinfo.write_text(XEON)
    amx = ("amx_bf16", "amx_tile", "amx_int8")
    assert read_isa(tmp_path) == ("avx2", "avx512f", "avx512_vnni", *amx)
    assert read_cpu_numbers(tmp_path)["model"] == "143"
    cpuinfo.write_text(GRAVITON)
    assert read_isa(tmp_path) == ("asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16")
    assert read_cpu_numbers(tmp_path)["CPU part"] == "0xd4f"
