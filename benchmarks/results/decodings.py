"""One set of weights, several ways of decoding: what changes in the text when nothing changes in what is seen."""

from dataclasses import replace

from crossray.decoding.config import DecodingConfig
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import scores_path
from crossray.evaluation.results import Evaluation
from crossray.generation.generator import Generator
from formats import SPLITS, grid
from steps import Bench, trained

_WAYS = {
    "greedy": DecodingConfig(method="greedy"),
    "beam 3": DecodingConfig(method="beam", beam=3),
    "beam 3, log-probability per word": DecodingConfig(method="beam", beam=3, length_penalty="average"),
    "one sample at 0.7": DecodingConfig(method="sample", temperature=0.7),
    "24 samples at 1, BLEU": DecodingConfig(method="mbr", samples=24),
    "24 samples at 1, CIDEr": DecodingConfig(method="mbr", samples=24, utility="cider"),
    "24 samples at 1, clinical": DecodingConfig(method="mbr", samples=24, utility="clinical"),
    "24 samples at 0.7, BLEU": DecodingConfig(method="mbr", samples=24, temperature=0.7),
    "48 samples at 0.7, BLEU": DecodingConfig(method="mbr", samples=48, temperature=0.7),
    "48 samples at 0.7, BLEU, diagnosis 0.1": DecodingConfig(
        method="mbr", samples=48, temperature=0.7, diagnosis_weight=0.1
    ),
    "48 samples at 0.7, BLEU, diagnosis 1": DecodingConfig(
        method="mbr", samples=48, temperature=0.7, diagnosis_weight=1.0
    ),
}

_METRICS = {"bleu1": "BLEU-1", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "cider": "CIDEr-D", "ce_macro_f1": "macro F1"}


def table(bench: Bench) -> str:
    """The first seed of the first system, decoded in every way."""
    run = trained(bench, bench.systems[0], bench.seeds[0])
    longest = Generator.from_pretrained(run).decoding.max_length
    rows = []
    for name, way in _WAYS.items():
        predictions = run / f"{bench.split}-{name.replace(', ', '-').replace(' ', '-')}.jsonl"
        scores = scores_path(predictions)
        if not scores.exists():
            generator = Generator.from_pretrained(run, decoding=replace(way, max_length=longest))
            generator.generate_dataset(bench.data, bench.split, predictions)
            evaluate(predictions, dataset=bench.data, meteor="no").save(scores)
        part = Evaluation.load(scores).protocols["r2gen"]
        values = [f"{part.result.scores[metric].value:.3f}" for metric in _METRICS]
        shuffle = part.shuffle.differences["cider"] if part.shuffle is not None else None
        looked = "" if shuffle is None else f"{shuffle.value:+.3f} [{shuffle.low:+.3f}, {shuffle.high:+.3f}]"
        found = part.result.variety
        rows.append([name, *values, looked, f"{found.distinct_reports:.2f}", f"{found.words:.1f}"])
    headings = ["decoding", *_METRICS.values(), "CIDEr-D minus shuffled", "distinct reports", "words"]
    about = (
        "*24 samples at 0.7, BLEU* draws 24 reports at temperature 0.7 and returns the one that agrees best with the "
        "others, by BLEU; *diagnosis 0.1* also prefers reports that state what the model's diagnosis finds, with this "
        "weight ([decoding](../training.md#decoding)). All rows have drawing 0 of their samples."
    )
    return (
        f"# Decoding ({SPLITS[bench.split]})\n\n`{bench.systems[0]}`, seed {bench.seeds[0]}, protocol `r2gen`. "
        f"{about}\n\n" + grid(headings, rows)
    )
