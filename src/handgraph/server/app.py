"""The HTTP interface and the page, as one ASGI application."""

import argparse
import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import handgraph
from handgraph.errors import HandgraphError, MissingExtraError
from handgraph.hand import ORDER
from handgraph.images import LABELS_FILE, read_depth, read_image
from handgraph.meshes import faces_of
from handgraph.report import UNSURE, css_color, depth_picture, joint_color
from handgraph.server import work
from handgraph.server.guard import Guard, error_body
from handgraph.server.jobs import Deadline, Gone, Jobs
from handgraph.server.limits import Limits, Refused, suffix_for
from handgraph.server.work import MEDIA_TYPES, Models, Settings
from handgraph.skeleton import BONES, JOINT_NAMES

PAGES = {"/": "index.html", "/api": "api.html"}
ASSETS = ("style.css", "app.js", "draw.js", "api.js", "icon.svg", "hand3d.js")
THUMBNAIL_WIDTH = 240
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
DESCRIPTION = (
    "Hands in pictures, on this machine. Send a picture as the body of the request or as the field `file` of "
    "a form (multipart/form-data); settings stand beside it in the form or in the address. Every refusal is "
    '`{"error": one line}`. Lengths are millimetres, x right, y down, z forward; pixel centres are integers.'
)


def make_app(
    models: Models, limits: Limits | None = None, *, workers: int = 1, names: frozenset[str] = frozenset()
) -> FastAPI:
    """The application: `models`, `limits`, worker threads, host `names` beside addresses and localhost.

    Raises HandgraphError on start where the default weights cannot be loaded.
    """
    limits = limits or Limits()
    jobs = Jobs(workers, limits.places)
    answered = {"predict": 0, "personalize": 0, "convert": 0}
    began = time.monotonic()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.folder = Path(tempfile.mkdtemp(prefix="handgraph-serve-"))
        try:
            await jobs.in_each_thread(models.warm_up)
            # Beside the first requests, and not waited for at the end.
            threading.Thread(target=work.compile_fitting, daemon=True).start()
            yield
        finally:
            await run_in_threadpool(jobs.close)
            shutil.rmtree(app.state.folder, ignore_errors=True)

    app = FastAPI(
        title="handgraph",
        version=handgraph.__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own page loads its script from elsewhere; /api shows the schema instead
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.jobs, app.state.limits = jobs, limits
    _add_errors(app)
    _add_pages(app, models, limits)
    listed: list[Any] = []

    @app.get("/api/health", summary="Whether the server answers, and how busy it is")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "version": handgraph.__version__,
            "places": jobs.places,
            "taken": jobs.taken,
            "workers": jobs.workers,
            "answered": answered,
            "seconds": round(time.monotonic() - began, 1),
        }

    @app.get("/api/models", summary="The systems, what they take and answer, and which have weights here")
    async def list_models(request: Request) -> list[dict[str, Any]]:
        if not listed:
            async with jobs.place():
                rows = await jobs.run(_model_rows, limits.request_seconds, _left(request))
            listed[:] = [rows]
        rows_: list[dict[str, Any]] = listed[0]
        return rows_

    @app.post(
        "/api/predict",
        summary="Hands in a picture, depth frame or clip",
        response_class=Response,
        openapi_extra=_schema("file", "a picture, depth frame or clip", raw=True),
        responses=_answers("Predictions, as `handgraph predict --json` prints them, or in `format`"),
    )
    async def predict(request: Request) -> Response:
        async with jobs.place(), _uploads(request, limits, 1) as (folder, paths, settings):
            if not paths:
                raise Refused(400, "no picture: send it as the body, or as the field `file` of a form")
            path = paths[0][1]

            def job(deadline: Deadline) -> tuple[bytes, str]:
                result = work.predict(models, path, settings, limits, folder, deadline)
                if settings.format == "json":
                    return _json(result.document(preview=settings.preview)), ""
                if settings.format == "png" and result.frame is None:
                    raise Refused(422, "png: holds one picture, this is a clip; take json, coco or parquet")
                return work.encode(result.predictions, settings.format, result.frame, folder)

            response = await _answer(request, jobs, limits, folder, settings, job)
            answered["predict"] += 1
            return response

    @app.post(
        "/api/personalize",
        summary="The size and shape of one person's hand from a few pictures",
        response_class=Response,
        openapi_extra=_schema("files", "depth frames or photographs of one hand", several=True),
        responses=_answers("`subject`, to be sent with later predictions, and `problems`, one line each"),
    )
    async def personalize(request: Request) -> Response:
        async with (
            jobs.place(),
            _uploads(request, limits, limits.personal_images) as (folder, paths, settings),
        ):
            if not paths:
                raise Refused(400, "no picture: send them as the fields `files` of a form")

            def job(deadline: Deadline) -> tuple[bytes, str]:
                only = [path for _, path in paths]
                return _json(work.personalize(models, only, settings, limits, folder, deadline)), ""

            response = await _answer(request, jobs, limits, folder, settings, job)
            answered["personalize"] += 1
            return response

    @app.post(
        "/api/convert",
        summary="An answer of /api/predict in another format",
        response_class=Response,
        openapi_extra=_schema("predictions", "the JSON of /api/predict, as a file; for png also `file`"),
        responses=_answers("The file in `format`"),
    )
    async def convert(request: Request) -> Response:
        async with jobs.place(), _uploads(request, limits, 2) as (folder, paths, settings):
            by_field = dict(paths)
            if "predictions" not in by_field:
                raise Refused(400, "no predictions: send the JSON as a file in the field `predictions`")
            picture = by_field.get("file")

            def job(deadline: Deadline) -> tuple[bytes, str]:
                deadline.check()
                return work.convert(by_field["predictions"], picture, settings, limits, folder)

            response = await _answer(request, jobs, limits, folder, settings, job)
            answered["convert"] += 1
            return response

    app.add_middleware(Guard, limits=limits, names=names)
    return app


