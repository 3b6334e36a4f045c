# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""`Pump.rows` as machine code: the same bytes for the same rows, tested against it.

A rule is (place, kind, replacement). Kinds: SHOWN puts the replacement (a length and its bytes) in
the place of any value; EMAIL and PARTIAL mask ASCII values here; everything else, and every value
that is not ASCII, is asked of `value(place, raw)`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memchr, memcpy

ASKED, SHOWN, EMAIL, PARTIAL = range(4)

cdef enum:
    _ASKED = 0
    _SHOWN = 1
    _EMAIL = 2
    _PARTIAL = 3

cdef struct Rule:
    Py_ssize_t place
    int kind
    const unsigned char* shown
    Py_ssize_t size

cdef struct Out:
    unsigned char* data
    Py_ssize_t size
    Py_ssize_t room


cdef inline long read32(const unsigned char* at) noexcept:
    cdef unsigned int number = (
        (<unsigned int>at[0] << 24) | (<unsigned int>at[1] << 16)
        | (<unsigned int>at[2] << 8) | <unsigned int>at[3]
    )
    return <int>number


cdef inline void write32(unsigned char* at, long number) noexcept:
    at[0] = (number >> 24) & 0xFF
    at[1] = (number >> 16) & 0xFF
    at[2] = (number >> 8) & 0xFF
    at[3] = number & 0xFF


cdef int reserve(Out* out, Py_ssize_t more) except -1:
    cdef unsigned char* grown
    cdef Py_ssize_t room = out.room
    if out.size + more <= room:
        return 0
    while room < out.size + more:
        room *= 2
    grown = <unsigned char*>PyMem_Realloc(out.data, room)
    if grown == NULL:
        raise MemoryError()
    out.data = grown
    out.room = room
    return 0


cdef inline int put(Out* out, const unsigned char* data, Py_ssize_t size) except -1:
    reserve(out, size)
    memcpy(out.data + out.size, data, size)
    out.size += size
    return 0


cdef inline bint ascii(const unsigned char* value, Py_ssize_t size) noexcept:
    cdef Py_ssize_t at
    for at in range(size):
        if value[at] >= 0x80:
            return False
    return True


cdef inline bint hideable(unsigned char c) noexcept:
    """Letters, digits and control characters; ASCII's punctuation and the blank are shown."""
    return (
        c < 0x20 or c == 0x7F or (0x30 <= c <= 0x39) or (0x41 <= c <= 0x5A) or (0x61 <= c <= 0x7A)
    )


cdef int hidden(Out* out) except -1:
    reserve(out, 7)
    write32(out.data + out.size, 3)
    memcpy(out.data + out.size + 4, b"***", 3)
    out.size += 7
    return 0


cdef int email(Out* out, const unsigned char* value, Py_ssize_t size) except -1:
    """schemas.masking.masks.email, of ASCII."""
    cdef Py_ssize_t start = 0, end = size, at, local, domain, first
    while start < end and value[start] == 0x20:
        start += 1
    while end > start and value[end - 1] == 0x20:
        end -= 1
    at = end - 1
    while at >= start and value[at] != 0x40:
        at -= 1
    if at < start:
        return hidden(out)
    local, domain = at - start, end - at - 1
    if domain == 0 or memchr(value + at + 1, 0x2E, domain) == NULL:
        return hidden(out)
    first = 1 if local > 1 else 0
    reserve(out, 4 + first + 4 + domain)
    write32(out.data + out.size, first + 4 + domain)
    out.size += 4
    put(out, value + start, first)
    put(out, b"***@", 4)
    put(out, value + at + 1, domain)
    return 0


cdef int partial(Out* out, const unsigned char* value, Py_ssize_t size) except -1:
    """schemas.masking.masks.partial, of ASCII."""
    cdef Py_ssize_t at, count = 0
    cdef unsigned char* target
    for at in range(size):
        count += hideable(value[at])
    if count < 8:
        return hidden(out)
    count -= 4
    reserve(out, 4 + size)
    write32(out.data + out.size, size)
    target = out.data + out.size + 4
    for at in range(size):
        if hideable(value[at]) and count > 0:
            count -= 1
            target[at] = 0x2A
        else:
            target[at] = value[at]
    out.size += 4 + size
    return 0


def mask_rows(bytes data, list rules, value):
    """Whole DataRow messages, masked. Raises ValueError for what is none."""
    cdef const unsigned char* source = <const unsigned char*>PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data), at = 0, after, kept, place, number, count
    cdef Py_ssize_t size, began, index, total = len(rules)
    cdef Out out
    cdef Rule* rule
    cdef Rule* first = <Rule*>PyMem_Malloc(max(total, 1) * sizeof(Rule))
    if first == NULL:
        raise MemoryError()
    out.data = NULL
    try:
        for index in range(total):
            where, kind, shown = rules[index]
            first[index].place = where
            first[index].kind = kind
            # The list keeps them alive.
            first[index].shown = <const unsigned char*>PyBytes_AS_STRING(shown)
            first[index].size = PyBytes_GET_SIZE(shown)
        out.size, out.room = 0, end + 4096
        out.data = <unsigned char*>PyMem_Malloc(out.room)
        if out.data == NULL:
            raise MemoryError()
        while at < end:
            if end - at < 7 or source[at] != 0x44:
                raise ValueError("a row is cut")
            after = at + 1 + read32(source + at + 1)
            if after > end or after < at + 7:
                raise ValueError("a row is cut")
            count = (source[at + 5] << 8) | source[at + 6]
            began = out.size
            kept, place, number = at, at + 7, 0
            for index in range(total):
                rule = &first[index]
                if rule.place >= count:
                    raise ValueError("a row has fewer columns than its description")
                while number < rule.place:
                    if place + 4 > after:
                        raise ValueError("a row is cut")
                    size = read32(source + place)
                    place += 4 + (size if size > 0 else 0)
                    number += 1
                if place + 4 > after:
                    raise ValueError("a row is cut")
                size = read32(source + place)
                number += 1
                if size < 0:
                    place += 4
                    continue
                if place + 4 + size > after:
                    raise ValueError("a row is cut")
                put(&out, source + kept, place - kept)
                if rule.kind == _SHOWN:
                    put(&out, rule.shown, rule.size)
                elif rule.kind == _EMAIL and ascii(source + place + 4, size):
                    email(&out, source + place + 4, size)
                elif rule.kind == _PARTIAL and ascii(source + place + 4, size):
                    partial(&out, source + place + 4, size)
                else:
                    asked = value(rule.place, data[place + 4 : place + 4 + size])
                    put(
                        &out,
                        <const unsigned char*>PyBytes_AS_STRING(asked),
                        PyBytes_GET_SIZE(asked),
                    )
                place += 4 + size
                kept = place
            put(&out, source + kept, after - kept)
            write32(out.data + began + 1, out.size - began - 1)
            at = after
        return PyBytes_FromStringAndSize(<char*>out.data, out.size)
    finally:
        PyMem_Free(first)
        if out.data != NULL:
            PyMem_Free(out.data)
