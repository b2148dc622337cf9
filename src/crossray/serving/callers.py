"""FastAPI dependencies that identify the caller and check its scopes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from crossray.serving.access import Caller
from crossray.serving.problems import Problem

_BEARER = HTTPBearer(auto_error=False, description="An API key (`crossray keys`) or a token from the issuer.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False)


def scoped(scope: str) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency that requires a scope."""

    async def caller(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
        key: Annotated[str | None, Security(_HEADER)] = None,
    ) -> Caller:
        shown = request.headers.get("authorization")
        # in a thread: the keys of a token's issuer may have to be fetched
        known: Caller = await asyncio.to_thread(request.app.state.doors.know, shown, key)
        request.state.caller = known
        if scope not in known.scopes:
            raise Problem(403, f"the key or token lacks the scope {scope}, which this request needs.")
        return known

    return caller


Reporting = Annotated[Caller, Depends(scoped("report"))]
Administering = Annotated[Caller, Depends(scoped("admin"))]