async def _answer(
    request: Request,
    jobs: Jobs,
    limits: Limits,
    folder: Path,
    settings: Settings,
    job: Callable[[Deadline], tuple[bytes, str]],
) -> Response:
    """Run a job that gives content and file name ("" for JSON to be read, not saved)."""
    began = time.perf_counter()

    def tidy(deadline: Deadline) -> tuple[bytes, str]:
        try:
            return job(deadline)
        finally:
            if deadline.given_up:  # the request has ended, and what it removed may be there again
                shutil.rmtree(folder, ignore_errors=True)

    try:
        content, name = await jobs.run(tidy, limits.request_seconds, _left(request))
    except Refused as refused:
        raise Refused(
            refused.status, work.without_folder(str(refused), folder), refused.retry_after_s
        ) from refused
    except HandgraphError as error:
        raise type(error)(work.without_folder(str(error), folder)) from error
    except MemoryError as error:
        raise Refused(413, "the upload needs more memory than there is; send less at once") from error
    headers = {"server-timing": f"total;dur={1000 * (time.perf_counter() - began):.1f}"}
    if name:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        headers["content-disposition"] = f'attachment; filename="{safe}"'
    return Response(content, media_type=MEDIA_TYPES[settings.format if name else "json"], headers=headers)


@asynccontextmanager
async def _uploads(
    request: Request, limits: Limits, most: int
) -> AsyncIterator[tuple[Path, list[tuple[str, Path]], Settings]]:
    """A folder for this request alone, removed at its end; in it the files as (field, path); the settings."""
    folder = Path(tempfile.mkdtemp(dir=request.app.state.folder))
    try:
        fields: dict[str, str] = dict(request.query_params)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        paths: list[tuple[str, Path]] = []
        if kind == "multipart/form-data":
            async with request.form(max_files=most, max_fields=32, max_part_size=limits.field_bytes) as form:
                for field, value in form.multi_items():
                    if isinstance(value, UploadFile):
                        place = _place(folder, len(paths), value.filename or "")
                        await run_in_threadpool(_copy, value.file, place)
                        paths.append((field, await run_in_threadpool(_with_suffix, place)))
                    else:
                        fields[field] = value
        else:
            place = _place(folder, 0, fields.get("name", ""))
            with place.open("wb") as file:
                async for chunk in request.stream():
                    file.write(chunk)
            if place.stat().st_size:
                paths.append(("file", await run_in_threadpool(_with_suffix, place)))
        yield folder, paths, _settings(fields)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(folder: Path, index: int, name: str) -> Path:
    """Where to put an upload: in a folder of its own, under its own name as far as that is harmless."""
    plain = re.sub(r"[^\w .()+-]", "_", re.split(r"[/\\]", name)[-1]).strip(" .")
    own = folder / str(index)
    own.mkdir()
    if plain == LABELS_FILE:  # beside a frame it would be read as what is known about it
        plain = "labels"
    stem, dot, suffix = plain.rpartition(".")
    return own / ((stem or suffix)[:80] + (dot + suffix[:10] if stem else "") or "picture")


