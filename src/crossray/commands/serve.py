"""`crossray serve` and `crossray keys`: a model at work, and who may use it."""

import importlib.util
from pathlib import Path

from crossray.errors import UserError
from crossray.pages.terminal import console


def serve(
    model: list[str],
    dicom_callers: list[str] | None = None,
    dicomweb: list[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    store: str = "sqlite:///crossray.db",
    keep: float | None = None,
    keys: Path | None = None,
    oidc_issuer: str | None = None,
    oidc_audience: str | None = None,
    oidc_jwks: str | None = None,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    dicom_port: int | None = None,
    dicom_ae_title: str = "CROSSRAY",
    send_to: str | None = None,
    attention_overlay: bool = False,
    quiet_seconds: float = 10.0,
    strict: bool = False,
    doubt: float = 0.5,
    batch_size: int = 16,
    window: float = 0.01,
    in_flight: int = 64,
    rate: int = 0,
    max_upload: int = 128,
    max_files: int = 16,
    decoders: int = 2,
    decode_seconds: float = 30.0,
    decode_memory: int = 2048,
    metrics_open: bool = False,
    device: str = "auto",
) -> None:
    """Serve models: an HTTP interface and a page to read drafts on. Research use only, not a medical device.

    Args:
        model: model folder, or NAME=FOLDER; repeat it to serve several.
        dicom_callers: AE titles that may send; needed when others than this machine reach the port.
        dicomweb: roots of archives whose studies may be asked for by their address.
        host: address to listen on; other than the loopback only with keys or an issuer.
        port: to listen on; 0 for any that is free.
        store: database of accepted studies and reports, such as sqlite:///crossray.db or
            postgresql+psycopg://user@host/name.
        keep: days that a finished study stays in the store; 0: until its report is delivered; for ever when left out.
        keys: file of API keys, see `crossray keys`.
        oidc_issuer: URL of an identity provider whose bearer tokens are believed.
        oidc_audience: name of this service in its tokens.
        oidc_jwks: file or URL of its keys; by default what the issuer says.
        tls_certificate: certificate with its chain, PEM.
        tls_key: private key of the certificate, PEM.
        dicom_port: also receive radiographs by C-STORE there.
        dicom_ae_title: AE title of this node.
        send_to: who gets the reports of studies that came by DICOM: AE@host:port or the root of a DICOMweb service.
        attention_overlay: send with each of these reports a presentation state that outlines where the model looked.
        quiet_seconds: a study that came by DICOM is complete when nothing new came for so long.
        strict: refuse images that the input check flags.
        doubt: sentences of less confidence are marked.
        batch_size: most studies of a batch.
        window: seconds that a study waits for others to share its batch.
        in_flight: most studies that are accepted and not reported yet; one more is answered 429.
        rate: requests for a report a minute and caller; 0 for no limit.
        max_upload: largest request, in MiB.
        max_files: most files of a study.
        decoders: processes that decode images.
        decode_seconds: longest time to decode a study.
        decode_memory: most memory of such a process, in MiB.
        metrics_open: give the numbers at /metrics to anybody.
        device: auto (a GPU where there is one), cpu, cuda or cuda:1.
    """
    _need("fastapi", "uvicorn", "sqlalchemy", "prometheus_client", "multipart", "jwt", "pebble")
    from crossray.serving.run import run
    from crossray.serving.settings import Limits, Settings

    for name, least, value in (
        ("in-flight", 1, in_flight), ("rate", 0, rate), ("max-upload", 1, max_upload), ("max-files", 1, max_files),
        ("decode-memory", 64, decode_memory), ("quiet-seconds", 0, quiet_seconds),
        ("decode-seconds", 0.1, decode_seconds),
    ):  # fmt: skip
        if value < least:
            raise UserError(f"--{name} {value}: give {least} or more.")
    limits = Limits(max_upload * 2**20, max_files, in_flight, rate, decode_seconds, decode_memory * 2**20)
    settings = Settings(
        models=named_models(model), store=store, device=device, batch=batch_size, window=window, decoders=decoders,
        keep=keep, strict=strict, doubt=doubt, keys=keys, issuer=oidc_issuer, audience=oidc_audience, jwks=oidc_jwks,
        metrics_open=metrics_open, limits=limits, host=host, certificate=tls_certificate, private_key=tls_key,
        dicom_port=dicom_port, dicom_title=dicom_ae_title, dicom_callers=tuple(dicom_callers or ()), send_to=send_to,
        overlay=attention_overlay,
        quiet=quiet_seconds, archives=tuple(dicomweb or ()),
    )  # fmt: skip
    run(settings, port=port)


def keys(
    keys: Path,
    name: str | None = None,
    scopes: list[str] | None = None,
    days: float = 90.0,
    revoke: str | None = None,
) -> None:
    """Make, list and revoke the API keys of `crossray serve`; a running service notices.

    Args:
        keys: file that holds them, as hashes; it is made when it is missing.
        name: owner of a new key, which is printed once; the keys are listed when this is left out.
        scopes: what it may do: report, metrics, admin.
        days: until it expires.
        revoke: number of a key to remove, as the list shows it.
    """
    from datetime import UTC, datetime

    from crossray.serving import keys as file

    if revoke is not None:
        file.revoke(keys, revoke)
        console().print(f"{revoke} is revoked.")
    elif name is not None:
        made = file.make_key(keys, name, tuple(scopes or ["report"]), days)
        console().print(made, highlight=False, soft_wrap=True)
    else:
        if not keys.exists():
            raise UserError(f"--keys {keys}: there is no such file; make a key with --name OWNER.")
        for key in file.read_keys(keys):
            end = datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%d")
            console().print(f"{key.number}  {key.name}  {','.join(key.scopes)}  until {end}", highlight=False)


def named_models(given: list[str]) -> dict[str, str]:
    """Name and folder of each `--model`: NAME=FOLDER, or a folder whose last part becomes the name."""
    from crossray.files.folders import short_names

    pairs = [text.partition("=") for text in given]
    folders = [folder if sign else name for name, sign, folder in pairs]
    names = [
        name if sign else short.replace("/", "-")
        for (name, sign, _), short in zip(pairs, short_names(folders), strict=True)
    ]
    for name in names:
        if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or names.count(name) > 1:
            raise UserError(f"--model {name}: names are letters, digits, - _ and ., each once; give NAME=FOLDER.")
    return dict(zip(names, folders, strict=True))


def _need(*modules: str) -> None:
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise UserError("`crossray serve` needs more packages; pip install 'crossray[serve]'.")
