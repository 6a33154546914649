from __future__ import annotations

import numpy as np
import pytest

from densebnn.data.nyud.tables import (
    FORTY,
    THIRTEEN,
    ClassMapping,
    class_names,
    ignore_index,
    label_table,
    official_split,
    parse_ranges,
    thirteen_of_forty,
)
from densebnn.registry import UserError


def test_parse_ranges_includes_both_ends():
    assert parse_ranges("3-5, 9,\n11-12").tolist() == [3, 4, 5, 9, 11, 12]


def test_official_split_has_the_known_counts_and_beginnings():
    train, test = official_split("train"), official_split("test")
    assert (len(train), len(test)) == (795, 654)
    assert train[:4].tolist() == [3, 4, 5, 6]
    assert test[:4].tolist() == [1, 2, 9, 14]
    assert np.array_equal(np.sort(np.concatenate((train, test))), np.arange(1, 1450))
    # Some frames from the middle and the end, as in splits.mat.
    assert {514, 1097, 1440} <= set(train.tolist())
    assert {250, 264, 1441, 1449} <= set(test.tolist())


def test_class_tables_have_the_known_counts():
    ids = ClassMapping().ids
    counts = np.bincount(list(ids.values()), minlength=41)[1:]
    by_name = dict(zip(FORTY, counts, strict=True))
    assert len(ids) == 894
    assert (by_name["otherstructure"], by_name["otherfurniture"], by_name["otherprop"]) == (68, 82, 707)
    assert np.count_nonzero(counts == 1) == 37
    assert len(FORTY) == 40
    assert len(THIRTEEN) == 13


@pytest.mark.parametrize(
    ("name", "forty", "thirteen"),
    [
        ("wall", "wall", "wall"),
        ("blinds", "blinds", "window"),
        ("dresser", "dresser", "furniture"),
        ("refridgerator", "refridgerator", "furniture"),
        ("door  window  reflection", "otherstructure", "objects"),
        ("stacked bins  boxes", "otherprop", "objects"),
        ("kitchen island", "otherstructure", "objects"),
        ("coffee table", "otherfurniture", "furniture"),
        ("television", "television", "tv"),
        ("torah", "otherprop", "objects"),
    ],
)
def test_single_names_fall_where_the_publications_put_them(name: str, forty: str, thirteen: str):
    assert FORTY[label_table([name], 40)[1]] == forty
    assert THIRTEEN[label_table([name], 13)[1]] == thirteen


def test_label_table_follows_the_order_of_the_files_names():
    names = ("chair", "rug", "wall")
    assert label_table(names, 40).tolist() == [255, FORTY.index("chair"), FORTY.index("otherprop"), 0]
    assert label_table(names, 40).dtype == np.uint8
    everything = label_table(names, 894)
    assert everything.dtype == np.int32
    assert everything.tolist() == [ignore_index(894), 0, 1, 2] == [65535, 0, 1, 2]
    assert class_names(names, 894) == names


def test_thirteen_of_forty_agrees_with_the_direct_table():
    names = tuple(ClassMapping().ids)
    forty, thirteen = label_table(names, 40), label_table(names, 13)
    assert np.array_equal(thirteen_of_forty()[forty], thirteen)
    assert set(thirteen[1:].tolist()) == set(range(13))


def test_unknown_names_are_listed_with_the_nearest():
    with pytest.raises(UserError, match=r"1 of 2 label names .*'refrigerator' \(did you mean 'refridgerator'\?\)"):
        label_table(["wall", "refrigerator"], 40)
    assert label_table(["wall", "refrigerator"], 894).tolist() == [65535, 0, 1]
