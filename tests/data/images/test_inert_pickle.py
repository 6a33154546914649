import pickle

import numpy as np
import pytest

from densebnn.data.images.inert_pickle import NotPlainDataError, bytes_array, read_pickle


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10dtype.__subclass__\x93.",
        b"(S'true'\nios\nsystem\n.",
        b"Pos\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",
        b"\x80\x02T\xff\xff\xff\x7fabc.",
        b"cnumpy\nndarray\n(NN\x88\x88b.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"(" * 50,
        b"",
        b"<!DOCTYPE html>",
    ],
)
def test_pickles_that_are_no_data(attack):
    with pytest.raises(NotPlainDataError):
        bytes_array(read_pickle(attack))


def test_inert_records_do_nothing():
    record = read_pickle(b"cnumpy\ndtype\n(S'O'\ntR.")
    assert (record.name, record.arguments) == ("dtype", (b"O",))
    with pytest.raises(NotPlainDataError):
        bytes_array(read_pickle(pickle.dumps(np.array([1.5]), 2)))
    with pytest.raises(NotPlainDataError):
        bytes_array(read_pickle(pickle.dumps(np.asfortranarray(np.ones((3, 2), np.uint8)), 2)))
