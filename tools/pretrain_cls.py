"""Pretrain a binary backbone by classification, with or without the contrastive term."""

import sys
from collections.abc import Sequence
from shlex import quote

from densebnn.engine.cli import parse, run_main
from densebnn.engine.config import PretrainConfig


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(PretrainConfig, argv, prog="pretrain_cls.py", description=PretrainConfig.__doc__ or "")
    from densebnn.engine.pretrain import pretrain
    from densebnn.engine.report import finished
    from densebnn.engine.runtime import start

    with start(config.run.threads or None, config.run.device) as runtime:
        run, report = pretrain(config, runtime)
        commands = ["python tools/pretrain_cls.py --contrastive.weight 0"]
        backbone = run.path / "backbone.safetensors"
        if backbone.is_file():
            network = config.network
            weights = f"--encoder.backbone {network.backbone} --encoder.method {network.method} "
            weights += f"--encoder.variant {network.variant} --encoder.weights {quote(str(backbone))}"
            tasks = ("depth", "segmentation")
            commands = [f"python tools/finetune_nyud.py --task {task} {weights}" for task in tasks] + commands
        finished(run, report, runtime, commands)


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
