"""Connection to a Ray cluster and its devices; its work is tested with `generate` and with the cache of features."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from crossray.data.store import engines
from crossray.data.store.cluster import choose_devices
from crossray.errors import UserError


def test_a_machine_without_a_cluster_is_said(monkeypatch):
    """Such an error of Ray is an `OSError`, which the cache of features would take for one of the disk."""

    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setattr(engines, "import_module", lambda _: ray)
    with pytest.raises(UserError, match=r"^RAY_ADDRESS auto: no cluster answers"), engines.ray_cluster("x"):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_nothing_connects_again_after_the_work(monkeypatch):
    """A thread of Ray Data that outlived its run did, and the next `ray.init` of the process failed."""
    monkeypatch.delenv("RAY_ENABLE_AUTO_CONNECT")
    code = """if True:
        from crossray.data.store.engines import ray_cluster
        with ray_cluster("x") as ray:
            pass
        try:
            ray.put(0)
        except ray.exceptions.RaySystemError as error:
            print(error)
        with ray_cluster("x") as ray:
            print(ray.get(ray.put("again")))
    """
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    refused, again = done.stdout.splitlines()
    assert "Ray has not been started yet" in refused
    assert again == "again"


def test_the_devices_are_those_of_the_cluster():
    gpus, cpus = {"GPU": 4.0, "CPU": 64.0}, {"CPU": 8.0}
    assert choose_devices(gpus, "auto", None) == ("GPU", 4)
    assert choose_devices(gpus, "cuda", 3) == ("GPU", 3)
    assert choose_devices(gpus, "cpu", None) == ("CPU", 64)
    assert choose_devices(cpus, "auto", None) == ("CPU", 8)
    for resources, device, devices, message in (
        (gpus, "auto", 5, "--devices 5: the Ray cluster has 4 GPUs"),
        (cpus, "cuda", None, "--device cuda: the Ray cluster has no GPU; give auto, or start it with some"),
        ({"memory": 1.0}, "auto", None, "the Ray cluster has no CPU; start it with some"),
        (gpus, "cuda:1", None, "--device cuda:1: .* give auto, cpu or cuda"),
    ):
        with pytest.raises(UserError, match=message):
            choose_devices(resources, device, devices)
