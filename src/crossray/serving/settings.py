"""Settings and limits of the service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossray.data.images import MAX_BYTES
from crossray.errors import UserError
from crossray.interop import draft

#: Notice shown with every report of the service.
NOTICE = draft.NOTICE


#: Loopback names, on which a service may listen without keys.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """Limits beyond which requests are rejected.

    Attributes:
        upload: maximum size of a request in bytes.
        files: maximum number of files in a study.
        in_flight: maximum number of studies that are being uploaded or have no report yet.
        rate: maximum number of report requests per minute and caller; 0 for no limit.
        decode_seconds: time limit in seconds for decoding the images of a study.
        decode_memory: memory limit in bytes for decoding, in addition to that of the interpreter.
        upload_seconds: time limit in seconds for sending a request.
    """

    upload: int = MAX_BYTES
    files: int = 16
    in_flight: int = 64
    rate: int = 0
    decode_seconds: float = 30.0
    decode_memory: int = 2 * 2**30
    upload_seconds: float = 120.0


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Attributes:
        models: folder of each model by name; the first is the default.
        store: URL of the journal.
        device: device of the models.
        batch: maximum number of studies per batch.
        window: seconds that a study waits for others to share its batch.
        decoders: number of processes that decode images.
        keep: number of days to store a finished study; 0 to delete it once its report is delivered; None for no limit.
        strict: whether to reject images that the input check flags.
        doubt: confidence below which a sentence is marked as doubtful.
        quiet: seconds without a new object after which a study received in parts is complete.
        keys: file of API keys.
        issuer: URL of the issuer of OpenID Connect tokens; `audience`: required audience; `jwks`: file or URL of the
            issuer's keys.
        metrics_open: whether /metrics is accessible without a key.
        certificate: TLS certificate with its chain (PEM), for HTTP and DICOM; `private_key`: its key.
        host: address to listen on, for HTTP and DICOM.
        dicom_port: port for C-STORE; None for no DICOM. `dicom_title`: AE title of the node; `dicom_callers`: AE titles
            that may send, any if empty.
        send_to: receiver of the reports of DICOM studies: AE@host:port or the root URL of a DICOMweb service.
        overlay: whether to send a presentation state of the model's attention with each of these reports.
        archives: root URLs of DICOMweb services from which studies may be requested.
        limits: limits beyond which requests are rejected.
    """

    models: Mapping[str, Path | str]
    store: str = "sqlite:///crossray.db"
    device: str = "auto"
    batch: int = 16
    window: float = 0.01
    decoders: int = 2
    keep: float | None = None
    strict: bool = False
    doubt: float = 0.5
    quiet: float = 10.0
    keys: Path | None = None
    issuer: str | None = None
    audience: str | None = None
    jwks: str | None = None
    metrics_open: bool = False
    certificate: Path | None = None
    private_key: Path | None = None
    host: str = "127.0.0.1"
    dicom_port: int | None = None
    dicom_title: str = "CROSSRAY"
    dicom_callers: tuple[str, ...] = ()
    send_to: str | None = None
    overlay: bool = False
    archives: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", self.host.strip("[]"))  # as around an IPv6 address in a URL
        if not self.models:
            raise UserError("--model: name at least one model folder.")
        if self.keep is not None and self.keep < 0:
            raise UserError(f"--keep {self.keep}: give 0 or more days.")
        if not 0 <= self.doubt <= 1:
            raise UserError(f"--doubt {self.doubt}: give a confidence from 0 to 1.")
        if self.batch < 1 or self.decoders < 1 or self.window < 0:
            raise UserError("--batch-size and --decoders must be at least 1 and --window at least 0; correct them.")
        if (self.issuer is None) != (self.audience is None):
            raise UserError("--oidc-issuer and --oidc-audience belong together; give both.")
        if (self.certificate is None) != (self.private_key is None):
            raise UserError("--tls-certificate and --tls-key belong together; give both.")
        if self.send_to is not None and self.dicom_port is None:
            raise UserError("--send-to sends the reports of studies received by DICOM; also give --dicom-port.")

    @property
    def open(self) -> bool:
        """Whether the service has no access control."""
        return self.keys is None and self.issuer is None
