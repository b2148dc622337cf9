"""Table 1: all systems under both protocols, beside what each has to beat."""

import json
from collections.abc import Mapping, Sequence

from crossray.evaluation.results import Evaluation, ProtocolEvaluation
from formats import SPLITS, grid, narrow, over_seeds
from neighbours import NEAREST_FEATURES, nearest_by_features
from steps import Bench, crossray, scored

_TEXT = {
    "bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "meteor_1.5_jar": "METEOR",
    "rouge_l": "ROUGE-L", "cider": "CIDEr-D",
}  # fmt: skip
_KINDS = {"example": "", "micro": "micro_", "macro": "macro_"}
_MEASURES = ("precision", "recall", "f1")
#: Columns of numbers that fit on a page beside the names.
_WIDEST = 4


def table(bench: Bench) -> str:
    """Train and score every system with every seed, unless only finished runs count, then write what there is."""
    for system in bench.systems:
        for seed in bench.seeds:
            if not bench.finished_only:
                scored(bench, system, seed)
    return written(bench)


def written(bench: Bench) -> str:
    """The tables of the runs that are scored."""
    runs: dict[str, list[Evaluation]] = {}
    seeds: dict[str, list[int]] = {}
    for system, seed in bench.done():
        runs.setdefault(system, []).append(Evaluation.load(bench.scores(system, seed)))
        seeds.setdefault(system, []).append(seed)
    lines = [f"# Main results ({SPLITS[bench.split]})\n"]
    held = "; ".join(f"{system}: {' '.join(map(str, held))}" for system, held in seeds.items())
    lines.append(
        "All systems use the same frozen image encoder. [How to read the results](how-to-read.md) explains the "
        f"baselines and the checks. Seeds: {held}. With several seeds: mean ± deviation [95% interval of the mean, "
        "Student's t].\n"
    )
    retrieved = nearest_by_features(bench, *bench.done()[0])
    for protocol in ("r2gen", "full"):
        parts = {system: [run.protocols[protocol] for run in of] for system, of in runs.items()}
        lines += [f"## Protocol `{protocol}`\n", *_texts(parts, retrieved[protocol])]
    lines += ["## Use of the image\n", _looking(bench, runs, seeds), *_significance(bench)]
    return "\n".join(lines)


Parts = dict[str, list[ProtocolEvaluation]]


def _texts(parts: Parts, retrieved: Mapping[str, float]) -> list[str]:
    """Metrics of the text, then clinical efficacy over 14 and over 5 observations."""
    known = next(iter(parts.values()))[0].result.scores
    text = {name: heading for name, heading in _TEXT.items() if name in known}
    grids = [narrow(grid(["system", *text.values()], _rows(parts, retrieved, list(text))), _WIDEST)]
    for prefix, observations in (("ce", 14), ("ce5", 5)):
        names = [f"{prefix}_{kind}{measure}" for kind in _KINDS.values() for measure in _MEASURES]
        headings = [f"{kind} {measure}" for kind in _KINDS for measure in ("P", "R", "F1")]
        rows = _rows(parts, retrieved, names)
        grids.append(narrow(grid([f"{observations} observations", *headings], rows), len(_MEASURES)))
    return grids


def _rows(parts: Parts, retrieved: Mapping[str, float], names: Sequence[str]) -> list[list[str]]:
    rows = []
    for system, of in parts.items():
        columns = [[found for part in of if (found := _value(part, name)) is not None] for name in names]
        rows.append([system, *(over_seeds(column) for column in columns)])
    for baseline in next(iter(parts.values()))[0].baselines:
        values = [baseline.scores.get(name) for name in names]
        rows.append([baseline.system, *("" if value is None else f"{value.value:.3f}" for value in values)])
    rows.append([NEAREST_FEATURES, *(f"{retrieved[name]:.3f}" if name in retrieved else "" for name in names)])
    return rows


def _value(part: ProtocolEvaluation, name: str) -> float | None:
    score = part.result.scores.get(name)
    return None if score is None else score.value


def _looking(bench: Bench, runs: dict[str, list[Evaluation]], seeds: dict[str, list[int]]) -> str:
    rows = []
    for system, of in runs.items():
        parts = [run.protocols["r2gen"] for run in of]
        best = [json.loads(bench.best(system, seed).read_text()) for seed in seeds[system]]
        shuffles = [part.shuffle.differences["cider"] for part in parts if part.shuffle is not None]
        lows = ", ".join(f"{difference.low:+.3f}" for difference in shuffles)
        alarms = sorted({alarm.name for part in parts for alarm in part.alarms})
        rows.append(
            [
                system,
                over_seeds([run["validation"]["image_gain"] for run in best]),
                over_seeds([difference.value for difference in shuffles]),
                lows,
                over_seeds([part.result.variety.distinct_reports for part in parts], 2),
                over_seeds([part.result.variety.words for part in parts], 1),
                ", ".join(alarms) or "none",
                over_seeds([minutes(bench, system, seed) for seed in seeds[system]], 0),
            ]
        )
    truth = next(iter(runs.values()))[0].protocols["r2gen"].true_reports
    rows.append(["true reports", "", "", "", f"{truth.distinct_reports:.2f}", f"{truth.words:.1f}", "", ""])
    headings = [
        "system", "image gain, nats per token (validation)", "CIDEr-D minus shuffled", "lower end, each seed",
        "distinct reports", "words", "alarms", "training, minutes",
    ]  # fmt: skip
    return narrow(grid(headings, rows, words=("alarms",)), _WIDEST)


def minutes(bench: Bench, system: str, seed: int) -> float:
    """Minutes that a run trained, validations included."""
    last = (bench.run(system, seed) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["seconds"]) / 60


def _significance(bench: Bench) -> list[str]:
    """Every system against `cmn`, or against the first one where that is not there; first seed of each."""
    firsts = dict(reversed(bench.done()))
    if len(firsts) < 2:
        return []
    reference = "cmn" if "cmn" in firsts else bench.systems[0]
    files = [bench.predictions(system, seed) for system, seed in firsts.items() if system != reference]
    target = bench.runs / f"against-{reference}.{bench.split}.md"
    crossray(
        "compare", bench.predictions(reference, firsts[reference]), *files, "--against", "first", "--meteor", "no",
        "--metrics", "cider", "bleu4", "ce_f1", "--markdown", target,
    )  # fmt: skip
    text = target.read_text(encoding="utf-8").replace(f"{bench.runs}/", "runs/results/")  # no folder of this machine
    return [f"## Comparison with `{reference}` (first seed of each)\n", narrow(text, _WIDEST)]
