"""Train a dense predictor on a binary encoder and evaluate it: `finetune_nyud.py --task depth`."""

import sys
from collections.abc import Sequence
from shlex import quote

from densebnn.engine.cli import parse, run_main
from densebnn.engine.config import FinetuneConfig


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(FinetuneConfig, argv, prog="finetune_nyud.py", description=FinetuneConfig.__doc__ or "")
    from densebnn.engine.finetune import finetune
    from densebnn.engine.report import finished
    from densebnn.engine.runtime import start

    with start(config.run.threads or None, config.run.device) as runtime:
        run, report = finetune(config, runtime)
        first = config.tasks[0]
        other = {"depth": "segmentation"}.get(config.task, "depth")
        protocol = {"depth": "eigen", "segmentation": "gupta", "normals": "gupta", "edges": "bsds"}[first]
        named = protocol if len(config.tasks) == 1 else f"{first}={protocol}"
        recipe = "depth" if config.task == "depth" else "segmentation"
        finished(
            run,
            report,
            runtime,
            (
                f"python tools/eval.py {quote(str(run.path))} --protocol {named}",
                f"python tools/finetune_nyud.py --task {other}",
                f"python tools/finetune_nyud.py --task {config.task} --config configs/nyud/{recipe}.yaml "
                "--data.path nyu_depth_v2_labeled.mat",
            ),
        )


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