def _with_suffix(path: Path) -> Path:
    with path.open("rb") as file:
        missing = suffix_for(path.name, file.read(16))
    return path.rename(path.with_name(path.name + missing)) if missing else path


def _copy(source: Any, place: Path) -> None:
    with place.open("wb") as target:
        shutil.copyfileobj(source, target)


def _settings(fields: dict[str, str]) -> Settings:
    try:
        return Settings.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else "settings"
        found = f" {fields[key][:60]!r}" if key in fields else ""
        described = Settings.model_fields[key].description if key in Settings.model_fields else None
        known = f"known are {', '.join(Settings.model_fields)}"
        message = f"{key}{found}: {first['msg'].lower()}; {described or known}"
        raise Refused(422, message) from None


def _left(request: Request) -> Callable[[], Any]:
    """Returns when the client has hung up; the whole body must have been read."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone


def _model_rows(deadline: Deadline) -> list[dict[str, Any]]:
    from handgraph.cli import run_models

    rows: Any = run_models(argparse.Namespace()).document
    # Where files lie on this machine is nobody's business.
    return [row | {"weights": row["weights"] is not None} for row in rows]


def _json(document: Any) -> bytes:
    return json.dumps(document, allow_nan=False).encode()


def _add_errors(app: FastAPI) -> None:
    """Every error is one line of JSON."""

    def refusal(status: int, message: str, retry_after_s: int | None = None) -> Response:
        headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        return Response(error_body(message), status, headers, "application/json")

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return refusal(error.status, str(error), error.retry_after_s)

    @app.exception_handler(HandgraphError)
    async def unusable(_: Request, error: HandgraphError) -> Response:
        return refusal(501 if isinstance(error, MissingExtraError) else 422, str(error))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return refusal(error.status_code, str(error.detail))

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(Gone)
    async def gone(_: Request, error: Exception) -> Response:
        return refusal(400, "the client has hung up")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        print(f"handgraph serve: internal fault, {type(error).__name__}: {error}", file=sys.stderr)
        return refusal(500, f"internal fault, {type(error).__name__}")


def _add_pages(app: FastAPI, models: Models, limits: Limits) -> None:
    """The page's files, what it must know, and the sample frames."""
    package = files("handgraph")
    static = package / "server" / "static"
    contents = {path: (static / name).read_bytes() for path, name in PAGES.items()}
    for name in ASSETS:
        contents[f"/static/{name}"] = (
            package if name == "hand3d.js" else static
        ).joinpath(name).read_bytes()  # fmt: skip
    samples = _samples()
    for sample in samples:
        contents[f"/samples/{sample['name']}"] = (package / "samples" / sample["name"]).read_bytes()
        contents[f"/samples/{sample['thumbnail']}"] = _thumbnail(sample)

    def serve(path: str, content: bytes) -> None:
        suffix = ".html" if path in PAGES else Path(path).suffix

        async def get() -> Response:
            return Response(content, media_type=_TYPES[suffix])

        app.add_api_route(path, get, methods=["GET", "HEAD"], include_in_schema=False)

    for path, content in contents.items():
        serve(path, content)

    @app.get("/api/page", include_in_schema=False)
    async def page() -> dict[str, Any]:
        from handgraph.hand_model.files import load_open_hand

        model = load_open_hand()
        return {
            "version": handgraph.__version__,
            "joint_names": list(JOINT_NAMES),
            "order": ORDER,
            "bones": [list(bone) for bone in BONES],
            "colors": [css_color(joint_color(joint)) for joint in range(len(JOINT_NAMES))],
            "unsure": UNSURE,
            "faces": {"right": _faces(model, "right"), "left": _faces(model, "left")},
            "vertices": len(model.v_template),
            "systems": models.usable(),
            "defaults": models.defaults,
            "formats": list(MEDIA_TYPES),
            "samples": samples,
            "limits": {
                "upload_bytes": limits.upload_bytes,
                "clip_seconds": limits.clip_seconds,
                "personal_images": limits.personal_images,
            },
        }


