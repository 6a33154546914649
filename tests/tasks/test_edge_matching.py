import itertools

import numpy as np
import pytest

from densebnn.tasks.edge_matching import MATCHINGS, by_correspondence, by_distance, thinned

THRESHOLDS = np.arange(1, 10) / 10


def random_maps(seed, size=(9, 12)):
    rng = np.random.default_rng(seed)
    probability = np.where(rng.random(size) < 0.25, rng.random(size), 0.0)
    return probability, rng.random(size) < 0.2


def retold(probability, truth, thresholds, tolerance):
    """Counts by looking at every pair of pixels."""
    counts = np.zeros((4, len(thresholds)), int)
    for number, threshold in enumerate(thresholds):
        predicted, true = np.argwhere(probability >= threshold), np.argwhere(truth)
        near = [[np.hypot(*(p - t)) <= tolerance for t in true] for p in predicted]
        counts[:, number] = [
            sum(any(row) for row in near),
            len(predicted),
            sum(any(row[j] for row in near) for j in range(len(true))),
            len(true),
        ]
    return counts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tolerance", [0.5, 1.0, 1.5, 2.3])
def test_matching_by_distance_equals_looking_at_every_pair(seed, tolerance):
    maps = random_maps(seed)
    assert by_distance(*maps, THRESHOLDS, tolerance).tolist() == retold(*maps, THRESHOLDS, tolerance).tolist()


def most_pairs(near):
    """The largest one-to-one matching, by trying all."""
    rows, columns = near.shape
    if rows > columns:
        return most_pairs(near.T)
    return max(
        (sum(near[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(columns), rows)),
        default=0,
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_correspondence_is_the_largest_there_is(seed):
    rng = np.random.default_rng(seed)
    probability, truth = np.zeros((4, 5)), np.zeros((4, 5), bool)
    probability.flat[rng.choice(20, 5, replace=False)] = rng.choice([0.3, 0.7], 5)
    truth.flat[rng.choice(20, 5, replace=False)] = True
    counts = by_correspondence(probability, truth, np.array([0.2, 0.5]), 1.5)
    for number, threshold in enumerate((0.2, 0.5)):
        predicted, true = np.argwhere(probability >= threshold), np.argwhere(truth)
        near = np.array([[np.hypot(*(p - t)) <= 1.5 for t in true] for p in predicted]).reshape(-1, len(true))
        assert counts[:, number].tolist() == [most_pairs(near), len(predicted), most_pairs(near), len(true)]


@pytest.mark.parametrize("seed", range(5))
def test_one_to_one_never_matches_more_than_any_to_any(seed):
    maps = random_maps(seed)
    strict, loose = (match(*maps, THRESHOLDS, 1.5) for match in (by_correspondence, by_distance))
    assert (strict[[1, 3]] == loose[[1, 3]]).all()
    assert (strict[[0, 2]] <= loose[[0, 2]]).all()


def test_a_second_line_beside_the_true_one_is_found_out_by_the_correspondence_alone():
    truth, probability = np.zeros((11, 30), bool), np.zeros((11, 30))
    truth[5] = True
    probability[[4, 6]] = 0.9
    assert by_distance(probability, truth, np.array([0.5]), 1.0)[:, 0].tolist() == [60, 60, 30, 30]
    assert by_correspondence(probability, truth, np.array([0.5]), 1.0)[:, 0].tolist() == [30, 60, 30, 30]


@pytest.mark.parametrize("name", sorted(MATCHINGS))
def test_nothing_predicted_and_nothing_true(name):
    empty, full = np.zeros((6, 7)), np.ones((6, 7), bool)
    assert MATCHINGS[name](empty, full, THRESHOLDS, 2.0)[:, 0].tolist() == [0, 0, 0, 42]
    assert MATCHINGS[name](full * 0.95, ~full, THRESHOLDS, 2.0)[:, 0].tolist() == [0, 42, 0, 0]


@pytest.mark.parametrize("shape", ["row", "column", "diagonal"])
def test_lines_of_one_pixel_stay(shape):
    line = {"row": np.zeros((21, 21)), "column": np.zeros((21, 21)), "diagonal": np.eye(21)}[shape]
    line[10, :] += shape == "row"
    line[:, 10] += shape == "column"
    assert np.array_equal(thinned(line) > 0, line > 0)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("turned", [False, True])
def test_wide_lines_become_one_pixel_wide(width, turned):
    line = np.zeros((21, 30))
    line[8 : 8 + width] = 1
    thin = thinned(line.T if turned else line) > 0
    thin = thin.T if turned else thin
    assert (thin.sum(axis=0) == 1).all()
    assert thin[8 : 8 + width].sum() == 30


def test_a_ridge_keeps_its_crest_and_its_values():
    rows = np.arange(21)[:, None]
    ridge = np.exp(-((rows - 10 - 0.2) ** 2) / 8) * np.linspace(0.5, 1, 30)
    thin = thinned(ridge)
    assert (np.flatnonzero(thin.any(axis=1)) == [10]).all()
    assert np.array_equal(thin[10], ridge[10])
