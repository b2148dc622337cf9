"""A plug-in of pytest that starts the modules which take longest first: `-p tests.slowest_first`.

Processes take one module after the other (`--dist loadscope --no-loadscope-reorder`); a process that starts a long one
last would keep the others waiting.
"""

import pytest

#: Modules of slow tests that take over 15 seconds, about the longest first. Those that start Ray stand apart, because
#: they wait for each other. All other modules come after these.
SLOWEST = (
    "tests/models/test_liveness.py",
    "tests/ablation/test_rows.py",
    "tests/training/test_repeatable.py",
    "tests/test_every_option.py",
    "tests/models/test_every_model.py",
    "tests/training/test_run.py",
    "tests/generation/test_cluster.py",
    "tests/serving/test_faults.py",
    "tests/e2e/test_e2e.py",
    "tests/data/batches/test_module.py",
    "tests/training/test_gaps.py",
    "tests/data/batches/test_features.py",
    "tests/training/test_ddp.py",
    "tests/docs/test_code_blocks.py",
    "tests/ablation/test_runs.py",
    "tests/oracles/test_metrics_meteor.py",
    "tests/phantom/test_severity.py",
    "tests/training/test_recipe.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {module: place for place, module in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.nodeid.split("::")[0], len(SLOWEST)))
