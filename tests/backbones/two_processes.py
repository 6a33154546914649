"""Train every method with the loop itself, as one process of two; run as a script by test_methods_ddp.py.

Writes JSON: case -> what the process saw. The processes begin with different weights, see different images
and have different random numbers; what comes out must be the same nevertheless.
"""

import copy
import hashlib
import json
import sys
from itertools import count
from pathlib import Path

import torch
from relatives import CASES, CLASSES, USED, batch, relative
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densebnn.binary import broadcast, set_modes
from densebnn.engine.evaluate import evaluate
from densebnn.engine.fit import fit
from densebnn.engine.objective import Objective
from densebnn.engine.recipe import TrainConfig
from densebnn.engine.runtime import start
from densebnn.engine.session import open_folder
from densebnn.tasks import Classification

STAGED = ("adabin", "rbnn", "reactnet")
"""Methods whose binarizers have parameters, which get no gradient in a stage with real weights and activations."""
TRAIN = TrainConfig(steps=2, batch_size=32, lr=0.01, warmup=0.0, precision="fp32", diagnostics_every=2)


def norms_of(model):
    """The batch norms of a model by name, the statistics of which each process has for its own images."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }


class Probe(nn.Module):
    """Notes, after each event, the fingerprints of all of a model but the statistics of its batch norms."""

    def __init__(self, model):
        super().__init__()
        self.model = (model,)  # no submodule
        self.seen = []

    def note(self, gradients=False):
        (model,) = self.model
        norms = norms_of(model)
        buffers = {name: value for name, value in model.named_buffers() if name.rpartition(".")[0] not in norms}
        tensors = {**dict(model.named_parameters()), **buffers}
        if gradients:
            tensors |= {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
        self.seen.append({name: fingerprint(tensor) for name, tensor in tensors.items()})

    def on_refresh(self):
        self.note()

    def on_grads_ready(self):
        self.note(gradients=True)

    def on_stepped(self):
        self.note()


def fingerprint(tensor):
    return hashlib.sha256(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()[:12]


def run(case, modes, folder, runtime):
    """Train a network of that case; return the fingerprints after each event, and those after an evaluation."""
    model = relative(*case, seed=runtime.rank)
    set_modes(model, **modes)
    objective = Objective(model, Classification(CLASSES))
    objective.probe = Probe(model)

    def batches_from(step):
        return (batch(2 * number + runtime.rank) for number in count(step))

    place = {"run": open_folder(folder, "run: test\n", runtime), "runtime": runtime}
    fit(objective, batches_from, train=TRAIN, steps_per_epoch=1, evaluate=dict, **place)
    evaluate(model, objective.task, [batch(runtime.rank)], runtime)
    evaluated = {name: fingerprint(tensor) for name, tensor in model.state_dict().items()}
    return {"events": objective.probe.seen, "evaluated": evaluated}


def step(objective, wrapped, samples):
    """Carry out a step as the loop does; return the gradients, after their event, and what the model has become."""
    broadcast(objective, "on_refresh")
    broadcast(objective, "on_progress", 0.5)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    wrapped(samples)["loss"].backward()
    broadcast(objective, "on_grads_ready")
    seen = {f"{name}.grad": parameter.grad.clone() for name, parameter in objective.model.named_parameters()}
    optimizer.step()
    broadcast(objective, "on_stepped")
    return seen | objective.model.state_dict()


def deviation(case, runtime):
    """Return how far each tensor is, relative to its size, from what one process makes of the images of both.

    In float64, where rounding turns no sign, and with fixed statistics in the batch norms. What is smaller than 1e-15
    is rounding already: the gradient of a rotation's angle at its extremum, and what that gradient is a factor of.
    """
    objective = Objective(relative(*case, seed=runtime.rank).double(), Classification(CLASSES))
    for norm in norms_of(objective).values():
        norm.eval()
    halves = [{**samples, "image": samples["image"].double()} for samples in map(batch, range(2))]
    wrapped = DistributedDataParallel(objective)  # gives both the weights of the first
    alone = copy.deepcopy(objective)
    together = step(objective, wrapped, halves[runtime.rank])
    expected = step(alone, alone, {name: torch.cat([half[name] for half in halves]) for name in halves[0]})
    assert together.keys() == expected.keys()
    return {
        name: ((together[name] - value).abs().max() / value.abs().max().clamp(min=1e-15)).item()
        for name, value in expected.items()
        if value.is_floating_point()
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cases = {" ".join(case): (case, {}) for case in CASES}
    for name in STAGED:
        cases[f"{name} real"] = (name, "as_paper", USED[name][0]), {"weights": "real", "activations": "tanh"}
    results = {}
    with start(threads=1, device="cpu") as runtime:
        for number, (name, (case, modes)) in enumerate(cases.items()):
            results[name] = run(case, modes, folder / str(number), runtime)
            if not modes:
                results[name]["deviation"] = deviation(case, runtime)
    Path(sys.argv[2]).write_text(json.dumps(results))
