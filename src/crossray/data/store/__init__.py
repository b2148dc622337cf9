"""The prepared dataset: a folder of memory-mapped pixels and Parquet tables (docs/architecture.md).

dataset.json          format version, source, its images, size, cleaner, counts, SHA-256 of the content; written last
studies.parquet       one row per study: texts as in the source, split, labels
images.parquet        one row per view: study, position, height, width, place of its pixels, warnings about its file
images-00000.u8 ...   the pixels, uint8, short side = size, aspect ratio kept
findings.parquet      the findings drawn in each view, with masks as run lengths (phantom only)
rejected.jsonl        studies that could not be used, with the reason
features/HASH/        cached features of models (`crossray.data.batches.features`)
"""

from crossray.data.store.reader import SECTIONS, Dataset, DatasetInfo, StudyRecord
from crossray.data.store.writer import estimated_bytes, write_dataset

__all__ = ["SECTIONS", "Dataset", "DatasetInfo", "StudyRecord", "estimated_bytes", "write_dataset"]
