"""Time to convert a checkpoint of CheXbert's real size, to open the folder, and to label reports of 60 words.

Weights and vocabulary are made up: neither time depends on their values.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from common import parser, peak_memory_mb, report
from crossray.evaluation.labelers.chexbert import CheXbert, CheXbertConfig, CheXbertLabeler
from crossray.evaluation.labelers.chexbert_weights import convert_chexbert
from metrics import made_up_reports


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--reports", type=int, default=64, help="reports to label")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        weights, vocabulary, out = (Path(folder) / name for name in ("chexbert.pth", "vocab.txt", "chexbert"))
        state = {f"module.{name}": tensor for name, tensor in CheXbert(CheXbertConfig()).state_dict().items()}
        torch.save({"model_state_dict": state}, weights)
        words = [f"word{number}" for number in range(CheXbertConfig().vocabulary - 4)]
        vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))

        start = time.perf_counter()
        convert_chexbert(weights, vocabulary, out)
        rows.append({"what": "convert", "seconds": time.perf_counter() - start, "peak memory MB": peak_memory_mb()})
        start = time.perf_counter()
        labeler = CheXbertLabeler.from_pretrained(out, device=chosen.device)
        rows.append({"what": "open", "seconds": time.perf_counter() - start})
        reports = made_up_reports(chosen.reports, 60, 760, 1)
        labeler.label(reports[:2])
        start = time.perf_counter()
        labeler.label(reports)
        seconds = time.perf_counter() - start
        rows.append({"what": "label", "seconds": seconds, "reports/s": chosen.reports / seconds})
    report(f"CheXbert: {chosen.reports} reports of 60 words on {chosen.device}", rows, json=chosen.json)


if __name__ == "__main__":
    main()
