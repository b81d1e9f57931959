"""Routes of galleries and of searching in them."""

import re
from asyncio import wrap_future
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response

from rasr.service.core import Service
from rasr.service.models import (
    Found,
    GalleryDetails,
    GalleryList,
    GalleryOut,
    Hashes,
    NewGallery,
    PhotoList,
    PhotoOut,
    Unknown,
    pictures,
)
from rasr.service.refusal import Refused, faults
from rasr.service.shelf import faults as wrong
from rasr.service.uploads import staging, store
from rasr.service.view import show_reference

JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "The picture"}}


def gallery_routes(service: Service) -> APIRouter:  # noqa: PLR0915  (a route is a function in it)
    """The routes, bound to a service."""
    router, shelf = APIRouter(tags=["galleries"]), service.shelf

    @router.post(
        "/search", response_model=Found, responses=faults(404, 409, 413, 415, 422, 429, 503),
        openapi_extra=pictures("file"),
    )  # fmt: skip
    async def search(
        file: Annotated[UploadFile, File(description="The picture to look for")],
        gallery: Annotated[str, Form(max_length=200, examples=["Family"])],
        k: Annotated[int, Form(ge=1, le=50)] = 8,
    ) -> Any:
        """Find the photos of a gallery that look most like a picture; answered before jobs that wait."""
        service.check_room()
        entry = await run_in_threadpool(shelf.get, gallery)
        if not await run_in_threadpool(shelf.count, entry):
            raise Refused(422, "empty_gallery", f"The gallery '{entry.name}' has no photos. Add some first.")
        with staging(service.data / "tmp") as folder:
            picture = await run_in_threadpool(store, file.file, file.filename, folder / "input")
            await wrap_future(service.decoders.submit(picture.path, picture.name))
            found = await wrap_future(
                service.dispatcher.ask("search", gallery=entry.address, input=str(picture.path), k=k)
            )
        results = [
            show_reference(one, index, entry.name, f"/galleries/{entry.name}/photos/{one['id']}/picture")
            for index, one in enumerate(found["references"])
        ]
        return {"results": results, "cleaned": found["cleaned"]}

    @router.get("/galleries", response_model=GalleryList)
    def galleries() -> Any:
        """List the galleries."""
        return {"galleries": [shelf.facts(entry) for entry in shelf.all()]}

    @router.post("/galleries", status_code=201, response_model=GalleryOut, responses=faults(409, 413, 422, 503))
    def create(new: NewGallery) -> Any:
        """Make an empty gallery."""
        service.check_room()
        return shelf.facts(shelf.create(new.name))

    @router.get("/galleries/{name}", response_model=GalleryDetails, responses=faults(404))
    def details(name: str) -> Any:
        """Look at a gallery, and at what is wrong with its photos."""
        return shelf.details(shelf.get(name))

    @router.delete("/galleries/{name}", status_code=204, responses=faults(403, 404, 503))
    async def delete(name: str) -> None:
        """Remove a gallery and the photos that were sent for it."""
        entry = await run_in_threadpool(shelf.get, name)
        shelf.check_writable(entry)
        await wrap_future(service.dispatcher.ask("remove", gallery=entry.address))
        await run_in_threadpool(shelf.delete, entry)

    @router.post("/galleries/{name}/known", response_model=Unknown, responses=faults(404, 413, 422))
    def known(name: str, hashes: Hashes) -> Any:
        """Ask which files need not be sent, by their SHA-256."""
        if any(not re.fullmatch(r"[0-9a-f]{64}", one) for one in hashes.hashes):
            raise Refused(422, "invalid", "A hash is the SHA-256 of a file: 64 hexadecimal digits, in small letters.")
        return {"unknown": shelf.unknown(shelf.get(name), hashes.hashes)}

    @router.post(
        "/galleries/{name}/photos",
        status_code=201,
        response_model=PhotoOut,
        responses={200: {"model": PhotoOut, "description": "Known"}, **faults(403, 404, 409, 413, 415, 422, 429, 503)},
        openapi_extra=pictures("file"),
    )
    async def add(name: str, file: Annotated[UploadFile, File(description="The photo")]) -> Response:
        """Add a photo; 200 when the gallery has it."""
        service.check_room()
        entry = await run_in_threadpool(shelf.get, name)
        shelf.check_writable(entry)
        with staging(service.data / "tmp") as folder:
            stored = await run_in_threadpool(store, file.file, file.filename, folder / "photo")
            held = await run_in_threadpool(shelf.find, entry, stored.digest)
            if held is not None:
                return JSONResponse(shelf.photo_facts(entry, held), 200)
            await wrap_future(service.decoders.submit(stored.path, stored.name))
            path = await run_in_threadpool(shelf.put, entry, folder / "photo", stored)
        try:
            await wrap_future(service.dispatcher.ask("add", gallery=entry.address, path=str(path)))
        except BaseException:
            if await run_in_threadpool(shelf.find, entry, stored.digest) is None:
                await run_in_threadpool(shelf.discard, entry, path)
            raise
        photo = await run_in_threadpool(shelf.find, entry, stored.digest)
        if photo is None:
            raise Refused(409, "changed", f"{stored.name}: the gallery was changed meanwhile. Send it again.")
        return JSONResponse(await run_in_threadpool(shelf.photo_facts, entry, photo), 201)

    @router.get("/galleries/{name}/photos", response_model=PhotoList, responses=faults(404, 422))
    def photos(
        name: str,
        after: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Any:
        """List a gallery's photos by name; ``after`` is the ``next`` of the list before."""
        entry = shelf.get(name)
        held = shelf.photos(entry)
        start = next((place for place, one in enumerate(held, 1) if one.id == after), 0)
        some = held[start : start + limit]
        told = [shelf.photo_facts(entry, *pair) for pair in zip(some, wrong(some), strict=True)]
        following = some[-1].id if start + limit < len(held) else None
        return {"photos": told, "next": following}

    @router.delete("/galleries/{name}/photos/{photo}", status_code=204, responses=faults(403, 404, 409, 503))
    def remove(name: str, photo: str) -> None:
        """Remove a photo."""
        entry = shelf.get(name)
        shelf.remove(entry, shelf.photo(entry, photo))

    @router.get(
        "/galleries/{name}/photos/{photo}/thumbnail",
        responses={**JPEG, **faults(404, 413, 415, 422)},
        response_class=FileResponse,
    )
    async def thumbnail(name: str, photo: str) -> Response:
        """See a photo, small: JPEG of at most 256 pixels a side."""
        return await _picture(service, name, photo, "thumbnail")

    @router.get(
        "/galleries/{name}/photos/{photo}/picture",
        responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}, **faults(404, 413, 415, 422)},
        response_class=FileResponse,
    )
    async def picture(name: str, photo: str) -> Response:
        """See a photo, upright."""
        return await _picture(service, name, photo, "photo")

    return router


async def _picture(service: Service, name: str, photo: str, how: str) -> Response:
    entry = await run_in_threadpool(service.shelf.get, name)
    found = await run_in_threadpool(service.shelf.photo, entry, photo)
    if not found.path.is_file():
        raise Refused(404, "gone", f"{found.path.name}: the photo's file is not there any more.")
    path, kind = await service.shown(found.path, found.path.name, how, f"photo-{found.id}")
    return FileResponse(path, media_type=kind)
