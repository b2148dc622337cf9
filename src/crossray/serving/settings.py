"""What a service may take, and how it works."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossray.data.images import MAX_BYTES
from crossray.errors import UserError
from crossray.interop import draft

#: Shown wherever a person or a program reads a report of the service.
NOTICE = draft.NOTICE


#: Names of this machine, on which alone a service without keys listens.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """What is refused.

    Attributes:
        upload: bytes of a request.
        files: of a study.
        in_flight: studies that are accepted and not reported yet.
        rate: requests for a report a minute and caller; 0 for no limit.
        decode_seconds: for the images of one study.
        decode_memory: bytes that decoding may take besides the interpreter's.
    """

    upload: int = MAX_BYTES
    files: int = 16
    in_flight: int = 64
    rate: int = 0
    decode_seconds: float = 30.0
    decode_memory: int = 2 * 2**30


@dataclass(frozen=True)
class Settings:
    """A service.

    Attributes:
        models: name to folder; the first is the one that is meant when a request names none.
        store: URL of the journal.
        device: of the models.
        batch: most studies of a batch.
        window: seconds that a study waits for others to share its batch.
        decoders: processes that decode images.
        keep: days that a finished study stays; 0: until its report is delivered; None: for ever.
        strict: refuse images that the input check flags.
        doubt: confidence below which a sentence is marked.
        quiet: seconds without a new object after which a study that came in parts is complete.
        keys: file of API keys.
        issuer: of OpenID Connect tokens; `audience`: that they must name; `jwks`: file or URL of the issuer's keys.
        metrics_open: whether /metrics needs no key.
        certificate: of TLS, PEM with its chain, for HTTP and DICOM; `private_key`: of the certificate.
        host: address to listen on, for HTTP and DICOM.
        dicom_port: where radiographs come by C-STORE; None: nowhere. `dicom_title`: AE title there; `dicom_callers`: AE
            titles that may send, anyone when empty.
        send_to: who gets the reports of studies that came so: AE@host:port or the root of a DICOMweb service.
        overlay: whether they get a presentation state of the model's attention with each.
        archives: roots of DICOMweb services whose studies may be asked for by their address.
        limits: what is refused.
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
        object.__setattr__(self, "host", self.host.strip("[]"))  # of an address as it stands in a URL
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
            raise UserError("--send-to sends the reports of studies that came by DICOM; give --dicom-port as well.")

    @property
    def open(self) -> bool:
        """Whether anybody who reaches the service may use it."""
        return self.keys is None and self.issuer is None
