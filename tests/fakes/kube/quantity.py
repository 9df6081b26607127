"""resource.Quantity: parse, compare, show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

QUANTITY = re.compile(r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$")
_SUFFIXES = {
    **{"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3)},
    **{"M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18)},
    **{"Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50)},
}
_BINARY = ("Ti", "Gi", "Mi", "Ki")


def parse(text: str) -> Decimal:
    """`500m` is 0.5, `1Gi` is 1073741824. Raises ValueError."""
    match = QUANTITY.match(text)
    if match is None:
        raise ValueError(text)
    number, suffix = match.groups()
    if re.fullmatch(r"[eE][-+]?[0-9]+", suffix):
        return Decimal(number + suffix)
    if suffix not in _SUFFIXES:
        raise ValueError(text)
    return Decimal(number) * _SUFFIXES[suffix]


def show(value: Decimal, like: str) -> str:
    """A quantity of the resource `like`: cpu in millis where needed, memory and storage in binary units."""
    if value != value.to_integral_value():
        return f"{int((value * 1000).to_integral_value(rounding='ROUND_CEILING'))}m"
    number = int(value)
    if "memory" in like or "storage" in like:
        for suffix in _BINARY:
            unit = int(_SUFFIXES[suffix])
            if number and number % unit == 0:
                return f"{number // unit}{suffix}"
    return str(number)


def add(*maps: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """The sum by name."""
    result: dict[str, Decimal] = {}
    for each in maps:
        for name, value in each.items():
            result[name] = result.get(name, Decimal(0)) + value
    return result


def listing(values: Mapping[str, Decimal], names: Iterable[str]) -> str:
    """`limits.cpu=500m,pods=1`, as quota messages have it."""
    return ",".join(f"{name}={show(values.get(name, Decimal(0)), name)}" for name in sorted(names))
