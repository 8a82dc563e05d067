"""Sizes of the command line: `memlimits.sizes`."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memlimits.sizes import format_exact, format_size, parse_size

MEMORY = 1000 * 1024**3 + 1

UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def parse(text):
    return parse_size(text, lambda: MEMORY)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 536_870_912),
        ("2GB", 2_000_000_000),
        ("1.5GiB", 1_610_612_736),
        ("1048576", 1_048_576),
        ("50%", MEMORY // 2),
        ("12.5%", MEMORY // 8),
        ("100%", MEMORY),
        ("100.0%", MEMORY),
        ("0%", 0),
        ("0", 0),
        ("0.0KB", 0),
        ("007MiB", 7 * 2**20),
        ("1B", 1),
        ("1b", 1),
        ("3kb", 3_000),
        ("3KIB", 3_072),
        ("3mIb", 3 * 2**20),
        ("3tB", 3 * 10**12),
        ("1TiB", 2**40),
        # Rounded down to whole bytes.
        ("0.1KiB", 102),
        ("0.0009KB", 0),
        ("0.9999999999999999999MB", 999_999),
        ("9223372036854775807", 2**63 - 1),
        ("8388607.9999999999999999TiB", 2**63 - 1),
        # As Docker, systemd and Kubernetes have them.
        ("512M", 512 * 2**20),
        ("512m", 512 * 2**20),
        ("1.5g", 1536 * 2**20),
        ("3k", 3 * 2**10),
        ("1T", 2**40),
        ("8Ki", 8 * 2**10),
        ("8Gi", 8 * 2**30),
        ("1 GiB", 2**30),
        ("50 %", MEMORY // 2),
        ("infinity", 2**63),
        ("Infinity", 2**63),
        ("max", 2**63),
    ],
)
def test_size(text, size):
    assert parse(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "MiB",
        "%",
        "-1",
        "-5%",
        "+5MiB",
        "nan",
        "inf",
        "maximum",
        "infinityB",
        "1  GiB",
        "1\tGiB",
        "1048576 ",
        "8iB",
        "8P",
        "1e9",
        "0x10",
        "1_000",
        "1,000",
        "1,5GiB",
        "1.2.3MB",
        ".5GiB",
        "5.GiB",
        " 512MiB",
        "512MiB ",
        "512MiB\n",
        "1.5",
        "1.5B",
        "8XB",
        "8PiB",
        "8MiBB",
        "8Mbit",
        "50%%",
        "50%MiB",
        "MiB512",
        "100.01%",
        "120%",
        "9223372036854775808",
        "8388608TiB",
        "1" * 20,
        "1" * 5000,
        "\u0661MiB",  # ARABIC-INDIC DIGIT ONE
        "1\u212aB",  # KELVIN SIGN, whose lower case is k
    ],
)
def test_what_is_no_size_shows_the_form(text):
    with pytest.raises(ValueError, match=r"512MiB, 2GB, 1\.5GiB, 50% \(of the memory size\)"):
        parse(text)


@pytest.mark.parametrize("text", ["1", "512", "001024", "1048575"])
def test_a_small_number_without_a_unit_asks_what_is_meant(text):
    number = int(text)
    with pytest.raises(ValueError, match=f"{text} bytes, or MiB.* {number}B or {number}MiB"):
        parse(text)
    assert parse(f"{number}B") == number
    assert parse(f"{number}MiB") == number << 20
    assert parse("1048576") == 1 << 20


def test_memory_size_is_read_for_a_percentage_only():
    def unavailable():
        raise AssertionError

    assert parse_size("2GB", unavailable) == 2 * 10**9
    with pytest.raises(AssertionError):
        parse_size("2%", unavailable)


cases = st.sampled_from([str.lower, str.upper, str.swapcase, str])


@given(st.integers(0, 2**22), st.sampled_from(sorted(UNITS)), cases)
def test_whole_numbers_of_any_unit(number, unit, case):
    assume(unit or not 0 < number < 1 << 20)
    for space in ("", " ") if unit else ("",):
        assert parse(f"{number}{space}{case(unit)}") == number * UNITS[unit]


@given(
    st.integers(0, 2**22),
    st.text("0123456789", min_size=1, max_size=19),
    st.sampled_from([unit for unit in UNITS if len(unit) > 1]),
    cases,
)
def test_fractions_are_exact_and_rounded_down(whole, fraction, unit, case):
    exact = Fraction(f"{whole}.{fraction}") * UNITS[unit]
    assert parse(f"{whole}.{fraction}{case(unit)}") == exact.__floor__()


@given(st.integers(0, 99), st.text("0123456789", min_size=1, max_size=19))
def test_percentages_are_exact_and_rounded_down(whole, fraction):
    exact = Fraction(f"{whole}.{fraction}") * MEMORY / 100
    assert parse(f"{whole}.{fraction}%") == exact.__floor__()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1000 * 1024, "1000 KiB"),
        (2**20 - 1, "1 MiB"),
        (200 * 2**20, "200 MiB"),
        (2**30 + 2**28 + 2**26, "1.31 GiB"),
        (2**40, "1 TiB"),
        (2**50, "1 PiB"),
        (2**63 - 1, "8 EiB"),
    ],
)
def test_format(size, text):
    assert format_size(size) == text


@given(st.integers(0, 2**49))
def test_a_formatted_size_reads_back_as_nearly_the_same(size):
    assert abs(parse(format_size(size).replace(" ", "")) - size) <= size * Fraction(1, 198) + 1


@pytest.mark.parametrize(
    ("size", "text"),
    [(1023, "1023 B"), (1024, "1 KiB (1,024 bytes)"), (10**9, "953.67 MiB (1,000,000,000 bytes)")],
)
def test_exact_format(size, text):
    assert format_exact(size) == text


@pytest.mark.parametrize("text", ["9" * 20, "1" + "0" * 30 + "MiB", "10000000TiB"])
def test_what_is_too_large_says_so(text):
    with pytest.raises(ValueError, match=r"more than 2\*\*63 - 1 bytes") as caught:
        parse_size(text, int)
    assert "infinity or max" in str(caught.value)
