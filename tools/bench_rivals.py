"""Measure our binary convolutions beside those of bnn-lab and larq-compute-engine, one thread, in turns.

Run: python tools/bench_rivals.py --python RIVALS/bin/python

RIVALS is an environment of its own, since these packages need other versions than ours:

    python -m venv RIVALS
    RIVALS/bin/pip install tensorflow-cpu==2.16.2 tf-keras==2.16.0 larq==0.13.3 larq-compute-engine==0.16.0
    RIVALS/bin/pip install "torch<2.14" bnn-lab==1.0.0 --no-deps

Ours takes real values and gives real values: packing, convolution, scale and shift. larq-compute-engine does the same
by its interpreter, with and without indirect GEMM. bnn-lab has no binary convolution but a product of packed matrices:
it gets those of the same sizes, packed already, without a scale, which is less work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[], object]


def main() -> int:
    """Print a table: our time, and how many times as long the others take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the environment of the others")
    parser.add_argument("--repeats", type=int, default=9, help="rounds; each asks ours and the others in turns")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    if not arguments.python.is_file():
        print(f"--python: {arguments.python} is no interpreter", file=sys.stderr)
        return 2
    import torch

    from densebnn.deploy.shapes import SHAPES, one_layer
    from densebnn.engine.report import table

    torch.set_num_threads(1)
    rows = []
    command = [str(arguments.python), __file__, "--python", str(arguments.python), "--serve"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as others:
        for shape in SHAPES:
            ours = one_layer(shape)
            rounds = [(timed(ours), asked(others, shape)) for _ in range(arguments.repeats + 1)][1:]
            names = list(rounds[0][1])
            own = statistics.median(mine for mine, _ in rounds)
            slower = [statistics.median(theirs[name] / mine for mine, theirs in rounds) for name in names]
            rows.append([str(shape), f"{1e6 * own:.0f} us", *(f"{ratio:.1f}x" for ratio in slower)])
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
        assert others.stdin is not None
        others.stdin.close()
    print(table(rows, ["packing and convolution", "ours", *names]))
    return 0


def asked(process: subprocess.Popen[str], shape: Any) -> dict[str, float]:
    """Return seconds by name, measured in the other process."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(shape) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):  # the packages print, too
            found: dict[str, float] = json.loads(line)
            return found
    raise SystemExit("the other process has ended; its message is above")


def timed(call: Call, calls: int = 10) -> float:
    """Return seconds of a call: the mean of some, after as many that bring what it needs into the caches."""
    for _ in range(calls):
        call()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def serve() -> int:
    """Time what is asked for on standard input, a shape a line, until that ends."""
    known: dict[str, dict[str, Call]] = {}
    for line in sys.stdin:
        if line not in known:
            inputs, outputs, kernel, stride, height, width = json.loads(line)
            pixels = -(-height // stride) * -(-width // stride)
            product = bnn_lab(pixels, outputs, kernel * kernel * inputs)
            known[line] = {"bnn-lab": product, **larq((height, width, inputs), outputs, kernel, stride)}
        print(json.dumps({name: timed(call) for name, call in known[line].items()}), flush=True)
    return 0


def bnn_lab(rows: int, columns: int, depth: int) -> Call:
    """Return a product of packed matrices."""
    import numpy as np
    from bnn.kernels import binary_gemm_native_prepacked, native_kernel_available, pack_binary_pm1, set_num_threads

    if not native_kernel_available():
        raise SystemExit("bnn-lab has no native kernel here")
    set_num_threads(1)
    random = np.random.default_rng(0)
    left, right = (pack_binary_pm1(random.standard_normal((side, depth)))[0] for side in (rows, columns))
    return lambda: binary_gemm_native_prepacked(left, right, depth)


def larq(image: tuple[int, int, int], outputs: int, kernel: int, stride: int) -> dict[str, Call]:
    """Return a binary convolution and the batch norm behind it, by both of the engine's ways."""
    import larq
    import larq_compute_engine as lce
    import numpy as np
    import tensorflow as tf

    given = tf.keras.Input(image, batch_size=1)
    options = {"strides": stride, "padding": "same", "pad_values": 1.0, "use_bias": False}
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    convolved = larq.layers.QuantConv2D(outputs, kernel, **options, **quantizers)(given)
    model = tf.keras.Model(given, tf.keras.layers.BatchNormalization()(convolved))
    converted = lce.convert_keras_model(model)
    x = np.random.default_rng(0).standard_normal((1, *image)).astype(np.float32)
    calls: dict[str, Call] = {}
    for name, indirect in (("larq", False), ("larq, indirect", True)):
        interpreter = lce.testing.Interpreter(converted, num_threads=1, use_indirect_bgemm=indirect)
        calls[name] = lambda interpreter=interpreter: interpreter.predict(x)
    return calls


if __name__ == "__main__":
    sys.exit(main())
