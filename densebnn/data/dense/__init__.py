"""Dense data sets in all the layouts that people have them in, opened by `open_dense_dataset`."""

from densebnn.data.dense.catalog import layout_of, open_dense_dataset
from densebnn.data.dense.frame_files import FrameFiles
from densebnn.data.dense.layout import DENSE_DATASETS, DenseDataset, Frames, Layout

__all__ = ["DENSE_DATASETS", "DenseDataset", "FrameFiles", "Frames", "Layout", "layout_of", "open_dense_dataset"]
