"""Arithmetic of money: exact, whatever decimal context the application has set.

This module knows nothing of tokens, models or lists.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation, localcontext

__all__ = ["amount", "exactly", "seconds_of"]

MOST_DIGITS = 40
"""Most digits behind the point of an amount."""
MOST = Decimal(10**12)
"""No amount of US dollars that is written here is as large as this."""

MOST_COMPUTED = Decimal(10**24)
"""Nor is a product of two of them as large as this."""

# Wide enough for any product and sum of amounts within the bounds above; one that does not fit raises, none is rounded.
_EXACT = Context(prec=400, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])
# A context of its own makes no difference to what a string of digits is read as, but to what happens when it is none.
_READING = Context(prec=400, traps=[InvalidOperation])


def exactly() -> AbstractContextManager[Context]:
    """A context in which sums, products and divisions by powers of ten are exact. It holds for this thread and task."""
    return localcontext(_EXACT)


def amount(what: str, value: Decimal | int | str, *, computed: bool = False) -> Decimal:
    """``value`` as US dollars. Raises ``TypeError`` for a float, ``ValueError`` for what is no amount.

    ``computed``: a product of amounts, which may have the digits of both.
    """
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise TypeError(f"{what} is money: a Decimal, an int or a string of digits, never a {type(value).__name__}")
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"{what} is a number such as 2.50, not {_short(value)}")
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError(f"{what} is less than {MOST:,}")
    try:
        read = Decimal(value, _READING)
    except InvalidOperation:
        raise ValueError(f"{what} is a number such as 2.50, not {_short(value)}") from None
    if not read.is_finite() or (read.is_signed() and read != 0):
        raise ValueError(f"{what} must be a finite amount of zero or more, not {_short(value)}")
    exponent = read.as_tuple().exponent
    most, digits = (MOST_COMPUTED, 3 * MOST_DIGITS) if computed else (MOST, MOST_DIGITS)
    if read >= most or not isinstance(exponent, int) or exponent < -digits:
        raise ValueError(f"{what} is less than {most:,} and has at most {digits} decimals, unlike {_short(value)}")
    return Decimal(0) if read == 0 else read


def _short(value: Decimal | int | str) -> str:
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # an int of more digits than Python writes
        return "that"
    return text if len(text) <= 60 else text[:59] + "…"


def seconds_of(seconds: float) -> Decimal:
    """``seconds`` to ten decimals, which is finer than any clock; the shortest repr keeps sums free of binary dust."""
    return Decimal(repr(round(float(seconds), 10)))
