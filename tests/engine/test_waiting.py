import time

import pytest

from densebnn.engine.waiting import Waiting


def slow(count, seconds):
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_items_come_through_and_time_is_split_between_giver_and_taker():
    watched = Waiting(slow(4, 0.03))
    taken = []
    for item in watched:
        taken.append(item)
        time.sleep(0.01)
    assert taken == [0, 1, 2, 3]
    assert watched.waited == pytest.approx(0.12, abs=0.03)
    assert watched.worked == pytest.approx(0.04, abs=0.02)
    assert watched.share == pytest.approx(watched.waited / (watched.waited + watched.worked))
    assert 0.6 < watched.share < 0.9


def test_nothing_was_waited_for_before_the_first_item():
    assert Waiting([]).share == 0


def test_a_taker_that_stops_early_ends_what_it_took_from():
    ended = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    watched = iter(Waiting(endless()))
    assert next(watched) == 1
    watched.close()
    assert ended == [True]


def test_what_was_before_can_be_forgotten():
    watched = Waiting(slow(4, 0.02))
    for number in watched:
        time.sleep(0.05)
        if number == 1:
            watched.forget()
    assert watched.waited == pytest.approx(0.04, abs=0.015)
    assert watched.worked == pytest.approx(0.1, abs=0.03)
