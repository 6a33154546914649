"""Predict pictures and videos of one's own with a trained network: `predict.py --run RUN --input PICTURE`."""

import sys
from collections.abc import Sequence

from densebnn.engine.cli import parse, run_main
from densebnn.engine.predict_config import PredictConfig


def main(argv: Sequence[str]) -> int:
    """Run the tool; returns 3 where some inputs could not be read, or not to their end."""
    config, _ = parse(PredictConfig, argv, prog="predict.py", description=PredictConfig.__doc__ or "")
    from densebnn.engine.predict import predict_files
    from densebnn.engine.runtime import start

    with start(config.threads or None, config.device) as runtime:
        found = predict_files(config, runtime.device)
    left = f", {len(found.left_out)} with something left out" if found.left_out else ""
    print(f"{len(found.done)} predicted{left}: {found.folder}")
    return 3 if found.left_out else 0


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
