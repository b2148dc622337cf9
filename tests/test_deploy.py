"""What the container, the composition and the unit start is what the command line takes."""

import json
import re
import shlex
from pathlib import Path

import yaml

from crossray import cli

ROOT = Path(__file__).parents[1]


def parsed(*arguments: str) -> None:
    """Parse a command, without running it."""
    given = [cli._underscored(argument) for argument in arguments]
    cli._build(given).parse_args(cli._spelled_out(given))


def container() -> tuple[list[str], list[str], str]:
    """Entry point, command and text of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text()
    entry, command = (json.loads(re.findall(rf"^{name} (\[.*\])$", text, re.M)[-1]) for name in ("ENTRYPOINT", "CMD"))
    return entry[1:], command, text


def test_the_container_serves_without_root() -> None:
    entry, command, text = container()
    parsed(*entry, *command)
    assert "--keys" in command  # without them the service refuses to listen beyond the loopback
    assert re.findall(r"^USER (.*)$", text, re.M)[-1] == "10001"
    assert "HEALTHCHECK" in text
    for name in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        assert all((ROOT / part).exists() for part in name.split())


def test_the_composition_is_closed() -> None:
    entry, _, _ = container()
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = composed["services"]["crossray"]
    parsed(*entry, *service["command"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(str(port).startswith("127.0.0.1:") for one in composed["services"].values() for port in one["ports"])


def test_the_unit_serves() -> None:
    text = (ROOT / "deploy" / "crossray.service").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    parsed(*shlex.split(command)[1:])
    assert "DynamicUser=yes" in text
    assert "ProtectSystem=strict" in text
