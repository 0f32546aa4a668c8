"""A number as printed in a paper: with as many digits as its standard error supports."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.tables import TableCell

ERROR_DIGITS = 2
"""Significant digits of a standard error; its last digit is also the last place of the value."""
MOST_PLACES = 6
HUGE = 1e6
"""From this value on a number is written with a power of ten, because its digits would not fit a column."""


@dataclass(frozen=True)
class Quantity:
    """A value with its standard error, in the unit that is printed.

    Attributes:
        value: a finite number.
        stderr: its standard error; None if there is none.
        usual_places: digits after the decimal point if there is no standard error to determine them.
        printed: the digits of a number copied from elsewhere; empty for one of ours.
    """

    value: float
    stderr: float | None = None
    usual_places: int = 2
    printed: str = ""

    def cell(self, *, is_best: bool = False, note: str = "", cites: str = "") -> TableCell:
        """Formats it as a cell of a paper's table.

        Args:
            is_best: whether it is the best of its column or not significantly different from it.
            note: text of its footnote; empty for none.
            cites: the key of the paper that it is taken from; empty for one of ours.
        """
        power = f"e{self.exponent}" if self.exponent else ""
        mark = "best" if is_best else ""
        return TableCell(f"{self.mantissa}{power}", note, mark, cites, self.error)

    @property
    def places(self) -> int:
        """Digits after the decimal point, of both value and standard error."""
        if self.stderr is None or not math.isfinite(self.stderr) or self.stderr <= 0:
            return self._places_without_error
        return min(MOST_PLACES, max(0, ERROR_DIGITS - 1 - math.floor(math.log10(self.stderr))))

    @property
    def mantissa(self) -> str:
        """The value's digits, without its power of ten."""
        if self.printed:
            return self.printed
        if self.exponent:
            return f"{self.value:.2e}".partition("e")[0]
        return f"{self.value:.{self.places}f}"

    @property
    def exponent(self) -> int:
        """The power of ten; 0 if the number is written without one."""
        if self.printed or abs(self.value) < HUGE:
            return 0
        return int(f"{self.value:.2e}".partition("e")[2])

    @property
    def error(self) -> str:
        """The digits of the standard error, with the same power of ten; empty if there is none."""
        if self.stderr is None or not math.isfinite(self.stderr):
            return ""
        if self.exponent:
            return f"{self.stderr / 10.0**self.exponent:.2f}"
        return f"{self.stderr:.{self.places}f}"

    @property
    def _places_without_error(self) -> int:
        if self.value == 0 or abs(self.value) >= 10.0**-self.usual_places:
            return self.usual_places
        # Print two significant digits of a number below the last place, instead of a wrong 0.
        return min(MOST_PLACES, 1 - math.floor(math.log10(abs(self.value))))
