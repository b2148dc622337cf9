"""Old location of `write_dataset`, until version 0.2; import it from `crossray.data.store`."""

from crossray.data.store.writer import estimated_bytes, write_dataset

__all__ = ["estimated_bytes", "write_dataset"]
