"""Chance as a pure function of (seed, column, key), so that rows do not depend on partitions.

Keys are whole numbers, in arrays that broadcast against each other; every draw has their shape.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014): the
# increment and the finaliser of SplitMix64.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_BITS_OF_FRACTION = 53  # a float64 holds this many bits exactly


def uniform(seed: int, column: str, *keys: npt.ArrayLike) -> Floats:
    """Numbers in [0, 1), one per key."""
    bits = _hashed(seed, column, *keys) >> np.uint64(64 - _BITS_OF_FRACTION)
    return bits.astype(np.float64) * 2.0**-_BITS_OF_FRACTION


def normal(seed: int, column: str, *keys: npt.ArrayLike) -> Floats:
    """Standard normal numbers, one per key (Box and Muller)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(seed, f"{column}/radius", *keys)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, f"{column}/angle", *keys))


def integer(seed: int, column: str, count: int, *keys: npt.ArrayLike) -> Ints:
    """Whole numbers in [0, count), all equally likely, one per key."""
    return np.floor(uniform(seed, column, *keys) * count).astype(np.int64)


def weighted(draws: Floats, weights: Floats) -> Ints:
    """Positions in the last axis of `weights`, chosen with those chances by draws in [0, 1).

    `weights` are non-negative, with at least one above zero in each row; a weight of zero is
    never chosen.
    """
    reached = np.cumsum(weights, axis=-1)
    chosen = (reached <= draws[..., None] * reached[..., -1:]).sum(axis=-1)
    return np.asarray(chosen, dtype=np.int64)


def _hashed(seed: int, column: str, *keys: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    salt = hashlib.blake2b(f"{seed}/{column}".encode(), digest_size=8).digest()
    state = np.full(1, int.from_bytes(salt, "little"), dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        for key in keys:
            state = _mixed(state + np.asarray(key).astype(np.uint64) * _INCREMENT + _INCREMENT)
    return state


def _mixed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits = (bits ^ (bits >> _SHIFTS[0])) * _MULTIPLIERS[0]
    bits = (bits ^ (bits >> _SHIFTS[1])) * _MULTIPLIERS[1]
    return bits ^ (bits >> _SHIFTS[2])
