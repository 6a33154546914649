"""Max pooling as a kernel: it reads the largest map of a network, and nobody asks it where the maxima were."""

from __future__ import annotations

from llvmlite import ir

from densebnn.deploy.kernels.ir import F32, I64, Kernel, Value, Variable, vector

__all__ = ["POOL", "write_max_pool"]

_LANES = 32
_WORD = 4
_REALS = vector(F32, _LANES)

POOL = (
    "input",  # float32 (N, H, W, C)
    "output",  # float32 (N, H', W', C)
    "images",
    "channels",
    "height",
    "width",
    "rows",  # of the output
    "columns",
    "tall",  # the window: rows and columns, stride, padding
    "wide",
    "down",
    "right",
    "above",
    "left",
)


def write_max_pool(module: ir.Module, name: str) -> None:
    """Add the kernel; a unit of work is a row of the output. A NaN in a window is what comes out, as in torch."""
    kernel = Kernel(module, name, POOL)
    with kernel.repeat() as leave:
        unit = kernel.take()
        leave(unit.compare(">=", kernel["images"] * kernel["rows"]))
        image, row = unit // kernel["rows"], unit % kernel["rows"]
        source = kernel["input"] + image * kernel["height"] * kernel["width"] * kernel["channels"] * _WORD
        ys = _inside(kernel, row, "down", "above", "tall", "height")
        with kernel.loop(0, kernel["columns"]) as column:
            xs = _inside(kernel, column, "right", "left", "wide", "width")
            target = kernel["output"] + (unit * kernel["columns"] + column) * kernel["channels"] * _WORD
            with kernel.loop(0, kernel["channels"], _LANES) as channel:
                mask = kernel.first_lanes(_LANES, kernel["channels"] - channel)
                most = Variable(kernel, _REALS, kernel.constant(_REALS, [float("-inf")] * _LANES))
                with kernel.loop(*ys) as y, kernel.loop(*xs) as x:
                    place = ((y * kernel["width"] + x) * kernel["channels"] + channel) * _WORD
                    value = kernel.load_lanes(_REALS, source + place, mask)
                    taken = value.compare(">", most.now) | value.compare("!=", value)
                    most.set(taken.choose(value, most.now))
                kernel.store_lanes(most.now, target + channel * _WORD, mask)
    kernel.finish()


def _inside(kernel: Kernel, place: Value, stride: str, padding: str, size: str, limit: str) -> tuple[Value, Value]:
    """Return where the window of a row or column begins in the image, and where it ends."""
    start = place * kernel[stride] - kernel[padding]
    stop = (start + kernel[size]).at_most(kernel[limit])
    return start.compare(">", 0).choose(start, kernel.constant(I64, 0)), stop
