import pytest

from fastformers.inference.cpu import CPU_GENERATIONS, FEATURES, X86, read_processor


def write_cpuinfo(root, **fields):
    (root / "proc").mkdir()
    lines = "".join(f"{name}\t: {value}\n" for name, value in fields.items())
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\n{lines}\nprocessor\t: 1\nmodel\t: 1\n")


def x86(vendor, family, model, *, stepping=1, flags=""):
    return {
        "vendor_id": vendor,
        "cpu family": family,
        "model": model,
        "model name": "A Processor",
        "stepping": stepping,
        "flags": flags,
    }


@pytest.mark.parametrize(
    ("vendor", "family", "model", "stepping", "generation"),
    [
        ("GenuineIntel", 6, 85, 4, "skylake"),
        ("GenuineIntel", 6, 85, 7, "cascade-lake"),
        ("GenuineIntel", 6, 106, 6, "ice-lake"),
        ("GenuineIntel", 6, 143, 8, "sapphire-rapids"),
        ("GenuineIntel", 6, 207, 2, "emerald-rapids"),
        ("AuthenticAMD", 25, 1, 1, "milan"),
        ("AuthenticAMD", 25, 17, 1, "genoa"),
        ("AuthenticAMD", 26, 2, 1, "turin"),
        ("AuthenticAMD", 23, 1, 1, None),
        ("GenuineIntel", 25, 1, 1, None),
    ],
)
def test_generation_is_told_by_number(tmp_path, vendor, family, model, stepping, generation):
    write_cpuinfo(tmp_path, **x86(vendor, family, model, stepping=stepping))
    assert read_processor(tmp_path).generation == generation


def test_features_are_those_of_the_flags(tmp_path):
    flags = "fpu avx avx2 avx512f avx512_vnni avx512_bf16"
    write_cpuinfo(tmp_path, **x86("GenuineIntel", 6, 207, flags=flags))
    processor = read_processor(tmp_path)
    assert processor.features == ("avx2", "avx512", "vnni")
    assert processor.model == "A Processor"


def test_arm_is_known_by_its_part(tmp_path):
    write_cpuinfo(tmp_path, **{"Features": "fp asimd asimddp i8mm sve", "CPU part": "0xd40"})
    processor = read_processor(tmp_path)
    assert (processor.generation, processor.features) == (
        "neoverse-v1",
        ("neon", "dotprod", "i8mm", "sve"),
    )


def test_a_machine_without_cpuinfo_is_not_known(tmp_path):
    processor = read_processor(tmp_path)
    assert (processor.generation, processor.features) == (None, ())


def test_no_processor_is_of_two_generations():
    """Each generation has numbers of its own, so the order of the table does not matter."""
    taken = {}
    for name, generation in CPU_GENERATIONS.items():
        numbers = generation.numbers
        if not isinstance(numbers, X86):
            assert taken.setdefault(numbers, name) == name
            continue
        for model in numbers.models:
            for stepping in numbers.steppings:
                key = (numbers.vendor, numbers.family, model, stepping)
                assert taken.setdefault(key, name) == name
    assert set(taken.values()) == set(CPU_GENERATIONS)


@pytest.mark.parametrize("name", CPU_GENERATIONS)
def test_every_generation_is_recognized_and_has_features_that_a_flag_shows(tmp_path, name):
    generation = CPU_GENERATIONS[name]
    numbers = generation.numbers
    if isinstance(numbers, X86):
        stepping = numbers.steppings[-1]
        fields = x86(numbers.vendor, numbers.family, numbers.models[-1], stepping=stepping)
    else:
        fields = {"CPU part": numbers}
    write_cpuinfo(tmp_path, **fields)
    assert read_processor(tmp_path).generation == name
    assert set(generation.features) <= set(FEATURES)
    assert generation.is_arm == ("neon" in generation.features)
