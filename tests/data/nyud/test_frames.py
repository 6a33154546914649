from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest

from densebnn.data.nyud.frames import ReleaseFrames, check_labels, check_missing, clean_depth
from densebnn.data.nyud.release import open_release
from densebnn.registry import UserError


def test_clean_depth_in_place():
    values = np.array([[0.0, 1.5, np.nan, np.inf], [-np.inf, -0.1, 100.0, 255.0]], np.float32)
    assert clean_depth(values) == 5
    assert np.array_equal(values, np.array([[0, 1.5, 0, 0], [0, 0, 100, 0]], np.float32))


def test_more_than_half_invalid_is_refused():
    check_missing(50, 100, "depths", 0, "nyu.mat")
    check_missing(51, 100, "rawDepths", 0, "nyu.mat")
    with pytest.raises(UserError, match=r"nyu.mat: frame 3 of 'depths' has 51 of 100 values"):
        check_missing(51, 100, "depths", 2, "nyu.mat")


def test_labels_without_a_name():
    check_labels(np.array([0, 3], np.uint16), ("a", "b", "c"), 0, "nyu.mat")
    with pytest.raises(UserError, match=r"nyu.mat: frame 8 of 'labels' holds id 4, allowed are 0 \(unlabelled\) to 3"):
        check_labels(np.array([4, 0], np.uint16), ("a", "b", "c"), 7, "nyu.mat")


def test_frames_are_read_straight_from_the_file(make_release):
    written = make_release(chunks=(3, 1, 5, 7))
    source = ReleaseFrames(open_release(written.path))
    for key in ("images", "depths", "rawDepths", "labels"):
        assert np.array_equal(source.frame(key, 4), written.arrays[key][4])
    expected = written.arrays["depths"][[1, 3]].mean(dtype=np.float64)
    assert source.mean_depth(np.array([1, 3])) == pytest.approx(expected, rel=1e-12)


def test_each_process_opens_its_own_handle(make_release):
    written = make_release()
    source = ReleaseFrames(open_release(written.path))
    source.frame("depths", 0)
    mine = source._handle
    assert mine is not None
    assert mine[0] == os.getpid()
    assert pickle.loads(pickle.dumps(source))._handle is None

    def child(queue):
        source.frame("depths", 1)
        queue.put((source._handle[0], source._handle[1] is not mine[1]))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=20) == (process.pid, True)
    process.join()
