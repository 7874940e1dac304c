"""A limit on how many threads do something at a time."""

import threading
import time

import pytest

from livedex.encoders.places import Places
from livedex.encoders.port import EncodingStopped
from support.waiting import until


def never() -> bool:
    """No stop."""
    return False


def soon(seconds: float = 10.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def test_who_waits_has_its_turn_before_who_comes_back() -> None:
    """However soon that is: a place is handed over, in the order in which they came."""
    places, order = Places(1), []

    def once() -> None:
        with places.one(soon(), never):
            order.append("waiting")

    with places.one(soon(), never):
        thread = threading.Thread(target=once)
        thread.start()
        until(lambda: places._waiting, what="the thread to wait")
    with places.one(soon(), never):
        order.append("back")
    thread.join()
    assert order == ["waiting", "back"]


def test_a_wait_ends_with_its_deadline_or_a_stop_and_loses_no_place() -> None:
    """And the place is free for the next when it is given back."""
    places = Places(1)
    with places.one(soon(), never):
        with pytest.raises(TimeoutError), places.one(soon(0.01), never):
            pass
        with pytest.raises(EncodingStopped), places.one(soon(), lambda: True):
            pass
    with places.one(soon(0.0), never):
        pass
    assert places._free == 1
    assert not places._waiting
