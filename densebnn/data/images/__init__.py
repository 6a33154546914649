"""Image classification sets: ImageNet-style folders, CIFAR, Fashion-MNIST and crops of the sample rooms."""

from densebnn.data.images.catalog import IMAGE_DATASETS, ImageDataset, hold_out, open_image_dataset
from densebnn.data.images.cifar import CIFAR
from densebnn.data.images.fashion_mnist import FashionMNIST
from densebnn.data.images.folder import ImageFolder

__all__ = ["CIFAR", "IMAGE_DATASETS", "FashionMNIST", "ImageDataset", "ImageFolder", "hold_out", "open_image_dataset"]
