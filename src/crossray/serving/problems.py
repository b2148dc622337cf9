"""Error responses of the service (RFC 9457): one sentence, without patient data."""

from typing import Any

from fastapi.responses import JSONResponse


class Problem(Exception):  # noqa: N818  the name in RFC 9457
    """An error that the service sends as a response.

    Attributes:
        status: HTTP status.
        detail: one sentence for a person.
        retry: number of seconds after which to retry; None for no `Retry-After` header.
        more: additional members of the response.
    """

    def __init__(self, status: int, detail: str, *, retry: int | None = None, more: dict[str, Any] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.retry, self.more = status, detail, retry, more or {}

    def response(self) -> JSONResponse:
        """Build the HTTP response."""
        headers = {} if self.retry is None else {"Retry-After": str(max(1, self.retry))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        content = {"type": "about:blank", "status": self.status, "detail": self.detail, **self.more}
        return JSONResponse(content, self.status, headers, media_type="application/problem+json")
