import numpy as np
import pytest
from PIL import Image

from densebnn.data.dense.fields import (
    id_table,
    nyu_table,
    read_depth,
    read_edges,
    read_image,
    read_label,
    read_normals,
)
from densebnn.data.nyud.tables import FORTY, THIRTEEN, thirteen_of_forty
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")


def saved(folder, values, name="a.npy"):
    if name.endswith("npy"):
        np.save(folder / name, values)
    else:
        Image.fromarray(values).save(folder / name)
    return folder / name


def test_millimetres_are_metres_to_the_last_bit(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    depth = read_depth(saved(tmp_path, values, "a.png"))
    assert depth.dtype == np.float32
    assert np.array_equal(depth, (values / 1000).astype(np.float32))
    finer = read_depth(saved(tmp_path, values, "a.png"), scale=0.0001)
    assert np.array_equal(finer, (values / 10000).astype(np.float32))
    assert read_depth(saved(tmp_path, values, "a.png"), scale=0.01).max() == 100  # farther is no depth in a room


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ">f4"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (1, 3, 4)])
def test_what_is_no_depth_becomes_zero(tmp_path, dtype, shape):
    values = np.array([[0, 255, np.nan, np.inf], [-np.inf, -1, 100.5, 1.5], [2, 3, 9.99, 0.7]]).astype(dtype)
    depth = read_depth(saved(tmp_path, values.reshape(shape)))
    expected = np.array([[0, 0, 0, 0], [0, 0, 0, 1.5], values[2]], np.float32)
    assert depth.dtype == np.float32
    assert np.array_equal(depth, expected)


def test_a_picture_of_depth_is_no_depth(tmp_path):
    with pytest.raises(UserError, match="has 8 bits a pixel, which are a picture of depth; expected 16 bits in units"):
        read_depth(saved(tmp_path, np.ones((3, 4), np.uint8), "a.png"))
    with pytest.raises(UserError, match=r"holds uint8 \(3, 4, 3\); expected depth of one value a pixel"):
        read_depth(saved(tmp_path, np.ones((3, 4, 3), np.uint8), "a.png"))


@pytest.mark.parametrize(("first", "nothing"), [(1, 0), (0, 255)])
def test_the_ids_of_nyu(first, nothing):
    table = nyu_table(40, first=first)
    assert [table[first + k] for k in range(40)] == list(range(40))
    assert table[nothing] == table[255] == 255
    assert (table[first + 40 : 255] == -1).all()
    few = nyu_table(13, first=first)
    assert np.array_equal(few[first : first + 40], thirteen_of_forty()[:40])
    own = nyu_table(13, first=first, stored=13)
    assert [own[first + k] for k in range(13)] == list(range(13))
    assert (own[first + 13 : 255] == -1).all()
    assert (len(FORTY), len(THIRTEEN)) == (40, 13)


@pytest.mark.parametrize(("classes", "stored"), [(894, 40), (40, 13)])
def test_classes_that_files_do_not_tell_apart(classes, stored):
    with pytest.raises(UserError, match=f"classes={classes} cannot be had from labels of {stored} classes"):
        nyu_table(classes, first=1, stored=stored)


def test_labels_outside_of_the_table_are_named(tmp_path):
    table = nyu_table(40, first=1)
    label = np.array([[0, 1, 40, 255]])
    for dtype in (np.uint8, np.int64, np.float64):
        read = read_label(saved(tmp_path, label.astype(dtype)), table=table)
        assert (read.dtype, read.tolist()) == (np.uint8, [[255, 0, 39, 255]])
    for wrong in (41, 254, 256, -1, 2**40):
        with pytest.raises(UserError, match=f"holds the ids {wrong}; allowed are 0, 1, 2, "):
            read_label(saved(tmp_path, np.array([[1, wrong]])), table=table)
    with pytest.raises(UserError, match="holds fractions"):
        read_label(saved(tmp_path, np.array([[1.5, 2]])), table=table)


def test_not_a_number_is_no_label(tmp_path):
    with pytest.raises(UserError, match="holds fractions"):
        read_label(saved(tmp_path, np.array([[np.nan, 2]])), table=nyu_table(40, first=1))


def test_ids_of_ones_own(tmp_path):
    table = id_table({7: "wall", 3: "floor"}, (0, 9))
    assert read_label(saved(tmp_path, np.array([[7, 3, 0, 9]])), table=table).tolist() == [[0, 1, 255, 255]]
    many = id_table(range(300), (1000,))
    read = read_label(saved(tmp_path, np.array([[299, 1000]])), table=many)
    assert (read.dtype, read.tolist()) == (np.int32, [[299, 65535]])
    for ids, ignored in (((1, 2), (2,)), ((-1, 2), ()), ((0, 65535), ()), ((True, 2), ())):
        with pytest.raises(UserError, match="must be different whole numbers from 0 to 65534"):
            id_table(ids, ignored)


def test_normals_are_unit_vectors_or_nothing(tmp_path):
    values = np.array([[[3, 4, 0], [0, 0, -0.9], [0, 0, 0.2], [np.nan, 0, 1], [1, 1, 1], [np.inf, 0, 0]]]) / [[[1]]]
    values[0, 0] /= 5
    normals = read_normals(saved(tmp_path, values))
    expected = [[0.6, 0.8, 0], [0, 0, -1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert np.allclose(normals[0], expected, atol=1e-7)
    coded = np.array([[[255, 128, 127], [127, 128, 0], [0, 0, 0], [127, 128, 127], [255, 255, 255]]], np.uint8)
    normals = read_normals(saved(tmp_path, coded, "a.png"))
    assert np.allclose(normals[0], [[1, 0, 0], [0, 0, -1], [0, 0, 0], [0, 0, 0], [0, 0, 0]], atol=0.005)
    for wrong in (np.ones((3, 4)), np.ones((3, 4, 2)), np.ones((3, 4, 3), np.int64)):
        with pytest.raises(UserError, match="expected normals, three bytes or fractions a pixel"):
            read_normals(saved(tmp_path, wrong))


def test_edges(tmp_path):
    assert read_edges(saved(tmp_path, np.array([[0, 127, 128, 255]], np.uint8), "a.png")).tolist() == [[0, 0, 1, 1]]
    assert read_edges(saved(tmp_path, np.array([[0, 0.5, 0.6, 1]]))).tolist() == [[0, 0, 1, 1]]
    assert read_edges(saved(tmp_path, np.array([[0, 1]], np.uint8))).tolist() == [[0, 1]]
    for wrong in ([[0, 255.0]], [[-1, 0]], [[np.nan, 1]]):
        with pytest.raises(UserError, match="expected edges from 0 to 1"):
            read_edges(saved(tmp_path, np.array(wrong)))


def test_images(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_image(saved(tmp_path, np.zeros((3, 4, 3), np.uint8)))  # an .npy file, read as a picture
    gray = read_image(saved(tmp_path, np.full((3, 4), 9, np.uint8), "a.png"))
    assert (gray.shape, gray.dtype) == ((3, 4, 3), np.uint8)
    with pytest.raises(UserError, match=r"expected an image, uint8 with three channels"):
        read_image(saved(tmp_path, np.zeros((3, 4))), key="rgb")
