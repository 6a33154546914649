"""Cost of the contrastive term: a training step with it against the same step without it, interleaved, and memory.

Seconds are the processor's, which other programs disturb less than those of a clock.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from densebnn.backbones import create_backbone
from densebnn.contrastive import ContrastiveMI, TeacherMI

CLASSES = 100

ROWS: dict[str, Callable[[nn.Module, nn.Module, int], nn.Module]] = {
    "self, the batch": lambda model, teacher, samples: ContrastiveMI(model),
    "self, queue of 4,096": lambda model, teacher, samples: ContrastiveMI(model, queue=4096),
    "teacher, cached features": lambda model, teacher, samples: TeacherMI(model, teacher, bank=samples, cache=samples),
}


class Bench:
    """Steps on the same batch with and without a term."""

    def __init__(self, model: nn.Module, term: nn.Module, batch: dict[str, Tensor]) -> None:
        self.model, self.term, self.batch = model, term, batch
        self.optimizer = torch.optim.SGD([*model.parameters(), *term.parameters()], lr=0.01)

    def loss(self, with_term: bool) -> Tensor:
        """Return the loss of a step."""
        if not with_term:
            return F.cross_entropy(self.model(self.batch["image"]), self.batch["target"])
        with self.term.watch(self.model, self.batch) as seen:
            loss = F.cross_entropy(self.model(self.batch["image"]), self.batch["target"])
        return loss + 0.03 * self.term(seen)

    def seconds(self, with_term: bool) -> float:
        """Return the processor time of one step."""
        started = time.process_time()
        loss = self.loss(with_term)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return time.process_time() - started

    def saved_bytes(self, with_term: bool) -> int:
        """Return the bytes that a forward pass keeps for the backward pass, each storage once."""
        parameters = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        saved: dict[int, int] = {}
        kept: list[Tensor] = []  # so that no address is used twice

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                saved[storage.data_ptr()] = storage.nbytes()
                kept.append(tensor.detach())
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            self.loss(with_term)
        return sum(saved.values())


def main() -> None:
    """Print, for each row, the median time of both steps, the median of the paired ratios, and the ratio of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18_cifar")
    parser.add_argument("--method", default="irnet")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--samples", type=int, default=50_000, help="training samples, for bank and cache")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--pairs", type=int, default=9, help="measured pairs of steps")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    print(f"{options.backbone}, {options.method}, batch {options.batch_size}, {options.threads} threads")
    for row in options.rows:
        torch.manual_seed(0)
        model = create_backbone(options.backbone, method=options.method, num_classes=CLASSES)
        teacher = create_backbone("resnet20", method=options.method, num_classes=CLASSES)  # asked once, then cached
        batch = {
            "image": torch.randn(options.batch_size, 3, options.size, options.size),
            "target": torch.randint(CLASSES, (options.batch_size,)),
            "index": torch.randperm(options.samples)[: options.batch_size],
        }
        bench = Bench(model, ROWS[row](model, teacher, options.samples), batch)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for pair in range(options.pairs + 1):
            for with_term in (False, True) if pair % 2 else (True, False):
                taken = bench.seconds(with_term)
                if pair:  # the first pair warms up
                    seconds[with_term].append(taken)
        ratios = sorted(on / off for off, on in zip(seconds[False], seconds[True], strict=True))
        without, with_it = bench.saved_bytes(False), bench.saved_bytes(True)
        print(
            f"{row}: without the term {statistics.median(seconds[False]):.3f} s, with it "
            f"{statistics.median(seconds[True]):.3f} s, ratio {statistics.median(ratios):.3f} "
            f"(smallest {ratios[0]:.3f}, largest {ratios[-1]:.3f}); kept for backward "
            f"{without / 2**20:.1f} MB, with it {with_it / 2**20:.1f} MB, ratio {with_it / without:.4f}"
        )


if __name__ == "__main__":
    main()
