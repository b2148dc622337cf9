"""Routes about the service itself: models, metrics and the audit trail."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from crossray.errors import UserError
from crossray.serving.callers import Administering, Reporting, scoped
from crossray.serving.problems import Problem
from crossray.serving.settings import NOTICE
from crossray.serving.shelf import described

admin = APIRouter()


@admin.get("/v1/models", tags=["models"], summary="List the models.")
async def models(request: Request, caller: Reporting) -> dict[str, Any]:
    """Name, system, number of views and hash of the weights of every model; the first is the default."""
    shelf = request.app.state.shelf
    return {"notice": NOTICE, "models": [described(name, shelf.get(name)) for name in shelf.names]}


@admin.get("/v1/models/{name}/card", tags=["models"], summary="Read a model card.")
async def card(request: Request, name: str, caller: Reporting) -> Response:
    """The model card in Markdown: what the model is, how it was trained, and its scores."""
    model = request.app.state.shelf.get(name)
    return Response(await asyncio.to_thread(model.reporter.card), media_type="text/markdown; charset=utf-8")


@admin.post("/v1/models/{name}/reload", tags=["models"], summary="Reload a model from its folder.")
async def reload(request: Request, name: str, caller: Administering) -> dict[str, Any]:
    """Requests use the old model until the new one is loaded; none are lost."""
    shelf = request.app.state.shelf
    try:
        return described(name, await asyncio.to_thread(shelf.reload, name))
    except UserError:
        raise Problem(409, "the folder cannot be loaded; the old model remains in use.") from None


@admin.get("/v1/audit", tags=["service"], summary="Read the audit trail.")
async def audit(request: Request, caller: Administering, limit: int = 100) -> dict[str, Any]:
    """Who requested what, newest first, without content of studies."""
    return {"rows": await asyncio.to_thread(request.app.state.journal.notes, max(1, min(limit, 1000)))}


@admin.get("/metrics", tags=["service"], summary="Read the Prometheus metrics.")
async def metrics(request: Request) -> Response:
    """Requires the scope metrics, unless the service was started with --metrics-open."""
    state = request.app.state
    if not state.settings.metrics_open:
        await scoped("metrics")(request, None, request.headers.get("x-api-key"))
    for name, count in (await asyncio.to_thread(state.journal.counts)).items():
        state.metrics.studies.labels(name).set(count)
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
