"""Errors in the service's answers (RFC 9457): one sentence, without patient data."""

from typing import Any

from fastapi.responses import JSONResponse


class Problem(Exception):  # noqa: N818  an answer as much as an error
    """An error answer.

    Attributes:
        status: HTTP status.
        detail: one sentence for a person.
        retry: number of seconds after which to retry.
        more: further members of the answer.
    """

    def __init__(self, status: int, detail: str, *, retry: int | None = None, more: dict[str, Any] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.retry, self.more = status, detail, retry, more or {}

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {} if self.retry is None else {"Retry-After": str(max(1, self.retry))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        content = {"type": "about:blank", "status": self.status, "detail": self.detail, **self.more}
        return JSONResponse(content, self.status, headers, media_type="application/problem+json")
