"""Routes about the service itself: models, metrics, the audit trail."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from crossray.errors import UserError
from crossray.serving.callers import Administering, Reporting, scoped
from crossray.serving.problems import Problem
from crossray.serving.settings import NOTICE
from crossray.serving.shelf import described

admin = APIRouter()


@admin.get("/v1/models", tags=["models"], summary="The models that may be asked.")
async def models(request: Request, caller: Reporting) -> dict[str, Any]:
    """Name, system, number of views and weights of every model; the first is the default."""
    shelf = request.app.state.shelf
    return {"notice": NOTICE, "models": [described(name, shelf.get(name)) for name in shelf.names]}


@admin.get("/v1/models/{name}/card", tags=["models"], summary="What a model is, and how it scored.")
async def card(request: Request, name: str, caller: Reporting) -> Response:
    """The model card in Markdown."""
    model = request.app.state.shelf.get(name)
    return Response(await asyncio.to_thread(model.reporter.card), media_type="text/markdown; charset=utf-8")


@admin.post("/v1/models/{name}/reload", tags=["models"], summary="Take the model that lies in the folder now.")
async def reload(request: Request, name: str, caller: Administering) -> dict[str, Any]:
    """Reload the folder; requests use the old model until the new one is loaded, and none is lost."""
    shelf = request.app.state.shelf
    try:
        return described(name, await asyncio.to_thread(shelf.reload, name))
    except UserError:
        raise Problem(409, "the folder cannot be loaded; the model that was there stays.") from None


@admin.get("/v1/audit", tags=["service"], summary="Who asked what, without content.")
async def audit(request: Request, caller: Administering, limit: int = 100) -> dict[str, Any]:
    """The newest rows of the audit trail."""
    return {"rows": await asyncio.to_thread(request.app.state.journal.notes, max(1, min(limit, 1000)))}


@admin.get("/metrics", tags=["service"], summary="Numbers for Prometheus.")
async def metrics(request: Request) -> Response:
    """Requires the scope metrics, unless the service was started with --metrics-open."""
    state = request.app.state
    if not state.settings.metrics_open:
        await scoped("metrics")(request, None, request.headers.get("x-api-key"))
    for name, count in (await asyncio.to_thread(state.journal.counts)).items():
        state.metrics.studies.labels(name).set(count)
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
