"""The law of a masking rate that differs from example to example: `Masking(Uniform(0, 1))`.

A law is given by its inverse CDF, `quantile`: with u uniform in [0, 1) the rate is quantile(u). The u of the rows of a
batch are stratified, see `jaxmlm.masking.strata`.
"""

import ast
import math
from dataclasses import dataclass, is_dataclass
from statistics import NormalDist
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmlm.checks import POSITIVE, check_constant
from jaxmlm.errors import InputError


@runtime_checkable
class Law(Protocol):
    """The distribution of an example's masking rate: any frozen dataclass with these four members."""

    @property
    def low(self) -> float | int:
        """Infimum of the rates, at least 0."""
        ...

    @property
    def high(self) -> float | int:
        """Maximum of the rates, at most 1."""
        ...

    @property
    def mean(self) -> float:
        """Expected rate."""
        ...

    def quantile(self, u: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The rates at these points of [0, 1] (the inverse CDF, so it never falls); also called under `jax.jit`."""
        ...


Rate = float | Law
"""What `Masking.rate` takes: one rate for all examples, or a law of them."""


@dataclass(frozen=True)
class Uniform:
    """All rates between two alike: masked diffusion's linear schedule (Sahoo et al. 2024, arXiv 2406.07524).

    >>> Uniform(0.2, 0.6).mean, round(float(Uniform(0.2, 0.6).quantile(jnp.float32(0.5))), 3)
    (0.4, 0.4)
    """

    low: float | int = 0.0
    """Infimum of the rates."""
    high: float | int = 1.0
    """Maximum of the rates."""

    def __post_init__(self) -> None:
        _check_ends("Uniform", self.low, self.high)

    @property
    def mean(self) -> float:
        """Expected rate."""
        return (self.low + self.high) / 2

    def quantile(self, u: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The inverse CDF."""
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class Cosine:
    """Low rates more often than high ones: 1 - cos(pi u / 2) between `low` and `high`.

    MaskGIT's cosine (Chang et al. 2022, arXiv 2202.04200) with masked and visible tokens exchanged, as BabyLM's masked
    diffusion models are trained. From 0 to 1 the density is 2 / (pi sqrt(r (2 - r))), the mean 1 - 2 / pi = 0.363.

    >>> round(Cosine().mean, 3), round(float(Cosine().quantile(jnp.float32(2 / 3))), 3)
    (0.363, 0.5)
    """

    low: float | int = 0.0
    """Infimum of the rates."""
    high: float | int = 1.0
    """Maximum of the rates."""

    def __post_init__(self) -> None:
        _check_ends("Cosine", self.low, self.high)

    @property
    def mean(self) -> float:
        """Expected rate."""
        return self.low + (self.high - self.low) * (1 - 2 / math.pi)

    def quantile(self, u: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The inverse CDF."""
        return self.low + (self.high - self.low) * (1 - jnp.cos(jnp.pi / 2 * u))


@dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm: the density is proportional to 1 / rate.

    >>> round(LogUniform(0.01).mean, 3), round(float(LogUniform(0.01).quantile(jnp.float32(0.5))), 3)
    (0.215, 0.1)
    """

    low: float | int = 0.001
    """Minimum of the rates, above 0."""
    high: float | int = 1.0
    """Maximum of the rates."""

    def __post_init__(self) -> None:
        _check_ends("LogUniform", self.low, self.high)
        if not self.low > 0:
            raise InputError(f"masking.rate: the low end of LogUniform must be above 0; got {self.low:g}: try 0.001")

    @property
    def mean(self) -> float:
        """Expected rate."""
        return (self.high - self.low) / math.log(self.high / self.low)

    def quantile(self, u: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The inverse CDF."""
        return self.low * jnp.exp(math.log(self.high / self.low) * u)


@dataclass(frozen=True)
class Normal:
    """A normal distribution cut to (0, 1].

    >>> law = Normal(0.15, 0.1)
    >>> round(law.mean, 3), round(float(law.quantile(jnp.float32(0.5))), 3)
    (0.164, 0.158)
    """

    center: float | int = 0.4
    """Mean of the normal distribution before it is cut."""
    sd: float | int = 0.1
    """Standard deviation of the normal distribution before it is cut."""
    low = 0.0
    high = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.center <= 1 and POSITIVE.holds(self.sd)):
            raise InputError(
                "masking.rate: the center of Normal must be above 0 and at most 1, its sd above 0; got "
                f"{self.center:g} and {self.sd:g}"
            )

    @property
    def mean(self) -> float:
        """Expected rate, of the distribution as it is cut."""
        normal = NormalDist(self.center, self.sd)
        below, above = self._cut
        return self.center + self.sd**2 * (normal.pdf(0.0) - normal.pdf(1.0)) / (above - below)

    def quantile(self, u: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The inverse CDF."""
        below, above = self._cut
        drawn = self.center + self.sd * jax.scipy.special.ndtri(below + (above - below) * u)
        return jnp.clip(drawn, 0.0, 1.0)

    @property
    def _cut(self) -> tuple[float, float]:
        """The CDF of the normal distribution at 0 and at 1."""
        normal = NormalDist(self.center, self.sd)
        return normal.cdf(0.0), normal.cdf(1.0)


@dataclass(frozen=True)
class Choice:
    """One of several rates.

    >>> law = Choice((0.15, 0.5), (3, 1))
    >>> law.mean, law.quantile(jnp.array([0.7, 0.8])).tolist()
    (0.2375, [0.15000000596046448, 0.5])
    """

    rates: tuple[float | int, ...] = (0.15, 0.5)
    """The rates."""
    weights: tuple[float | int, ...] = ()
    """How often each of the rates is drawn, in proportion; empty: all alike."""

    def __post_init__(self) -> None:
        if not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise InputError(f"masking.rate: the rates of Choice must be above 0 and at most 1; got {self.rates}")
        if len(set(self.rates)) < len(self.rates):
            raise InputError(f"masking.rate: the rates of Choice must differ; got {self.rates}")
        if self.weights and len(self.weights) != len(self.rates):
            raise InputError(
                f"masking.rate: Choice has {len(self.rates)} rates and {len(self.weights)} weights: give one weight "
                "for each rate"
            )
        if not all(0 < weight < math.inf for weight in self.weights):
            raise InputError(f"masking.rate: the weights of Choice must be above 0; got {self.weights}")

    @property
    def low(self) -> float | int:
        """The smallest of the rates."""
        return min(self.rates)

    @property
    def high(self) -> float | int:
        """The largest of the rates."""
        return max(self.rates)

    @property
    def mean(self) -> float:
        """Expected rate."""
        return float(sum(rate * share for rate, share in self._shares))

    def quantile(self, u: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The inverse CDF."""
        rates, shares = (np.array(column) for column in zip(*self._shares, strict=True))
        below = jnp.asarray(np.cumsum(shares)[:-1], jnp.float32)
        return jnp.asarray(rates, jnp.float32)[jnp.searchsorted(below, u, side="right")]

    @property
    def _shares(self) -> list[tuple[float, float]]:
        """The rates from low to high, each with its probability."""
        weights = self.weights or (1.0,) * len(self.rates)
        return sorted((rate, weight / sum(weights)) for rate, weight in zip(self.rates, weights, strict=True))


LAWS: dict[str, type] = {law.__name__: law for law in (Uniform, Cosine, LogUniform, Normal, Choice)}
"""The laws of this module, by name."""


def parse_rate(word: str) -> Rate:
    """The rate that a word of the command line means: a number, or one of `LAWS` as a config file writes it.

    Args:
        word: as "0.4" or "Uniform(0, 1)".

    Raises:
        InputError: it is neither, or the law refuses its arguments.

    >>> parse_rate("0.4"), parse_rate("Uniform(0, high=0.5)"), parse_rate("Cosine")
    (0.4, Uniform(low=0, high=0.5), Cosine(low=0.0, high=1.0))
    """
    try:
        return float(word)
    except ValueError:
        pass
    wrong = InputError(
        f"masking.rate is {word!r}: give a number, or a law in quotes: {', '.join(LAWS)}, as 'Uniform(0, 1)'"
    )
    try:
        call = ast.parse(word.strip(), mode="eval").body
        name = call.func if isinstance(call, ast.Call) else call
        law = LAWS[getattr(name, "id", "")]
        values = [ast.literal_eval(one) for one in getattr(call, "args", [])]
        named = {str(one.arg): ast.literal_eval(one.value) for one in getattr(call, "keywords", [])}
        return law(*values, **named)
    except InputError:
        raise
    except (SyntaxError, ValueError, KeyError, TypeError) as error:
        raise wrong from error


def has_density(law: Law) -> bool:
    """Whether a law draws every rate between its ends, and not a few of them only.

    >>> has_density(Uniform()), has_density(Choice())
    (True, False)
    """
    with jax.ensure_compile_time_eval():  # a masking may be made within a jitted function
        found = np.asarray(law.quantile(jnp.linspace(0.05, 0.95, 19)))
    return len(np.unique(found)) == len(found)


def check_rate(rate: Any) -> None:
    """Refuse a rate that a masking cannot work with.

    Args:
        rate: what a configuration gives as `masking.rate`.

    Raises:
        InputError: a number or a law outside (0, 1], or what is neither.

    """
    if isinstance(rate, float | int) and not isinstance(rate, bool):
        if not 0 < rate <= 1:
            raise InputError(f"masking.rate must be above 0 and at most 1; got {rate:g}: try 0.4")
        return
    name = type(rate).__name__
    if not isinstance(rate, Law) or not is_dataclass(rate) or type(rate).__hash__ is None:
        raise InputError(
            f"masking.rate is a {name}: give a number, a law such as Uniform(0, 1), or a frozen dataclass with low, "
            "high, mean and quantile(u)"
        )
    check_constant("masking.rate", rate)
    if not 0 <= rate.low <= rate.mean <= rate.high <= 1 or not rate.high > 0:
        raise InputError(
            f"masking.rate: {name} must have 0 <= low <= mean <= high <= 1; got low {rate.low:g}, mean {rate.mean:g}, "
            f"high {rate.high:g}"
        )


def _check_ends(name: str, low: float | int, high: float | int) -> None:
    if not 0 <= low < high <= 1:  # so written, nan is refused too
        raise InputError(
            f"masking.rate: {name} must lie within (0, 1], with low below high; got {low:g} to {high:g}: try "
            f"{name}(0, 1)"
        )
