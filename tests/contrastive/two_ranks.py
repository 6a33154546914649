"""Two steps of every kind of contrastive term, as one rank of several; run as a script by test_gathering.py."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densebnn.binary import BinaryConv2d
from densebnn.contrastive import ContrastiveMI, TeacherMI

CASES = {
    "nce": (ContrastiveMI, {}, 6),
    "infonce, cells": (ContrastiveMI, {"mode": "infonce", "grid": 2}, 6),
    "queue": (ContrastiveMI, {"queue": 7}, 6),
    "labels": (ContrastiveMI, {"queue": 7, "label_aware": True}, 6),
    "bank": (ContrastiveMI, {"bank": 9, "bank_negatives": 12}, 6),
    "teacher": (TeacherMI, {"bank": 9, "bank_negatives": 12, "cache": 9}, 6),
    "teacher as released": (TeacherMI, {"bank": 9, "bank_negatives": 12, "train_heads": False}, 6),
    "an odd batch": (ContrastiveMI, {"queue": 4}, 5),
}


class Step(nn.Module):
    """A small network and a term on it."""

    def __init__(self, kind, settings):
        super().__init__()
        torch.manual_seed(0)
        convs = [BinaryConv2d(channels, 5, 3, padding=1, method="irnet") for channels in (3, 5)]
        self.net = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
        teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        given = {"layers": "all"} if kind is ContrastiveMI else {"teacher": teacher}
        self.term = kind(self.net, dim=4, temperature=0.3, **given, **settings)

    def forward(self, batch):
        with self.term.watch(self.net, batch) as seen:
            logits = self.net(batch["image"])
        return self.term(seen) + 0 * logits.sum()


def run(case, rank=0, world=1):
    """Return losses, gradients and buffers of two steps, as lists."""
    kind, settings, size = CASES[case]
    step = Step(kind, settings)
    wrapped = DistributedDataParallel(step, broadcast_buffers=False) if world > 1 else step
    optimizer = torch.optim.SGD(step.parameters(), 1e-3)
    told = {"losses": [], "gradients": []}
    generator = torch.Generator().manual_seed(1)
    for index in ([0, 4, 2, 4, 1, 8], [3, 4, 7, 6, 5, 0]):
        batch = {
            "image": torch.randn(size, 3, 6, 6, generator=generator),
            "index": torch.tensor(index[:size]),
            "target": torch.tensor([0, 1, 0, 1, 0, 1])[:size],
        }
        loss = wrapped({name: values[rank::world] for name, values in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        told["losses"].append(loss.item())
        told["gradients"].append({name: p.grad.tolist() for name, p in step.named_parameters() if p.grad is not None})
        optimizer.step()
    told["buffers"] = {name: buffer.tolist() for name, buffer in step.term.named_buffers()}
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    store, target, rank, world = *sys.argv[1:3], *map(int, sys.argv[3:])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    results = {case: run(case, rank, world) for case in CASES}
    dist.destroy_process_group()
    Path(target).write_text(json.dumps(results))
