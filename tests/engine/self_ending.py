"""Carry out tools in processes that send themselves a signal at a chosen moment; run as a script by test_fit.py.

The argument is a JSON list of {tool, flags, moment, step, number}, each carried out in a process of its own; their
return codes are printed as a JSON list, -9 for a kill. Under torchrun there is one entry, carried out in place: each
rank ends itself after its own one of `steps`, but only once, which it remembers by a file in the folder `markers`.
"""

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

from densebnn.engine import finetune, pretrain  # noqa: F401  # once, before the processes fork
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.cli import run_main
from densebnn.engine.run_folder import RunFolder

TOOLS = Path(__file__).parents[2] / "tools"


def end_at(moment, step, number, marker=None):
    """Make this process send itself the signal `number`: before the report, or after it has logged or saved `step`."""
    owner, name = {
        "logged": (RunFolder, "log"),
        "saved": (Checkpoints, "save"),
        "reporting": (RunFolder, "write_report"),
    }[moment]
    original = getattr(owner, name)

    def ending(self, first, *rest, **named):
        if moment != "reporting":
            original(self, first, *rest, **named)
        if moment == "reporting" or (first["step"] if moment == "logged" else first) == step:
            if marker:
                marker.touch()
            os.kill(os.getpid(), number)

    setattr(owner, name, ending)


def carry_out(tool, flags):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run_main(module.main, flags)


def carried_out_apart(tool, flags, moment, step, number):
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        end_at(moment, step, number)
        carry_out(tool, flags)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    entries = json.loads(sys.argv[1])
    if "RANK" not in os.environ:
        print(json.dumps([carried_out_apart(**entry) for entry in entries]))
        sys.exit()
    (entry,) = entries
    rank = int(os.environ["RANK"])
    marker = Path(entry["markers"], str(rank))
    if not marker.exists():
        end_at("logged", entry["steps"][rank], signal.SIGKILL, marker)
    carry_out(entry["tool"], entry["flags"])
