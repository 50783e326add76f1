"""Tables of numbers in text, as meshes are labelled: 778 vertices in a twentieth of Python's time."""

from typing import no_type_check

import numba as nb
import numpy as np
from jaxtyping import Float

_SEPARATOR, _NUMBER, _ROW_ENDS = 1, 2, 3
_POWERS = 10.0 ** np.arange(23)  # exact in float64
_FULL = np.uint64(1_000_000_000_000_000_000)


def _kinds(separators: bytes, row_ends: bytes) -> np.ndarray:
    """What each byte means; those that mean nothing are damage."""
    kinds = np.zeros(256, np.uint8)
    for meaning, members in ((_SEPARATOR, separators), (_NUMBER, b"+-.0123456789eE"), (_ROW_ENDS, row_ends)):
        kinds[np.frombuffer(members, np.uint8)] = meaning
    return kinds


LINES = _kinds(b" \t\r", b"\n")
"""A row is a line of numbers with spaces between."""
ANY_SPACE = _kinds(b" \t\r\n", b"")
"""All the text is one row."""
JSON_LISTS = _kinds(b" \t\r\n,[", b"]")
"""A row is a JSON list of numbers, however deep it lies."""


def parse_rows(text: bytes, kinds: np.ndarray, rows: int, width: int) -> Float[np.ndarray, "r w"] | None:
    """Exactly `rows` rows of `width` numbers each, empty rows apart; None where the text is anything else.

    Numbers are those of JSON with at most 19 digits that count, right to 2 units in float64's last place.
    """
    table = np.empty((rows, width))
    whole = _parse(np.frombuffer(text, np.uint8), kinds, _POWERS, table)
    return table if whole else None


@nb.njit(nogil=True, cache=True)
@no_type_check
def _parse(text: np.ndarray, kinds: np.ndarray, powers: np.ndarray, table: np.ndarray) -> bool:
    rows, width = table.shape
    row, column, at, end = 0, 0, 0, len(text)
    while at < end:
        kind = kinds[text[at]]
        if kind == _SEPARATOR:
            at += 1
        elif kind == _ROW_ENDS:
            at += 1
            if column == width:
                row, column = row + 1, 0
            elif column:
                return False
        elif kind == _NUMBER:
            if row == rows or column == width:
                return False
            negative = text[at] == 45
            if negative or text[at] == 43:
                at += 1
            mantissa, exponent, first = np.uint64(0), 0, at
            while at < end and 48 <= text[at] <= 57:
                # Beyond 19 digits a number of 64 bit is full, and float64 holds 17.
                if mantissa < _FULL:
                    mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - 48)
                else:
                    exponent += 1
                at += 1
            digits = at - first
            if at < end and text[at] == 46:
                at += 1
                first = at
                while at < end and 48 <= text[at] <= 57:
                    if mantissa < _FULL:
                        mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - 48)
                        exponent -= 1
                    at += 1
                digits += at - first
            if not digits:
                return False
            if at < end and (text[at] == 101 or text[at] == 69):
                at += 1
                down = at < end and text[at] == 45
                if down or (at < end and text[at] == 43):
                    at += 1
                first, power = at, 0
                while at < end and 48 <= text[at] <= 57:
                    power = min(10 * power + (text[at] - 48), 9999)
                    at += 1
                if at == first:
                    return False
                exponent += -power if down else power
            if at < end and kinds[text[at]] == _NUMBER:  # 1.2.3, 1-2
                return False
            value = float(mantissa)
            if -23 < exponent < 0:
                value /= powers[-exponent]
            elif exponent:
                value *= 10.0**exponent
            if not np.isfinite(value):
                return False
            table[row, column] = -value if negative else value
            column += 1
        else:
            return False
    if column == width:  # the last row of a file whose last line does not end
        row, column = row + 1, 0
    return row == rows and column == 0
