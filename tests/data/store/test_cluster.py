"""Devices of a Ray cluster; what runs on one is tested with `generate` and with the cache of features."""

import pytest

from crossray.data.store.cluster import choose_devices
from crossray.errors import UserError


def test_the_devices_are_those_of_the_cluster():
    gpus, cpus = {"GPU": 4.0, "CPU": 64.0}, {"CPU": 8.0}
    assert choose_devices(gpus, "auto", None) == ("GPU", 4)
    assert choose_devices(gpus, "cuda", 3) == ("GPU", 3)
    assert choose_devices(gpus, "cpu", None) == ("CPU", 64)
    assert choose_devices(cpus, "auto", None) == ("CPU", 8)
    for resources, device, devices, message in (
        (gpus, "auto", 5, "--devices 5: the Ray cluster has 4 GPUs"),
        (cpus, "cuda", None, "--device cuda: the Ray cluster has no GPU"),
        (gpus, "cuda:1", None, "--device cuda:1: .* give auto, cpu or cuda"),
    ):
        with pytest.raises(UserError, match=message):
            choose_devices(resources, device, devices)
