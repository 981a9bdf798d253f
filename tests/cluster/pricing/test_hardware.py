import math
from statistics import NormalDist

import pytest

from fastformers.cluster.pricing.hardware import (
    GPUS,
    OTHER_EXTENSIONS_ERROR,
    SAME_EXTENSIONS_ERROR,
    SAME_GENERATION_ERROR,
    SAME_GPU_ERROR,
    UNKNOWN_ERROR,
    error_between,
    error_between_measurements,
    find_gpu_name,
    join_errors,
    learn_error,
    log_spread,
    plan_cpu,
)
from fastformers.cluster.pricing.prices import load_prices
from fastformers.inference.cpu import CPU_GENERATIONS


def core(generation, features=(), clock_ghz=None):
    return plan_cpu(generation=generation, features=features, clock_ghz=clock_ghz)


def test_speed_is_proportional_to_the_clock():
    slow, fast = core("milan", clock_ghz=2.0), core("milan", clock_ghz=3.0)
    for is_int8 in (True, False):
        ratio = fast.speed(is_int8=is_int8) / slow.speed(is_int8=is_int8)
        assert ratio == pytest.approx(1.5)


def test_int8_extensions_help_int8_bundles_alone():
    plain, vnni = core("skylake", clock_ghz=3.0), core("ice-lake", clock_ghz=3.0)
    assert vnni.speed(is_int8=True) > 1.5 * plain.speed(is_int8=True)
    assert vnni.speed(is_int8=False) == plain.speed(is_int8=False)


def test_zen_5_takes_the_cycles_it_was_measured_to_take():
    assert core("turin", clock_ghz=1.0).speed(is_int8=True) == pytest.approx(1.0)


def test_a_masked_extension_does_not_count():
    masked = core("emerald-rapids", ("avx2", "avx512", "vnni"), 3.0)
    assert masked.speed(is_int8=True) == core("ice-lake", clock_ghz=3.0).speed(is_int8=True)
    bare = core("emerald-rapids", ("avx2",), 3.0)
    assert bare.speed(is_int8=True) < masked.speed(is_int8=True)


@pytest.mark.parametrize(
    ("features", "taken_for"),
    [
        (("avx2",), "milan"),
        (("avx2", "avx512"), "skylake"),
        (("avx2", "avx512", "vnni", "amx"), "granite-rapids"),
        (("neon",), "neoverse-n1"),
        (("neon", "dotprod", "i8mm", "sve"), "neoverse-v2"),
        (("avx2", "avx512", "vnni"), "turin"),
        ((), "granite-rapids"),
        (("neon", "dotprod"), "neoverse-n1"),
        (("neon", "dotprod", "i8mm"), "neoverse-v2"),
    ],
)
def test_a_hidden_processor_is_taken_for_the_fastest_it_could_be(features, taken_for):
    guess = core(None, features)
    assert (guess.generation, guess.is_guess) == (taken_for, True)
    same = [
        core(name).speed(is_int8=True) / core(name).clock_ghz
        for name, generation in CPU_GENERATIONS.items()
        if features and generation.features == features
    ]
    assert all(guess.speed(is_int8=True) / guess.clock_ghz >= 0.999 * speed for speed in same)


def test_the_error_grows_with_the_distance():
    assert error_between(core("milan"), core("milan")) == SAME_GENERATION_ERROR
    assert error_between(core("rome"), core("milan")) == SAME_EXTENSIONS_ERROR
    assert error_between(core("milan"), core("turin")) == OTHER_EXTENSIONS_ERROR
    assert error_between(core("genoa"), core("turin")) == OTHER_EXTENSIONS_ERROR  # half the rate
    assert error_between(core("ice-lake"), core("turin")) == SAME_EXTENSIONS_ERROR
    assert error_between(core(None), core("turin")) == UNKNOWN_ERROR


def test_a_published_gpu_reaches_less_than_its_peak_and_less_on_narrow_matrices():
    for gpu in GPUS.values():
        float16_peak = gpu.int8_peak / 2
        assert 0.4 * float16_peak < gpu.multiply_adds_per_s(1024) < 0.6 * float16_peak
        assert gpu.multiply_adds_per_s(4096) == gpu.multiply_adds_per_s(1024)
        assert gpu.multiply_adds_per_s(256) == pytest.approx(gpu.multiply_adds_per_s(1024) / 4)


# BERT-large rows a second (MLPerf Inference 4.1, offline), dense int8 TOPS and watts of the makers'
# data sheets, copied from them once more.
PUBLISHED = {
    "T4-16GB": (None, 130, 70),
    "L4-24GB": (964, 242, 72),
    "A10G-24GB": (None, 140, 300),
    "L40S-48GB": (3422, 733, 350),
    "A100-40GB": (None, 624, 400),
    "A100-80GB": (None, 624, 400),
    "H100-80GB": (9110, 1979, 700),
    "H100-NVL-94GB": (None, 1671, 400),
    "H200-141GB": (None, 1979, 700),
    "RTX-PRO-6000-96GB": (None, 1000, 600),
}


def test_a_gpu_has_the_figures_that_were_published():
    assert {
        name: (gpu.bert_large_per_s, 2 * gpu.int8_peak / 1e12, gpu.watts)
        for name, gpu in GPUS.items()
    } == PUBLISHED


