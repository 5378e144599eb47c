"""The visitors of the page: each open tab is one. All that is known of it is here, and wiped in one place."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from llava.common.errors import InputError
from llava.deciding.decision import Decision
from llava.inference.live import LiveEngine
from llava.serve.http.limits import Limits
from llava.serve.page.jobs import Job
from llava.serve.page.making import KeptPictures, Making
from llava.serve.page.pictures import ShownPictures, Upload, read_upload
from llava.serve.page.private_folder import PrivateFolder
from llava.serve.page.talk import PageTalk

MAX_VISITORS = 200
"""Who comes then is told to come again."""
SWEEP_SECONDS = 5.0


@dataclass(frozen=True)
class Photo(Upload):
    """A photo of a visitor, and the address at which it is shown."""

    address: str


class Visitor:
    """One open tab."""

    def __init__(self, address: str, talk: PageTalk) -> None:
        """Start with an empty talk; `address` is the network address that it came from."""
        self.address = address
        self.talk = talk
        self.uploads: set[Path] = set()
        """Files that were uploaded and not read yet."""
        self.photos: dict[str, Photo] = {}
        """Of the other tabs, by what they are for."""
        self.shown: dict[str, list[str]] = {}
        """Addresses of the other tabs' pictures, by what shows them."""
        self.jobs: list[Job[Any]] = []
        """What runs in the other tabs."""
        self.making: Making | None = None
        """What is cut out of a photo and painted, since the photo was looked at."""
        self.kept = KeptPictures()
        self.gone = False
        """Whether it was wiped: what ends after that may leave nothing."""
        self.was_wiped = False
        """Whether its page may still show a talk that was wiped; for whoever tells it to reset."""
        self.last_used = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether something runs for it."""
        return self.talk.running or any(job.running for job in self.jobs)

    def stop(self) -> None:
        """End what runs for it, and wait for that."""
        self.talk.end()
        for job in list(self.jobs):
            job.end()


class Visitors:
    """All open tabs, by Gradio's session."""

    def __init__(
        self,
        live: LiveEngine,
        folder: PrivateFolder,
        limits: Limits,
        *,
        idle_seconds: float,
        per_address: int,
        decision: Decision | None = None,
    ) -> None:
        """Start the thread that wipes idle visitors.

        Args:
            live: Answers everybody's questions.
            folder: Where uploads lie until they are read.
            limits: Of pictures and answers.
            idle_seconds: After so long without a question a visitor is wiped, as if the tab had been closed.
            per_address: How many answers may be on their way to one network address.
            decision: What talks decide on pictures by.
        """
        self.live = live
        self.limits = limits
        self.decision = decision
        self.pictures = ShownPictures()
        self.idle_seconds = idle_seconds
        self._per_address = per_address
        self._folder = folder
        self._visitors: dict[str, Visitor] = {}
        self._wiped: deque[str] = deque(maxlen=5 * MAX_VISITORS)  # sessions
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._sweep, name="llava-page-sweeper", daemon=True).start()

    def get(self, session: str, address: str) -> Visitor:
        """Return the visitor of a session, a new one where there is none.

        Raises:
            InputError: there are too many.
        """
        with self._lock:
            if session not in self._visitors:
                if len(self._visitors) >= MAX_VISITORS:
                    raise InputError("too many visitors at the moment; try again in a few minutes")
                talk = PageTalk(self.live, self.pictures, self.limits, self.decision)
                self._visitors[session] = visitor = Visitor(address, talk)
                visitor.was_wiped = session in self._wiped
            visitor = self._visitors[session]
            visitor.last_used = time.monotonic()
            return visitor

    def of(self, request: gr.Request) -> Visitor:
        """Return the visitor who sent a request; InputError where there are too many."""
        return self.get(request.session_hash or "", request.client.host if request.client else "")

    def set_photo(self, visitor: Visitor, name: str, upload: Upload) -> Photo:
        """Keep a photo of a visitor in place of the one before."""
        (address,) = self.show(visitor, name, [upload.image])
        visitor.photos[name] = photo = Photo(upload.image, upload.name, upload.sha256, address)
        return photo

    def show(self, visitor: Visitor, name: str, images: Sequence[Image.Image]) -> list[str]:
        """Have a visitor's browser shown other pictures in the place `name`; returns their addresses."""
        return self._put(visitor, name, [self.pictures.add(image) for image in images])

    def offer(self, visitor: Visitor, name: str, content: bytes, ending: str) -> str:
        """Have a visitor's browser get another file in the place `name`; returns its address."""
        return self._put(visitor, name, [self.pictures.add_file(content, ending)])[0]

    def _put(self, visitor: Visitor, name: str, addresses: list[str]) -> list[str]:
        """Know the addresses in place of those before, or forget them where the visitor is gone; returns
        them."""
        with self._lock:
            old = visitor.shown.get(name, [])
            if visitor.gone:
                old = addresses
            else:
                visitor.shown[name] = addresses
        self.pictures.drop(old)
        return addresses

    def check_may_ask(self, visitor: Visitor) -> None:
        """InputError where a visitor, or its address, has enough on the way."""
        if visitor.busy:
            raise InputError("wait for the end of your last question, or stop it")
        running = sum(
            other.busy for other in list(self._visitors.values()) if other.address == visitor.address
        )
        if running >= self._per_address:
            raise InputError(f"{running} answers are on their way to your address already; try again soon")

    def note_upload(self, visitor: Visitor, path: str) -> None:
        """Know a visitor's file, which is wiped with the visitor even where it is never read."""
        visitor.uploads.add(Path(path))

    def read_upload(self, visitor: Visitor, path: str) -> Upload:
        """Read and delete a visitor's file; as `llava.serve.page.pictures.read_upload`."""
        visitor.uploads.discard(Path(path))
        return read_upload(self._folder, path, self.limits.max_pixels)

    def wipe(self, session: str | None) -> None:
        """Forget a visitor: talk, pictures, uploads, and what the model keeps of them."""
        with self._lock:
            visitor = self._visitors.pop(session or "", None)
            if visitor is None:
                return
            visitor.gone = True
            self._wiped.append(session or "")
        visitor.stop()
        visitor.talk.clear()
        for addresses in visitor.shown.values():
            self.pictures.drop(addresses)
        for path in visitor.uploads:
            self._folder.delete(path)
        self.live.forget()

    def close(self) -> None:
        """Forget everybody."""
        self._ended.set()
        for session in list(self._visitors):
            self.wipe(session)

    def _sweep(self) -> None:
        while not self._ended.wait(min(SWEEP_SECONDS, self.idle_seconds / 4)):
            now = time.monotonic()
            for session, visitor in list(self._visitors.items()):
                if visitor.busy:
                    visitor.last_used = now  # whose end it has yet to see
                elif now - visitor.last_used > self.idle_seconds:
                    self.wipe(session)
            # uploads of tabs that were closed before the page knew of them
            self._folder.wipe_older(self.idle_seconds)