def _faces(model: Any, side: Any) -> list[list[int]]:
    return np.asarray(faces_of(model, side)).tolist()


def _samples() -> list[dict[str, Any]]:
    """The shipped frames with their cameras, for somebody who has no picture at hand."""
    folder = files("handgraph") / "samples"
    found = []
    for labels, key, input_ in (("labels.jsonl", "file", "depth"), ("photos.jsonl", "image", "photo")):
        for line in (folder / labels).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            camera = record.get("camera") or {}
            found.append(
                {
                    "name": record[key],
                    "thumbnail": f"{Path(record[key]).stem}_small.jpg",
                    "input": input_,
                    "camera": [round(camera[k], 3) for k in ("fx", "fy", "cx", "cy")] if camera else None,
                    "side": record.get("side"),
                }
            )
    return found


def _thumbnail(sample: dict[str, Any]) -> bytes:
    """A small picture of a sample; a browser shows a depth frame itself as black."""
    path = Path(str(files("handgraph") / "samples" / sample["name"]))
    if sample["input"] == "depth":
        picture = depth_picture(read_depth(path).depth_mm)
    else:
        picture = read_image(path)
    scale = THUMBNAIL_WIDTH / picture.shape[1]
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded: np.ndarray = cv2.imencode(".jpg", picture[..., ::-1])[1]
    return encoded.tobytes()


def _schema(field: str, what: str, *, several: bool = False, raw: bool = False) -> dict[str, Any]:
    """The OpenAPI of a request that `_uploads` reads: a form, or the file itself with settings beside it."""
    settings = Settings.model_json_schema()["properties"]
    settings = {name: _plain_schema(value) for name, value in settings.items()}
    file: dict[str, Any] = {"type": "string", "format": "binary", "description": what}
    upload = {"type": "array", "items": file} if several else file
    properties = {field: upload} | {name: value for name, value in settings.items() if name != "name"}
    form = {"type": "object", "required": [field], "properties": properties}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if raw:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
        extra["parameters"] = [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": value,
                "description": value["description"],
            }
            for name, value in settings.items()
        ]
    return extra


def _plain_schema(value: dict[str, Any]) -> dict[str, Any]:
    """A setting's schema as it is sent: four numbers are one text, and nothing is null."""
    kinds = [one for one in value.get("anyOf", [value]) if one.get("type") != "null"]
    plain = {
        key: kinds[0][key]
        for key in ("type", "enum", "maxLength", "minimum", "maximum", "exclusiveMinimum")
        if key in kinds[0]
    }
    if plain.get("type") == "array":
        plain = {"type": "string", "pattern": r"^[^,]+(,[^,]+){3}$"}
    return plain | {"description": value.get("description", "")}


def _answers(what: str) -> dict[int | str, dict[str, Any]]:
    error = {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        }
    }
    refused = {
        400: "Nothing was sent",
        404: "A system that is unknown or has no weights here",
        413: "Too many bytes, pixels, frames or seconds",
        415: "Not a picture, depth frame or clip",
        422: "A file or a setting that cannot be used",
        503: "Busy, or not done in time; `Retry-After` says when to come again",
    }
    success: dict[str, Any] = {
        "description": what,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    answers: dict[int | str, dict[str, Any]] = {200: success}
    for status, text in refused.items():
        answers[status] = {"description": text, "content": error}
    return answers
