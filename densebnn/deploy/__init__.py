"""Binary networks at inference: frozen to bits, in packed files, on kernels of one bit, exported."""

from densebnn.deploy.freezing import freeze
from densebnn.deploy.packed import load_packed, save_packed
from densebnn.deploy.pretrained import PretrainedPredictor
from densebnn.deploy.verdict import LayerVerdict, Verdict, verdict

__all__ = ["LayerVerdict", "PretrainedPredictor", "Verdict", "freeze", "load_packed", "save_packed", "verdict"]
