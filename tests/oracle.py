"""The pipeline in plain Python, on lists: slow, obvious, and what Spark has to equal.

Times are integers of one unit (worlds.py says hours); foreign keys may be None or negative.
"""

from typing import NamedTuple

_BITS_64 = (1 << 64) - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


class Event(NamedTuple):
    """One event; `nodes` holds one node per foreign key."""

    id: int
    time: int
    nodes: tuple[int | None, ...]
    numbers: tuple[float, ...] = ()
    codes: tuple[int, ...] = ()


def newest(events, queries, *, position, fanout, seed):
    """Map each (node, anchor) to its newest `fanout` visible events, newest first, if any."""
    drawn = {}
    for node, anchor in queries:
        visible = [e for e in events if e.nodes[position] == node and e.time <= anchor]
        visible.sort(key=lambda event: (-event.time, draw(seed, event.id), event.id))
        if visible:
            drawn[node, anchor] = visible[:fanout]
    return drawn


def frontier(drawn, *, position):
    """The distinct (node, anchor) that drawn events point to by the foreign key at `position`."""
    reached = {
        (event.nodes[position], anchor) for (_, anchor), events in drawn.items() for event in events
    }
    return {(node, anchor) for node, anchor in reached if node is not None and node >= 0}


def draw(seed, event_id):
    """Spark's xxhash64(seed, event_id) of two bigints, as a signed number."""
    value = _hash_long(event_id, _hash_long(seed, 42))
    return value - (1 << 64) if value >> 63 else value


def _hash_long(value, seed):
    mixed = _rotate((value & _BITS_64) * _P2, 31) * _P1 & _BITS_64
    state = (_rotate(((seed + _P5 + 8) & _BITS_64) ^ mixed, 27) * _P1 + _P4) & _BITS_64
    state = (state ^ state >> 33) * _P2 & _BITS_64
    state = (state ^ state >> 29) * _P3 & _BITS_64
    return state ^ state >> 32


def _rotate(value, bits):
    value &= _BITS_64
    return (value << bits | value >> 64 - bits) & _BITS_64
