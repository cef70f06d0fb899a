"""What a request costs by its tokens: US dollars per million, for each kind of token, with tiers by size.

What a usage does not state, and the price depends on, makes the cost an interval: unknown is never zero. This module
knows nothing of models, lists or dates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, TypeAlias

from ..events import TokenUsage
from .exact import amount, exactly

__all__ = ["LEAST_PER_MILLION", "Amount", "Price"]

Amount: TypeAlias = Decimal | int | str

LEAST_PER_MILLION = Decimal("0.001")
"""Below this, a price of a million tokens is taken for one of a single token.

Of all list prices the least is 0.0011 US dollars for a million tokens, and the dearest token costs 0.0006.
"""
_MILLION = Decimal(1_000_000)
_ZERO = Decimal(0)
_INPUT = ("input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "audio_cache_read")
_OUTPUT = ("output", "audio_output", "reasoning")
_PER_TOKEN = (*_INPUT, *_OUTPUT)
_NOT_TEXT = ("audio_input", "audio_cache_read", "audio_output", "other_input")
_RANGES = ("other_input", "other_output")
_Span: TypeAlias = tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. Decimals, ints and strings of digits are taken; floats raise ``TypeError``.

    ``None`` means that such tokens cost what other ones of the same direction cost.

    * ``cache_read``, ``cache_write``: input tokens read from and written to the provider's cache. ``cache_write_1h``:
      writes that are kept for an hour; no usage says which writes were, so their cost lies between the two.
    * ``audio_input``, ``audio_output``: tokens of sound. ``audio_cache_read``: cached ones; without it they cost
      something from ``cache_read`` to ``audio_input``.
    * ``reasoning``: output tokens that nobody sees.
    * ``request``: US dollars for each request, not per million.
    * ``other_input``, ``other_output``: the least and the most that a token of a kind costs which no usage counts
      (images, video). They hold for requests that are not text alone, and for answers.
    * ``tiers``: prices by the size of the request, as ``{200_000: Price(...)}``: a request of more than 200,000 input
      tokens costs the other price, all its tokens, output too. At 200,000 it does not yet, at 200,001 it does. A
      tier's price is a whole one: what it does not name it does not have.

    Raises ``ValueError`` for a negative price, for one that looks like the price of a single token (below
    :data:`LEAST_PER_MILLION`; :meth:`per_token` takes such), and for tiers that make no sense.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    audio_cache_read: Decimal | None = None
    audio_output: Decimal | None = None
    reasoning: Decimal | None = None
    request: Decimal | None = None
    other_input: tuple[Decimal, Decimal] | None = None
    other_output: tuple[Decimal, Decimal] | None = None
    tiers: tuple[tuple[int, Price], ...] = ()

    def __init__(
        self,
        input: Amount,
        output: Amount,
        cache_read: Amount | None = None,
        cache_write: Amount | None = None,
        *,
        cache_write_1h: Amount | None = None,
        audio_input: Amount | None = None,
        audio_cache_read: Amount | None = None,
        audio_output: Amount | None = None,
        reasoning: Amount | None = None,
        request: Amount | None = None,
        other_input: tuple[Amount, Amount] | None = None,
        other_output: tuple[Amount, Amount] | None = None,
        tiers: Mapping[int, Price] | Iterable[tuple[int, Price]] = (),
    ) -> None:
        values: dict[str, Any] = {
            "input": input,
            "output": output,
            "cache_read": cache_read,
            "cache_write": cache_write,
            "cache_write_1h": cache_write_1h,
            "audio_input": audio_input,
            "audio_cache_read": audio_cache_read,
            "audio_output": audio_output,
            "reasoning": reasoning,
        }
        for name, value in values.items():
            if value is None and name in ("input", "output"):
                raise TypeError(f"{name} is money: a Decimal, an int or a string of digits, never None")
            _set(self, name, None if value is None else _per_million(name, amount(name, value)))
        _set(self, "request", None if request is None else amount("request", request))
        _set(self, "other_input", _span("other_input", other_input))
        _set(self, "other_output", _span("other_output", other_output))
        _set(self, "tiers", _tiers(tiers))

    @classmethod
    def per_token(cls, **amounts: Any) -> Price:
        """A price whose amounts are US dollars for one token; ``request`` and ``tiers`` are as elsewhere.

        Also the way to say a very small price that is meant.
        """
        scaled: dict[str, Any] = {}
        with exactly():
            for name, value in amounts.items():
                if name in _PER_TOKEN and value is not None:
                    scaled[name] = amount(name, value) * _MILLION
                elif name in _RANGES and value is not None:
                    scaled[name] = tuple(amount(name, each) * _MILLION for each in value)
        checked = {name: 1 if name in _PER_TOKEN else (1, 1) for name in scaled}
        price = cls(**{**amounts, **checked})
        for name, value in scaled.items():
            _set(price, name, value)
        return price

    def at(self, input_tokens: int | None) -> Price:
        """The price that holds for a request of so many input tokens."""
        chosen = self
        for above, price in self.tiers:
            if (input_tokens or 0) <= above:
                break
            chosen = price
        return chosen

    def times(self, factor: Decimal) -> Price:
        """The same price, every amount of it multiplied by ``factor``."""
        changes: dict[str, Any] = {}
        with exactly():
            for name in (*_PER_TOKEN, "request"):
                value = getattr(self, name)
                if value is not None:
                    changes[name] = value * factor
            for name in _RANGES:
                span = getattr(self, name)
                if span is not None:
                    changes[name] = (span[0] * factor, span[1] * factor)
        changes["tiers"] = tuple((above, price.times(factor)) for above, price in self.tiers)
        return self._with(changes)

    def text_only(self) -> Price:
        """What of this price matters to a request of text alone."""
        if not self.tiers and all(getattr(self, name) is None for name in _NOT_TEXT):
            return self
        return self._with(
            {
                **dict.fromkeys(_NOT_TEXT),
                "tiers": tuple((above, price.text_only()) for above, price in self.tiers),
            }
        )

    def with_tiers(self, tiers: Mapping[int, Price] | Iterable[tuple[int, Price]]) -> Price:
        """The same price up to the first tier. Raises ``ValueError`` for tiers that make no sense."""
        return self._with({"tiers": _tiers(tiers)})

    def of(self, usage: TokenUsage) -> Decimal:
        """The price of ``usage``, unknown counts taken as none. Where a usage leaves a choice, the dearest."""
        counts = (each.name for each in fields(usage) if each.name not in ("source", "requests"))
        known: dict[str, Any] = {name: getattr(usage, name) or 0 for name in counts}
        return self.bounds(replace(usage, **known))[1]

    def bounds(self, usage: TokenUsage) -> tuple[Decimal, Decimal]:
        """The least and the most that ``usage``, whose input and output are known, can have cost.

        They are the same number when the usage states everything that the price depends on.
        """
        price = self.at(usage.input)
        with exactly():
            low, high = price._input_bounds(usage)
            parts = [(usage.reasoning, _or(price.reasoning, price.output))]
            if price.audio_output is not None:
                parts.append((usage.audio_output, (price.audio_output, price.audio_output)))
            least, most = _parted(usage.output or 0, (price.output, price.output), parts, price.other_output)
            low, high = (low + least) / _MILLION, (high + most) / _MILLION
            if price.request is not None:
                low, high = low + price.request * usage.requests, high + price.request * usage.requests
        return low, high

    def most(self, input_tokens: int, output_tokens: int, requests: int = 1) -> Decimal:
        """The most that any usage of so many tokens, or fewer, can cost."""
        reached = [self, *(price for above, price in self.tiers if input_tokens > above)]
        with exactly():
            return max(
                (price._dearest(True) * input_tokens + price._dearest(False) * output_tokens) / _MILLION
                + (price.request or _ZERO) * requests
                for price in reached
            )

    def to_json(self) -> dict[str, Any]:
        """Amounts as strings; what is ``None`` is left out."""
        written: dict[str, Any] = {}
        for name in (*_PER_TOKEN, "request"):
            value = getattr(self, name)
            if value is not None:
                written[name] = str(value)
        for name in _RANGES:
            span = getattr(self, name)
            if span is not None:
                written[name] = [str(span[0]), str(span[1])]
        if self.tiers:
            written["tiers"] = [{"above": above, **price.to_json()} for above, price in self.tiers]
        return written

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Price:
        """The inverse of :meth:`to_json`. Raises ``ValueError``, ``TypeError`` and ``KeyError``."""
        price = cls(1, 1)
        values: dict[str, Any] = {
            name: amount(name, data[name], computed=True)
            for name in (*_PER_TOKEN, "request")
            if name in ("input", "output") or data.get(name) is not None
        }
        for name in _RANGES:
            if data.get(name) is not None:
                values[name] = _ordered(name, tuple(amount(name, each, computed=True) for each in data[name]))
        values["tiers"] = _tiers((tier["above"], cls.from_json(tier)) for tier in data.get("tiers", ()))
        return price._with(values)

    def _with(self, changes: Mapping[str, Any]) -> Price:
        # Past the checks: amounts that were checked once, multiplied or read back.
        made = object.__new__(type(self))
        for each in fields(self):
            _set(made, each.name, changes.get(each.name, getattr(self, each.name)))
        return made

    def _dearest(self, of_input: bool) -> Decimal:
        names = _INPUT if of_input else _OUTPUT
        rates: list[Decimal] = [rate for name in names if (rate := getattr(self, name)) is not None]
        span = self.other_input if of_input else self.other_output
        return max(rates if span is None else [*rates, span[1]])

    def _input_bounds(self, usage: TokenUsage) -> _Span:
        total = usage.input or 0
        plain = (self.input, self.input)
        read = _or(self.cache_read, self.input)
        written = _or(self.cache_write, self.input)
        if self.cache_write_1h is not None:
            written = min(written[0], self.cache_write_1h), max(written[1], self.cache_write_1h)
        parts = [(usage.cache_read, read), (usage.cache_write, written)]
        if self.audio_input is None or usage.audio_input == 0:
            return _parted(total, plain, parts, self.other_input)
        # Sound lies across the other parts, and no usage says how.
        sound = (self.audio_input, self.audio_input)
        cached_sound = sound if self.cache_read is None else _hull(read, sound)
        if self.audio_cache_read is not None:
            cached_sound = self.audio_cache_read, self.audio_cache_read
        written_sound = sound if self.cache_write is self.cache_write_1h is None else _hull(written, sound)
        uncounted = (usage.cache_read is None and (read, cached_sound) != (plain, sound)) or (
            usage.cache_write is None and (written, written_sound) != (plain, sound)
        )
        known = (usage.cache_read or 0) + (usage.cache_write or 0)
        rates = [(plain, sound), (read, cached_sound), (written, written_sound)]
        counts = [max(total - known, 0), usage.cache_read or 0, usage.cache_write or 0]
        if uncounted or self.other_input is not None or known > total:
            ranges = [rate for pair in rates for rate in pair] + ([self.other_input] if self.other_input else [])
            return total * min(low for low, _ in ranges), total * max(high for _, high in ranges)
        low = _mixed([(count, text[0], audio[0]) for count, (text, audio) in zip(counts, rates, strict=True)], usage, 1)
        high = _mixed(
            [(count, text[1], audio[1]) for count, (text, audio) in zip(counts, rates, strict=True)], usage, -1
        )
        return low, high


def _mixed(parts: Sequence[tuple[int, Decimal, Decimal]], usage: TokenUsage, sign: int) -> Decimal:
    """The least (``sign`` 1) or the most (-1) that parts of (tokens, rate of text, rate of sound) can cost."""
    cost = sum((count * text for count, text, _ in parts), _ZERO)
    left = usage.audio_input
    for count, text, sound in sorted(parts, key=lambda part: sign * (part[2] - part[1])):
        if left is None:
            taken = count if sign * (sound - text) < 0 else 0
        else:
            taken = min(count, left)
            left -= taken
        cost += taken * (sound - text)
    return cost


def _parted(
    total: int, rate: _Span, parts: Sequence[tuple[int | None, _Span]], other: _Span | None
) -> tuple[Decimal, Decimal]:
    """The least and the most that ``total`` tokens can cost, of which ``parts`` have rates of their own."""
    known = sum(count for count, _ in parts if count is not None)
    if known > total:  # parts that overlap: any token may be of any of them
        parts, known = [(None, span) for _, span in parts], 0
    rest = [rate, *(span for count, span in parts if count is None)]
    spans = [(total - known, (min(low for low, _ in rest), max(high for _, high in rest)))]
    spans += [(count, span) for count, span in parts if count is not None]
    if other is not None:
        spans = [(count, _hull(span, other)) for count, span in spans]
    return (
        sum((count * low for count, (low, _) in spans), _ZERO),
        sum((count * high for count, (_, high) in spans), _ZERO),
    )


def _hull(one: _Span, other: _Span) -> _Span:
    return min(one[0], other[0]), max(one[1], other[1])


def _or(rate: Decimal | None, other: Decimal) -> _Span:
    return (other, other) if rate is None else (rate, rate)


def _per_million(name: str, value: Decimal) -> Decimal:
    if 0 < value < LEAST_PER_MILLION:
        with exactly():
            meant = f"{(value * _MILLION).normalize():f}"
        raise ValueError(
            f"{name} is US dollars per million tokens, and {value:f} looks like the price of one token; write {meant}, "
            f'or say that it is meant: Price.per_token({name}="...")'
        )
    return value


def _span(name: str, value: tuple[Amount, Amount] | None) -> _Span | None:
    if value is None:
        return None
    return _ordered(name, tuple(_per_million(name, amount(name, each)) for each in value))


def _ordered(name: str, values: tuple[Decimal, ...]) -> _Span:
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{name} is two amounts, the least and the most, not {values}")
    return values[0], values[1]


def _tiers(tiers: Mapping[int, Price] | Iterable[tuple[int, Price]]) -> tuple[tuple[int, Price], ...]:
    listed = sorted(tiers.items()) if isinstance(tiers, Mapping) else list(tiers)
    last = 0
    for above, price in listed:
        if isinstance(above, bool) or not isinstance(above, int) or not last < above:
            raise ValueError(f"a tier begins above a whole number of input tokens, each above the last, not {above!r}")
        if not isinstance(price, Price) or price.tiers:
            raise ValueError(f"the tier above {above:,} tokens needs a Price without tiers of its own")
        last = above
    return tuple(listed)


def _set(price: Price, name: str, value: Any) -> None:
    object.__setattr__(price, name, value)
