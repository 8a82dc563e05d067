"""A line for people, put together without allocating anything, as what printf does might."""

from libc.stdint cimport uint64_t

cdef enum:
    LONGEST_LINE = 1024

cdef struct Line:
    char text[LONGEST_LINE]
    int length          # no NUL behind

cdef extern from *:
    """
    static const char DIGITS[] = "0123456789abcdef";
    static const char *const UNITS[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    """
    const char *DIGITS
    const char *UNITS[7]

# What does not fit is left out.
cdef inline void put(Line *line, const char *text) noexcept nogil:
    while text[0] and line.length < LONGEST_LINE:
        line.text[line.length] = text[0]
        line.length += 1
        text += 1

cdef inline void put_number(Line *line, uint64_t number, int base) noexcept nogil:
    cdef char digits[24]
    cdef int at = sizeof(digits) - 1
    digits[at] = 0
    while True:
        at -= 1
        digits[at] = DIGITS[number % <uint64_t> base]
        number //= <uint64_t> base
        if number == 0:
            break
    put(line, digits + at)

# 1,234,567
cdef inline void put_grouped(Line *line, uint64_t number) noexcept nogil:
    if number < 1000:
        put_number(line, number, 10)
        return
    put_grouped(line, number // 1000)
    put(line, b",")
    put_number(line, number // 100 % 10, 10)
    put_number(line, number // 10 % 10, 10)
    put_number(line, number % 10, 10)

# Bytes in the unit that leaves at least 1 and less than 1024 of it, to two places at most.
cdef inline void put_size(Line *line, uint64_t n) noexcept nogil:
    cdef int unit = 0
    cdef uint64_t hundredths = n * 100
    # Rounded at the last of the units only, and 1024 of one that it comes to is 1 of the next.
    while unit < 6 and n >> (10 * unit) >= 1024:
        unit += 1
    if unit:
        hundredths = <uint64_t> (<double> n / <double> (<uint64_t> 1 << (10 * unit)) * 100 + 0.5)
        if hundredths >= 102400 and unit < 6:
            hundredths, unit = 100, unit + 1
    put_number(line, hundredths // 100, 10)
    hundredths %= 100
    if hundredths:
        put(line, b".")
        put_number(line, hundredths // 10, 10)
        if hundredths % 10:
            put_number(line, hundredths % 10, 10)
    put(line, UNITS[unit])
