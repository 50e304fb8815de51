"""What the fit engine has to reach, and lines that say whether it does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One number with its limits.

    Attributes
    ----------
    name : str
    value : float
    low, high : float
        The value must lie between them, both included.
    unit : str
    aim : float
        A value at most this is what one would like; infinite where there is no such wish.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str = ""
    aim: float = float("inf")

    @property
    def met(self) -> bool:
        """Whether the number is within its limits."""
        return self.low <= self.value <= self.high

    def line(self) -> str:
        """``met`` or ``NOT MET``, the name, the value and its limits."""
        infinite = float("inf")
        if self.low == -infinite:
            limits = f"at most {self.high:g}"
        elif self.high == infinite:
            limits = f"at least {self.low:g}"
        else:
            limits = f"{self.low:g} to {self.high:g}"
        unit = f" {self.unit}" if self.unit else ""
        wish = ""
        if self.aim != infinite:
            wish = f"; aim {self.aim:g}: {'met' if self.value <= self.aim else 'not met'}"
        return f"{'met' if self.met else 'NOT MET'}: {self.name}: {self.value:.3g}{unit} ({limits}{wish})"


def at_most(name: str, value: float, high: float, unit: str = "", aim: float = float("inf")) -> Bar:
    """A number that must not be larger."""
    return Bar(name, float(value), -float("inf"), high, unit, aim)


def at_least(name: str, value: float, low: float, unit: str = "") -> Bar:
    """A number that must not be smaller."""
    return Bar(name, float(value), low, float("inf"), unit)