def test_a_gpu_known_by_its_peak_alone_reaches_the_least_share_that_one_did_and_is_less_sure():
    for gpu in GPUS.values():
        bert_large = 24 * 12 * 1024**2 * 180  # multiply-adds of a row
        is_published = gpu.bert_large_per_s is not None
        int8 = gpu.bert_large_per_s * bert_large if is_published else 0.43 * gpu.int8_peak
        assert gpu.multiply_adds_per_s(1024) == pytest.approx(int8 / 2)
        assert gpu.error == (2.0 if is_published else 2.5)
    assert SAME_GPU_ERROR == 1.15


def test_every_shipped_type_can_be_costed():
    for price in load_prices().values():
        assert price.cpu_generation in CPU_GENERATIONS
        assert 2 < price.clock_ghz < 5
        if price.gpu_count:
            assert price.gpu_name in GPUS
        assert ("arm64" in price.cpu) == CPU_GENERATIONS[price.cpu_generation].is_arm


def test_half_of_the_published_int8_is_what_a_card_did_in_float16():
    """BERT-base and the 4 x 312 student on an H200, 131 tokens a row, 2026-11-26."""
    h100 = GPUS["H100-80GB"]
    assert h100.multiply_adds_per_s(1024) == 9110 * 24 * 12 * 1024**2 * 180 / 2
    base, student = 12 * 12 * 768**2, 4 * (4 * 312**2 + 2 * 312 * 1200)
    assert 16_950 * 131 * base / h100.multiply_adds_per_s(768) == pytest.approx(1.02, abs=0.005)
    rate = 150_400 * 131 * student / h100.multiply_adds_per_s(312)
    assert rate == pytest.approx(1.19, abs=0.005)


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("Tesla T4", "T4-16GB"),
        ("NVIDIA L4", "L4-24GB"),
        ("NVIDIA A10G", "A10G-24GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("NVIDIA H200", "H200-141GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-96GB"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A10", None),
    ],
)
def test_a_card_is_known_by_the_name_that_the_driver_gives_it(card, name):
    assert find_gpu_name(card) == name


def test_an_error_factor_holds_in_95_of_100_cases():
    errors = NormalDist(0, log_spread(1.6))
    assert errors.cdf(math.log(1.6)) - errors.cdf(-math.log(1.6)) == pytest.approx(0.95, abs=1e-4)
    assert log_spread(1.0) == 0


def test_one_more_measurement_is_off_by_what_those_that_are_there_differ_by():
    assert error_between_measurements([3.0]) == 1.0
    assert error_between_measurements([3.0, 3.0]) == 1.0
    spread = math.log(2) / math.sqrt(2)  # the deviation of two that differ by a factor of 2
    assert error_between_measurements([3.0, 6.0]) == pytest.approx(math.exp(1.96 * spread), 1e-4)


def test_an_error_factor_is_judgment_until_machines_were_measured():
    assert learn_error(1.6, []) == 1.6
    assert learn_error(1.6, [1.02, 0.98, 1.01, 0.99] * 3) < 1.35
    assert learn_error(1.6, [1.0] * 12) == pytest.approx(math.sqrt(1.6))  # of 16, 4 were off
    assert learn_error(1.6, [1.9]) > 1.7
    assert learn_error(1.6, [1.9]) == pytest.approx(learn_error(1.6, [1 / 1.9]))
    assert learn_error(1.6, [1.05] * 400) == pytest.approx(1.05**1.96, rel=0.02)


def test_independent_errors_add_up_by_their_squares():
    assert join_errors(1.2) == pytest.approx(1.2)
    assert join_errors(1.2, 1.0) == pytest.approx(1.2)
    assert join_errors(1.2, 1.15) == pytest.approx(1.2583, abs=1e-4)
    assert join_errors() == 1.0


@pytest.mark.parametrize(
    ("generation", "units", "int8_of_unit", "gflops"),
    [
        ("neoverse-v2", 4, 32, 437),
        ("neoverse-v1", 4, 32, 437),
        ("neoverse-n2", 2, 32, 437),
        ("neoverse-n1", 2, 16, 257),
    ],
)
def test_arm_counts_what_published_kernels_reach_of_its_units(
    generation, units, int8_of_unit, gflops
):
    """The kernels were timed on a Neoverse V2 at 2.8 GHz; a Zen 5 at 4.1 GHz reached 920."""
    issued = 4 * int8_of_unit  # on the V2
    reached = gflops / (2 * 2.8 * issued)
    on_zen_5 = 920 / (2 * 4.1 * CPU_GENERATIONS["turin"].int8_per_cycle)
    expected = units * int8_of_unit * reached / on_zen_5
    assert CPU_GENERATIONS[generation].int8_per_cycle == pytest.approx(expected, abs=0.5)


def test_amx_counts_less_than_the_least_that_its_kernel_gained_over_vnni():
    """Nanoseconds of microsoft/onnxruntime#14042, with VNNI and with AMX."""
    gains = [307_137 / 138_481, 1_057_511 / 285_393, 3_784_750 / 890_701]
    vnni = CPU_GENERATIONS["ice-lake"].int8_per_cycle
    for name in ("sapphire-rapids", "emerald-rapids", "granite-rapids"):
        assert vnni < CPU_GENERATIONS[name].int8_per_cycle < min(gains) * vnni
