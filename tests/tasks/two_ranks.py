"""Evaluate every task's metric over some fixed batches, as one rank of several; run as a script by test_base.py."""

import json
import sys
import warnings

import torch
import torch.distributed as dist

from densebnn.tasks import (
    DEPTH_PROTOCOLS,
    EDGE_PROTOCOLS,
    NORMALS_PROTOCOLS,
    SEGMENTATION_PROTOCOLS,
    Classification,
    Depth,
    Edges,
    MultiTask,
    Normals,
    Segmentation,
)


def evaluate(rank, world, images):
    """Score the images rank, rank + world, ... and return the figures of all ranks together."""
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(images, 24, 32, generator=generator) * 9
    depth[1] = 0
    batch = {
        "depth": depth,
        "raw_depth": depth,
        "label": torch.randint(0, 6, (images, 24, 32), generator=generator),
        "normals": torch.randn(images, 3, 24, 32, generator=generator),
        "edges": (torch.rand(images, 24, 32, generator=generator) < 0.2).long(),
        "target": torch.randint(0, 8, (images,), generator=generator),
        "index": torch.arange(images) + 7,
    }
    results = {}
    parts = [Depth(protocol=DEPTH_PROTOCOLS["eigen"]), Segmentation(6), Normals(), Edges()]
    others = [
        *(Depth(protocol=DEPTH_PROTOCOLS[name]) for name in ("mtl", "laina")),
        Segmentation(6, protocol=SEGMENTATION_PROTOCOLS["gupta"]),
        Normals(protocol=NORMALS_PROTOCOLS["gupta"]),
        *(Edges(protocol=EDGE_PROTOCOLS[name]) for name in ("bsds", "mtl")),
    ]
    predictions = {"classification": torch.randn(images, 8, generator=generator)}
    for task in parts:
        predictions[task.name] = task.head()(torch.randn(images, task.out_channels, 24, 32, generator=generator))
    for task in (*parts, *others, Classification(8), MultiTask(parts)):
        metric = task.detailed_metrics()
        for i in range(rank, images, world):
            several = {name: prediction[i : i + 1] for name, prediction in predictions.items()}
            one = several if isinstance(task, MultiTask) else several[task.name]
            metric.update(one, {name: field[i : i + 1] for name, field in batch.items()})
        results[f"{task.name} {task.protocol_name}"] = metric.compute()
    return results


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # a rank without images is warned about by torchmetrics
    torch.set_num_threads(1)
    store, rank, world, images = sys.argv[1], *map(int, sys.argv[2:])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    results = [evaluate(rank, world, n) for n in (images, world)]
    results.append(evaluate(rank * 2, 100, 2))  # rank 0 has one image, rank 1 none
    dist.destroy_process_group()
    print(json.dumps(results))
