"""The Python API: load a model, generate reports, inspect the evidence behind them, and score them.

    import crossray

    model = crossray.load("runs/a")
    report = model.report("frontal.png", "lateral.dcm")
    print(report)

`load`, `evaluate` and the classes except `Attention` and `Study` are also attributes of `crossray`.
"""

from crossray.api.report import Attention, Report, Sentence
from crossray.api.reporter import Reporter, Study, load
from crossray.api.scores import Scores, evaluate
from crossray.confidence.check import InputCheck

__all__ = ["Attention", "InputCheck", "Report", "Reporter", "Scores", "Sentence", "Study", "evaluate", "load"]
