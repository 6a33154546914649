"""Cost of the training diagnostics: a step that is reported on against the same step without, interleaved.

Seconds are the processor's, which other programs disturb less than those of a clock.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from densebnn.backbones import create_backbone
from densebnn.binary import Diagnostics


def main() -> None:
    """Print the median time of both steps, and what the difference is to a step when one in many is reported on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18_cifar")
    parser.add_argument("--method", default="reactnet")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--every", type=int, default=50, help="steps from one report to the next")
    parser.add_argument("--pairs", type=int, default=9, help="measured pairs of steps")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = create_backbone(options.backbone, method=options.method, num_classes=100)
    diagnostics = Diagnostics(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images = torch.randn(options.batch_size, 3, options.size, options.size)
    labels = torch.randint(100, (options.batch_size,))

    seconds: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(options.pairs + 1):
        for reported in (False, True) if pair % 2 else (True, False):
            started = time.process_time()
            with diagnostics.watch(reported):
                loss = F.cross_entropy(model(images), labels)
            diagnostics.report()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if pair:  # the first pair warms up
                seconds[reported].append(time.process_time() - started)
    ratios = sorted(on / off for off, on in zip(seconds[False], seconds[True], strict=True))
    ratio = statistics.median(ratios)
    print(
        f"{options.backbone}, {options.method}, batch {options.batch_size}: a step without a report "
        f"{statistics.median(seconds[False]):.3f} s, with one {statistics.median(seconds[True]):.3f} s, "
        f"ratio {ratio:.3f} (smallest {ratios[0]:.3f}, largest {ratios[-1]:.3f}); "
        f"with a report every {options.every} steps, {(ratio - 1) / options.every:.2%} of the time of a step"
    )


if __name__ == "__main__":
    main()
