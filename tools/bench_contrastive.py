"""Cost of the contrastive term: one training step with it against the same step without it, interleaved."""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from densebnn.backbones import create_backbone
from densebnn.contrastive import ContrastiveMI, activation_pairs


def main() -> None:
    """Print the median time of both steps and the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18_cifar")
    parser.add_argument("--method", default="irnet")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--queue", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=9, help="measured pairs of steps")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = create_backbone(options.backbone, method=options.method, num_classes=100)
    term = ContrastiveMI(model, queue=options.queue)
    optimizer = torch.optim.SGD([*model.parameters(), *term.parameters()], lr=0.01)
    images = torch.randn(options.batch_size, 3, options.size, options.size)
    labels = torch.randint(100, (options.batch_size,))

    seconds: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(options.pairs + 1):
        for with_term in (False, True) if pair % 2 else (True, False):
            started = time.perf_counter()
            if with_term:
                with activation_pairs(model, term.layers) as pairs:
                    loss = F.cross_entropy(model(images), labels)
                loss = loss + 0.05 * term(pairs)
            else:
                loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if pair:  # the first pair warms up
                seconds[with_term].append(time.perf_counter() - started)
    ratios = sorted(on / off for off, on in zip(seconds[False], seconds[True], strict=True))
    print(
        f"{options.backbone}, {options.method}, batch {options.batch_size}: without the term "
        f"{statistics.median(seconds[False]):.3f} s, with it {statistics.median(seconds[True]):.3f} s, "
        f"ratio {statistics.median(ratios):.3f} (smallest {ratios[0]:.3f}, largest {ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()
