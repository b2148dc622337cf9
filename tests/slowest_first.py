"""A plug-in of pytest that starts the modules which take longest first: `-p tests.slowest_first`.

Processes take one module after the other (`--dist loadscope --no-loadscope-reorder`); a process that starts a long one
last would keep the others waiting.
"""

import pytest

#: Modules of slow tests that take over 20 seconds, longest first. A module that is not listed comes after them.
SLOWEST = (
    "tests/models/test_liveness.py",
    "tests/models/test_every_model.py",
    "tests/ablation/test_rows.py",
    "tests/training/test_run.py",
    "tests/training/test_repeatable.py",
    "tests/serving/test_faults.py",
    "tests/docs/test_code_blocks.py",
    "tests/training/test_gaps.py",
    "tests/e2e/test_e2e.py",
    "tests/generation/test_cluster.py",
    "tests/data/batches/test_module.py",
    "tests/training/test_ddp.py",
    "tests/data/batches/test_features.py",
    "tests/test_every_option.py",
    "tests/ablation/test_runs.py",
    "tests/oracles/test_metrics_meteor.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {module: place for place, module in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.nodeid.split("::")[0], len(SLOWEST)))
