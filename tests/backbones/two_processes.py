"""Train every method with the loop itself, as one process of two; run as a script by test_methods_ddp.py.

Writes JSON: case -> what the process saw. The processes begin with different weights, see different images
and have different random numbers; what comes out must be the same nevertheless.
"""

import hashlib
import json
import sys
from itertools import count
from pathlib import Path

import torch
from relatives import CASES, CLASSES, USED, batch, relative
from torch import nn

from densebnn.binary import set_modes
from densebnn.engine.evaluate import evaluate
from densebnn.engine.fit import fit
from densebnn.engine.objective import Objective
from densebnn.engine.recipe import TrainConfig
from densebnn.engine.runtime import start
from densebnn.engine.session import open_folder
from densebnn.tasks import Classification

STAGED = ("adabin", "rbnn", "reactnet")
"""Methods whose binarizers have parameters, which get no gradient in a stage with real weights and activations."""
TRAIN = TrainConfig(steps=3, batch_size=32, lr=0.01, warmup=0.0, precision="fp32", diagnostics_every=2)


class Probe(nn.Module):
    """Notes, after each event, the fingerprints of all of a model but the statistics of its batch norms."""

    def __init__(self, model):
        super().__init__()
        self.model = (model,)  # no submodule
        self.seen = []

    def note(self, gradients=False):
        (model,) = self.model
        norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
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
    fit(objective, batches_from, train=TRAIN, steps_per_epoch=2, evaluate=dict, **place)
    evaluate(model, objective.task, [batch(runtime.rank)], runtime)
    evaluated = {name: fingerprint(tensor) for name, tensor in model.state_dict().items()}
    return {"events": objective.probe.seen, "evaluated": evaluated}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    # every method once, and every backbone once: what processes must agree on is in the layers, whatever is around them
    met = [case for case in CASES if case[2] == USED[case[0]][0]]
    others = {case[2]: case for case in reversed(CASES) if case[2] not in {backbone for _, _, backbone in met}}
    cases = {" ".join(case): (case, {}) for case in (*met, *others.values())}
    for name in STAGED:
        cases[f"{name} real"] = (name, "as_paper", USED[name][0]), {"weights": "real", "activations": "tanh"}
    results = {}
    with start(threads=1, device="cpu") as runtime:
        for number, (name, (case, modes)) in enumerate(cases.items()):
            results[name] = run(case, modes, folder / str(number), runtime)
    Path(sys.argv[2]).write_text(json.dumps(results))
