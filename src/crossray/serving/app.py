"""The web application: routes, access control, logging and metrics."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files as resources
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import crossray
from crossray.serving.access import Doorkeeper
from crossray.serving.decoder import Decoder
from crossray.serving.desk import Desk, log_failure
from crossray.serving.journal import Journal
from crossray.serving.metrics import Metrics
from crossray.serving.neighbours import beside_neighbours, check_neighbours
from crossray.serving.problems import Problem
from crossray.serving.routes_admin import admin
from crossray.serving.routes_reports import reports
from crossray.serving.settings import LOOPBACK, NOTICE, Settings
from crossray.serving.shelf import Shelf
from crossray.serving.uploads import Linger

_LOGGER = logging.getLogger("crossray.serving")

#: The files of the reading page, and their types.
_PAGE = {
    "index.html": "text/html", "style.css": "text/css", "app.js": "text/javascript", "strings.js": "text/javascript",
    "viewer.js": "text/javascript", "report.js": "text/javascript", "service.js": "text/javascript",
}  # fmt: skip

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(settings: Settings, worker: str = "") -> FastAPI:
    """Create the application; this loads the models and opens the journal.

    Args:
        settings: settings of the service.
        worker: name of this instance among those that share a journal.

    Raises:
        UserError: a model, the keys or the journal cannot be opened.
    """
    check_neighbours(settings)
    journal, metrics = Journal(settings.store, worker=worker), Metrics()
    doors = Doorkeeper(settings)
    shelf = Shelf(
        settings.models, device=settings.device, batch=settings.batch, window=settings.window,
        strict=settings.strict, observe=metrics.batch,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # before the first request, whose claim it would also revoke; if this fails, the service does not start
        await asyncio.to_thread(journal.recover)
        limits = settings.limits
        decoder = Decoder(settings.decoders, limits.decode_memory, limits.decode_seconds)
        app.state.desk = Desk(settings, journal, shelf, decoder, metrics)
        worker = asyncio.create_task(app.state.desk.run())
        try:
            with beside_neighbours(settings, journal, shelf.default) as node:
                app.state.node = node
                if node is not None:
                    app.state.desk.receiving = node.receiving
                yield
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker
            await app.state.desk.drain(30)
            app.state.desk = None
            decoder.close()
            shelf.close()
            journal.close()

    app = FastAPI(
        title="CrossRay",
        summary="Generates drafts of radiology reports of chest X-rays.",
        description=NOTICE,
        version=crossray.__version__,
        lifespan=lifespan,
        docs_url=None,  # both of FastAPI's pages load scripts from other sites
        redoc_url=None,
    )
    app.state.desk, app.state.doors, app.state.journal, app.state.metrics = None, doors, journal, metrics
    app.state.settings, app.state.shelf = settings, shelf
    _handle_errors(app)
    app.middleware("http")(_note)
    app.add_middleware(Linger)
    app.include_router(reports)
    app.include_router(admin)
    _add_health(app)
    _add_page(app)
    return app


async def _note(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Count, time, log and audit every request; reject requests from pages of other sites."""
    state, started = request.app.state, time.monotonic()
    try:
        # links to the page are allowed, requests from other pages are not
        foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if state.settings.open and not _names_loopback(request):
            response: Response = Problem(400, "address this service by a loopback name, such as localhost.").response()
        elif foreign and request.url.path.startswith(("/v1/", "/metrics")):
            response = Problem(403, "pages of other sites may not use the service.").response()
        else:
            response = await answer(request)
    except Exception as error:
        response = Problem(500, f"the service failed ({log_failure('request', error)}).").response()
    route = getattr(request.scope.get("route"), "path", "none")
    method = request.method if request.method in ("GET", "POST", "DELETE", "HEAD") else "other"
    state.metrics.requests.labels(method, route, str(response.status_code)).inc()
    state.metrics.seconds.labels(route).observe(time.monotonic() - started)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if route.startswith("/v1/"):
        who = getattr(request.state, "caller", None)
        name = "unknown" if who is None else who.name
        study = getattr(request.state, "study", None)
        outcome = str(response.status_code)
        _LOGGER.info("%s %s %s %.3f s", method, route, outcome, time.monotonic() - started)
        try:
            await asyncio.to_thread(state.journal.note, name, f"{method} {route}", outcome, study)
        except Exception as error:
            log_failure("audit", error)
    return response


def _names_loopback(request: Request) -> bool:
    """Whether the Host header is a loopback name: another name may be DNS rebinding by a web page."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname in LOOPBACK
    except ValueError:
        return False


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def of_the_server(request: Request, error: HTTPException) -> JSONResponse:
        details = {404: "there is nothing here.", 405: "this route does not allow that method."}
        return Problem(error.status_code, details.get(error.status_code, "the request cannot be answered.")).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # names of the fields only: the values may be patient data
        places = sorted({".".join(str(part) for part in one["loc"])[:80] for one in error.errors()})
        return Problem(422, f"these fields are not valid: {', '.join(places)[:300]}.").response()


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["health"], summary="Whether the process is alive.")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", tags=["health"], summary="Whether the service accepts studies.")
    async def ready(request: Request) -> Response:
        desk: Desk | None = request.app.state.desk
        try:
            await asyncio.to_thread(request.app.state.journal.unfinished)
        except Exception as error:
            log_failure("journal", error)
            return Problem(503, "the journal does not respond.").response()
        if desk is None:
            return Problem(503, "the service is starting or stopping.", retry=1).response()
        if not await asyncio.to_thread(request.app.state.doors.ready):
            return Problem(503, "the file of API keys cannot be read.").response()
        if desk.in_flight >= desk.settings.limits.in_flight:
            return Problem(503, "the service is at capacity.", retry=1).response()
        return JSONResponse({"status": "ready", "models": request.app.state.shelf.names})


def _add_page(app: FastAPI) -> None:
    folder = resources("crossray.serving") / "page"
    contents: dict[str, Any] = {name: (folder / name).read_bytes() for name in _PAGE}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(contents["index.html"], media_type="text/html; charset=utf-8")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in contents:
            raise Problem(404, "there is nothing here.")
        return Response(contents[name], media_type=f"{_PAGE[name]}; charset=utf-8")
