import pytest

from densebnn.deploy import timing
from densebnn.deploy.timing import Times, paired, ratio


def test_things_are_timed_in_turns(monkeypatch):
    clock, calls = [0.0], []

    def thing(name, seconds):
        def call():
            calls.append(name)
            clock[0] += seconds

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    times = paired({"a": thing("a", 1.0), "b": thing("b", 3.0)}, repeats=3, warmup=1, inner=2)
    assert calls[:2] == ["a", "b"]
    assert "".join(calls[2:]) == "aaaabbbb" + "bbbbaaaa" + "aaaabbbb"
    assert times["a"].seconds == pytest.approx((1.0, 1.0, 1.0))
    assert ratio(times["b"], times["a"]) == pytest.approx(3.0)


def test_a_ratio_is_that_of_the_rounds():
    slow, fast = Times((10.0, 4.0, 100.0)), Times((1.0, 2.0, 10.0))
    assert ratio(slow, fast) == 10.0
    assert (slow.median, slow.best) == (10.0, 4.0)
    with pytest.raises(ValueError, match="shorter"):
        ratio(slow, Times((1.0,)))
