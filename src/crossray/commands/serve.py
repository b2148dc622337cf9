"""`crossray serve` and `crossray keys`: the service and its API keys."""

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
    upload_seconds: float = 120.0,
    max_files: int = 16,
    decoders: int = 2,
    decode_seconds: float = 30.0,
    decode_memory: int = 2048,
    metrics_open: bool = False,
    device: str = "auto",
) -> None:
    """Serve models over HTTP, with a page for reading drafts. Research use only, not a medical device.

    Args:
        model: model folder, or NAME=FOLDER; repeat it to serve several.
        dicom_callers: AE titles that may send by DICOM; required when the port is reachable from other machines.
        dicomweb: root URLs of DICOMweb archives from which studies may be requested.
        host: address to listen on; any other than loopback requires --keys or --oidc-issuer.
        port: port to listen on; 0 picks a free one.
        store: database URL for accepted studies and their reports, such as sqlite:///crossray.db or
            postgresql+psycopg://user@host/name.
        keep: days to store a finished study; 0 deletes it as soon as its report is delivered; by default, it is stored
            forever.
        keys: file of API keys; see `crossray keys`.
        oidc_issuer: URL of an identity provider whose bearer tokens are accepted.
        oidc_audience: audience that the tokens must contain.
        oidc_jwks: file or URL of the provider's keys; by default, taken from its metadata.
        tls_certificate: TLS certificate with its chain, PEM.
        tls_key: private key of the certificate, PEM.
        dicom_port: port on which radiographs are also received by DICOM C-STORE.
        dicom_ae_title: AE title of this node.
        send_to: destination for the reports of studies received by DICOM: AE@host:port, or the root URL of a DICOMweb
            service.
        attention_overlay: with each report to --send-to, also send a presentation state that outlines where the model
            looked.
        quiet_seconds: seconds without a new image after which a study received by DICOM counts as complete.
        strict: refuse images that the input check flags.
        doubt: confidence below which a sentence is marked as doubtful.
        batch_size: maximum number of studies in a batch.
        window: seconds that a study waits for others to join its batch.
        in_flight: maximum number of studies that are being uploaded or have no report yet; further requests are
            answered with 429.
        rate: maximum number of report requests per minute and caller; 0 for no limit.
        max_upload: maximum size of a request, in MiB.
        upload_seconds: time limit for sending a request, in seconds.
        max_files: maximum number of files in a study.
        decoders: number of processes that decode images.
        decode_seconds: time limit for decoding a study, in seconds.
        decode_memory: memory limit for decoding a study, in MiB.
        metrics_open: serve /metrics without authentication.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    _need("fastapi", "uvicorn", "sqlalchemy", "prometheus_client", "multipart", "jwt", "pebble")
    from crossray.serving.run import run
    from crossray.serving.settings import Limits, Settings

    for name, least, value in (
        ("in-flight", 1, in_flight), ("rate", 0, rate), ("max-upload", 1, max_upload), ("max-files", 1, max_files),
        ("decode-memory", 64, decode_memory), ("quiet-seconds", 0, quiet_seconds),
        ("decode-seconds", 0.1, decode_seconds), ("upload-seconds", 0.1, upload_seconds),
    ):  # fmt: skip
        if value < least:
            raise UserError(f"--{name} {value}: give {least} or more.")
    limits = Limits(
        max_upload * 2**20, max_files, in_flight, rate, decode_seconds, decode_memory * 2**20, upload_seconds
    )
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
    """Create, list and revoke API keys of `crossray serve`; a running service picks up the change.

    Args:
        keys: file with the hashed keys; created if it does not exist.
        name: owner of a new key, which is printed only once; without --name, the keys are listed.
        scopes: rights of a new key: report, metrics, admin.
        days: number of days until a new key expires.
        revoke: number of the key to revoke, as in the list.
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
    """Return the folder of each `--model` by name: NAME=FOLDER, or a folder whose last component becomes the name."""
    from crossray.files.folders import short_names

    pairs = [text.partition("=") for text in given]
    folders = [folder if sign else name for name, sign, folder in pairs]
    names = [
        name if sign else short.replace("/", "-")
        for (name, sign, _), short in zip(pairs, short_names(folders), strict=True)
    ]
    for name in names:
        if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or names.count(name) > 1:
            raise UserError(
                f"--model {name}: names must be unique, of letters, digits, '-', '_' and '.'; give NAME=FOLDER."
            )
    return dict(zip(names, folders, strict=True))


def _need(*modules: str) -> None:
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise UserError("`crossray serve` needs more packages; run `pip install 'crossray[serve]'`.")
