"""Datasets, transforms and loaders; the floor knows no model. Public names are imported at their first use."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "CIFAR": "densebnn.data.images",
    "ClassEval": "densebnn.data.transforms",
    "ClassTrain": "densebnn.data.transforms",
    "DERIVED": "densebnn.data.derived",
