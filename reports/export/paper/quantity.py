"""A number as a paper prints it: as many digits as its standard error supports."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.tables import TableCell

ERROR_DIGITS = 2
"""Significant digits of a standard error; its last one is the last place of the value too."""
MOST_PLACES = 6
HUGE = 1e6
"""From here on a number is written with a power of ten: no column is wide enough for its digits."""


@dataclass(frozen=True)
class Quantity:
    """A value with its standard error, in the unit that is printed.

    Attributes:
        value: finite.
        stderr: its standard error; None where there is none.
        usual_places: digits after the point where no standard error says how many.
        printed: the digits of a number that was printed elsewhere; empty for one of ours.
    """

    value: float
    stderr: float | None = None
    usual_places: int = 2
    printed: str = ""

    def cell(self, *, is_best: bool = False, note: str = "", cites: str = "") -> TableCell:
        """It as a cell of a paper's table.

        Args:
            is_best: the best of its column, or not to be told from it.
            note: what a footnote says about it; empty for none.
            cites: the key of the paper it is taken from; empty for a number of ours.
        """
        power = f"e{self.exponent}" if self.exponent else ""
        mark = "best" if is_best else ""
        return TableCell(f"{self.mantissa}{power}", note, mark, cites, self.error)

    @property
    def places(self) -> int:
        """Digits after the point, of both value and standard error."""
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
        """The power of ten; 0 where the number is written out."""
        if self.printed or abs(self.value) < HUGE:
            return 0
        return int(f"{self.value:.2e}".partition("e")[2])

    @property
    def error(self) -> str:
        """The standard error's digits, in the same power of ten; empty where there is none."""
        if self.stderr is None or not math.isfinite(self.stderr):
            return ""
        if self.exponent:
            return f"{self.stderr / 10.0**self.exponent:.2f}"
        return f"{self.stderr:.{self.places}f}"

    @property
    def _places_without_error(self) -> int:
        if self.value == 0 or abs(self.value) >= 10.0**-self.usual_places:
            return self.usual_places
        # Two digits of what is smaller than the last place, instead of a 0 that it is not.
        return min(MOST_PLACES, 1 - math.floor(math.log10(abs(self.value))))
