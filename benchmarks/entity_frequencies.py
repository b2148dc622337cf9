"""How often the rules of `crossray.text.entities` read each entity in the training reports of a prepared dataset.

python benchmarks/entity_frequencies.py --data data/iu
"""

import time
from collections import Counter
from pathlib import Path

from common import parser, report
from crossray.data.store import Dataset
from crossray.text.entities import ENTITIES, read_sentences, summarize
from crossray.text.observations import STATUSES


def main() -> None:
    """Print the table."""
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, required=True, help="prepared dataset")
    given = options.parse_args()
    dataset = Dataset.open(given.data)
    texts = dataset.reports(dataset.rows("train"))
    counts: Counter[tuple[str, str]] = Counter()
    sentences = silent = placed = mentions = 0
    start = time.perf_counter()
    for text in texts:
        read = read_sentences(text)
        sentences, silent = sentences + len(read), silent + sum(not triplets for _, triplets in read)
        triplets = [triplet for _, each in read for triplet in each]
        mentions, placed = mentions + len(triplets), placed + sum(t.places != ("unspecified",) for t in triplets)
        counts.update(zip(ENTITIES, (STATUSES[code] for code in summarize(triplets).statuses), strict=True))
    seconds = time.perf_counter() - start
    rows = [{"entity": name, **{status: counts[name, status] for status in STATUSES[1:]}} for name in ENTITIES]
    report(
        f"{len(texts)} reports in {seconds:.1f} s; {silent / sentences:.1%} of {sentences} sentences "
        f"without an entity; {placed / mentions:.1%} of {mentions} mentions with a place",
        rows,
        json=given.json,
    )


if __name__ == "__main__":
    main()
