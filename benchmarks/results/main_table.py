"""Table 1: all systems under both protocols, beside what each has to beat."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.published import for_data
from crossray.evaluation.results import Evaluation, ProtocolEvaluation
from crossray.evaluation.statistics.significance import Interval
from crossray.pages.published_tables import differences
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
        "Student's t]. With one: the score [its 95% bootstrap interval over the studies].\n"
    )
    retrieved = nearest_by_features(bench, *bench.done()[0])
    for protocol in ("r2gen", "full"):
        parts = {system: [run.protocols[protocol] for run in of] for system, of in runs.items()}
        lines += [f"## Protocol `{protocol}`\n", *_texts(parts, retrieved[protocol])]
        if protocol == "r2gen":
            lines += _published(parts)
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
        columns = [[found for part in of if (found := part.result.scores.get(name)) is not None] for name in names]
        rows.append([system, *(_cell(column) for column in columns)])
    for baseline in next(iter(parts.values()))[0].baselines:
        values = [baseline.scores.get(name) for name in names]
        rows.append([baseline.system, *("" if value is None else f"{value.value:.3f}" for value in values)])
    rows.append([NEAREST_FEATURES, *(f"{retrieved[name]:.3f}" if name in retrieved else "" for name in names)])
    return rows


def _cell(scores: Sequence[Interval]) -> str:
    if len(scores) == 1:
        return f"{scores[0].value:.3f}<br>[{scores[0].low:.3f}, {scores[0].high:.3f}]"
    return over_seeds([score.value for score in scores])


#: Name of a metric in published tables -> ours.
_THEIRS = {name.removesuffix("_1.5_jar"): name for name in _TEXT}
#: Published rows beside the papers' own, with the table that has them.
_FAMILY = {"R2Gen": "uar/iu-xray", "R2GenCMN": "uar/iu-xray"}


def _published(parts: "Parts") -> list[str]:
    """The published scores, ours below, and what differs between the protocols."""
    rows: list[list[str]] = []
    said: dict[str, list[str]] = {}
    for table in for_data("iu-xray"):
        for row in table.rows:
            if row.own or _FAMILY.get(row.name) == table.identifier:
                values = [row.values.get(metric) for metric in _THEIRS]
                rows.append([f"{row.name}, published", *("" if value is None else f"{value:.3f}" for value in values)])
            if row.own and row.name.lower() in parts:
                for sentence in differences(parts[row.name.lower()][0].result, table, drawn=False):
                    said.setdefault(sentence, []).append(row.name)
    for system, of in parts.items():
        found = [[score.value for part in of if (score := part.result.scores.get(name))] for name in _THEIRS.values()]
        rows.append([f"`{system}`", *(f"{fmean(values):.3f}" if values else "" for values in found)])
    return [
        "### Beside the published scores\n",
        "The published models have the papers' sizes and were scored on the test split, ours have laptop size and are "
        "scored on the split of this page. Ours are means over the seeds.\n",
        narrow(grid(["system", *_TEXT.values()], rows), _WIDEST),
        "What else differs, with the papers that each sentence is about:\n",
        "\n".join(f"- {sentence} ({', '.join(of)})" for sentence, of in said.items()) + "\n",
    ]


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
    """Every system against `cmn`, or against the first one where that is not there; first seed of each.

    Systems with another vocabulary have other references under `r2gen`, so that they are compared apart, under `full`.
    """
    firsts = dict(reversed(bench.done()))
    if len(firsts) < 2:
        return []
    reference = "cmn" if "cmn" in firsts else bench.systems[0]
    files = {system: bench.predictions(system, seed) for system, seed in firsts.items()}
    words = {system: PredictionFile.load(file).provenance.tokenizer for system, file in files.items()}
    same = [system for system in files if system != reference and words[system] == words[reference]]
    other = [system for system in files if words[system] != words[reference]]
    return [
        f"## Comparison with `{reference}` (first seed of each)\n",
        *(
            _compared(bench, files[reference], [files[system] for system in chosen])
            for chosen in (same, other)
            if chosen
        ),
    ]


def _compared(bench: Bench, reference: Path, files: Sequence[Path]) -> str:
    target = bench.runs / f"against.{bench.split}.md"
    crossray(
        "compare", reference, *files, "--against", "first", "--meteor", "no",
        "--metrics", "cider", "bleu4", "ce_f1", "--markdown", target,
    )  # fmt: skip
    text = target.read_text(encoding="utf-8").replace(f"{bench.runs}/", "runs/results/")  # no folder of this machine
    return narrow(text, _WIDEST)
