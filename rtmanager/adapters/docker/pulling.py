"""Runs one pull, from the request to the last line of its answer.

The daemon answers 200 before it knows the outcome and reports it in a stream of JSON lines; a line with an error means
that the pull failed. Bytes alone are no progress: while the daemon cannot reach a layer, it streams a countdown to
its next try.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from time import monotonic
from typing import Any

import docker
from docker.errors import APIError
from requests import Response
from requests.exceptions import RequestException

from rtmanager.adapters.docker import skim
from rtmanager.adapters.docker.answers import AnswerKind, Unreadable, checked, explanation, forbidden, kind_of, words
from rtmanager.adapters.docker.credentials import DockerConfig, HelperHangs
from rtmanager.adapters.docker.daemon_client import DaemonClient
from rtmanager.adapters.docker.errors import timed_out
from rtmanager.adapters.docker.registry_answers import LONGEST_READ, pull_refused
from rtmanager.adapters.docker.shared_pulls import PullLimits
from rtmanager.adapters.docker.sockets import Call, Deadline
from rtmanager.domain.errors import TemporaryAnswer
from rtmanager.domain.game import shown
from rtmanager.domain.image_ref import ImageRef, parse_image_ref
from rtmanager.domain.text import bounded
from rtmanager.ports.runtime import ImageRefInvalid, ImageUnavailable

#: Interval between two log lines about progress, in seconds.
LOG_EVERY_S = 5.0

#: Seconds for a credential helper, but at most the limit of a pull without progress.
HELPER_S = 30.0

#: Layers that are counted, and characters kept of a layer's id.
MAX_LAYERS = 1000
LONGEST_ID = 128

_LAYER_DONE = frozenset({"Pull complete", "Already exists", "Download complete"})


class RegistryAnswer(ImageUnavailable):
    """A line of a pull that reports an error; its text is a registry's, and for the log only."""

    def __init__(self, reply: str) -> None:
        super().__init__(bounded(reply))
        self.reply = reply[:LONGEST_READ]


class Progress:
    """Accumulates the lines of a pull. Times are arguments, in seconds of any one clock."""

    def __init__(self, now: float) -> None:
        #: The last line about each layer, and about none: a repeated line is no progress.
        self._progress: dict[str, tuple[str, int | None]] = {}
        self._layers: dict[str, str] = {}
        self._bytes: dict[str, tuple[int, int]] = {}
        self._advanced_at = now

    def read(self, line: dict[str, Any], now: float) -> None:
        """Process one line. Raises `RegistryAnswer` with Docker's text when the line reports an error.

        Values of unexpected types are ignored: progress is for the log.
        """
        detail, error = line.get("errorDetail"), line.get("error")
        if detail or error:
            reply = (detail.get("message") if isinstance(detail, dict) else None) or error or detail
            raise RegistryAnswer(str(reply))
        status, layer, detail = bounded(str(line.get("status") or "")), line.get("id"), line.get("progressDetail")
        layer = layer[:LONGEST_ID] if isinstance(layer, str) else ""
        current, total = (detail.get("current"), detail.get("total") or 0) if isinstance(detail, dict) else (None, 0)
        current = current if isinstance(current, int) else None
        if not status or (layer not in self._progress and len(self._progress) > MAX_LAYERS):
            return
        if status.startswith("Retrying"):
            self._progress.setdefault(layer, ("", None))
        elif self._progress.get(layer) != (status, current):
            self._progress[layer] = (status, current)
            self._advanced_at = now
        if not layer or status.startswith("Pulling from"):
            return
        self._layers[layer] = status
        if status == "Downloading" and current is not None and isinstance(total, int):
            self._bytes[layer] = (current, total)

    def idle_s(self, now: float) -> float:
        """Return the seconds since the last progress."""
        return now - self._advanced_at

    def __str__(self) -> str:
        done = sum(status in _LAYER_DONE for status in self._layers.values())
        current, total = (sum(column) / 1e6 for column in zip(*self._bytes.values(), (0, 0), strict=True))
        return f"{done} of {len(self._layers)} layers, {current:.1f} of {total:.1f} MB"


class Puller:
    """Pulls images through one daemon, within limits."""

    def __init__(self, engine: DaemonClient, limits: PullLimits, logger: logging.Logger) -> None:
        self._engine = engine
        self._total_s = limits.total_s
        self._no_progress_s = limits.no_progress_s
        self._config = DockerConfig(logger)
        self._logger = logger

    def pull(self, image_ref: str, call: Call) -> None:
        """Pull the image. Raises `ImageRefInvalid`, `ImageUnavailable`, `Unavailable` or `TemporaryAnswer`.

        `call` aborts the pull, including its credential helper.
        """
        started = monotonic()
        self._logger.info("pull of image %s started", image_ref)
        limits, outcome, note = Deadline(self._total_s, self._no_progress_s), "failed", ""
        ref = parse_image_ref(image_ref)
        helper_s = min(HELPER_S, self._total_s, self._no_progress_s)
        try:
            credentials = self._config.credentials(ref.registry, helper_s, lambda: call.broken_off)
            note = f" (pulled without credentials: {credentials.note})" if credentials.note else ""
            with self._engine.breakable(call):
                self._engine.call("pull", limits, lambda client: self._run(client, ref, credentials.header))
            outcome = "done"
        except HelperHangs as error:
            raise ImageUnavailable(f"image {image_ref} cannot be pulled: {bounded(str(error))}") from error
        except APIError as error:
            message = self._refused(image_ref, error, note)
            if kind_of("pull", error) is AnswerKind.MALFORMED:
                raise ImageRefInvalid(f"image {image_ref} cannot be pulled: Docker refuses the reference") from error
            raise ImageUnavailable(message) from error
        except RegistryAnswer as error:
            self._log_answer(image_ref, error.reply)
            raise ImageUnavailable(pull_refused(image_ref, error.reply, note)) from error
        except ImageUnavailable as error:
            raise ImageUnavailable(f"image {image_ref} cannot be pulled: {error}{note}") from error
        except TemporaryAnswer as error:
            if isinstance(error.__cause__, APIError):
                self._log_answer(image_ref, explanation(error.__cause__.response)[0])
            raise
        finally:
            self._logger.info("pull of image %s %s after %.1f s", image_ref, outcome, monotonic() - started)

    def _refused(self, image_ref: str, error: APIError, note: str) -> str:
        """Format a refusal; its text is a registry's, or a proxy's before Docker, which callers do not choose."""
        reply, from_docker = explanation(error.response)
        if from_docker:
            self._log_answer(image_ref, reply)
            return pull_refused(image_ref, reply, note)
        return "; ".join(
            filter(None, (f"image {image_ref} cannot be pulled: {words(error)}{note}", forbidden("pull", error)))
        )

    def _log_answer(self, image_ref: str, reply: str) -> None:
        """Log the text of a failed pull, which no caller sees."""
        extra = {"image_ref": image_ref, "answer": reply[:LONGEST_READ]}
        self._logger.warning("a registry's answer, or Docker's, ends a pull", extra=extra)

    def _run(self, client: docker.APIClient, ref: ImageRef, credentials: str) -> None:
        started = logged = monotonic()
        progress = Progress(started)
        try:
            with _request(client, ref, credentials) as response:
                for line in _lines(response):
                    now = monotonic()
                    progress.read(line, now)
                    if progress.idle_s(now) > self._no_progress_s:
                        raise TimeoutError
                    if now - logged >= LOG_EVERY_S:
                        logged = now
                        self._logger.info("pull of image %s: %s", ref.pulled_as, progress)
        except (RequestException, TimeoutError) as error:
            if isinstance(error, APIError) or not timed_out(error):
                raise
            raise self._out_of_time(monotonic() - started, progress) from error

    def _out_of_time(self, elapsed_s: float, progress: Progress) -> ImageUnavailable:
        """Return the error for the exceeded limit. Raises `Unavailable` when the daemon itself does not answer."""
        self._engine.version()
        if elapsed_s >= self._total_s:
            return ImageUnavailable(
                f"not complete after {self._total_s:g} s ({progress}); raise the limit, or load it beforehand"
            )
        return ImageUnavailable(
            f"no progress for {self._no_progress_s:g} s ({progress}); check that the Docker host reaches the registry"
        )


def _request(client: docker.APIClient, ref: ImageRef, credentials: str) -> Response:
    """Send `POST /images/create` and return the unread answer; raises docker's `APIError` for a refusal.

    The SDK's own `pull` does not expose its answer, which must be closed to end a pull. The connection is not reused,
    so aborting a pull that has just ended affects no other call.
    """
    parameters = {"fromImage": ref.name, "tag": ref.digest or ref.tag or "latest"}
    url = f"{client.base_url}/v{client.api_version}/images/create"
    headers = {"Connection": "close"} | ({"X-Registry-Auth": credentials} if credentials else {})
    response = client.post(url, params=parameters, headers=headers, stream=True)
    try:
        checked(response)
    except APIError:
        response.close()
        raise
    return response


def _lines(response: Response) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of the stream as they arrive; other JSON values are skipped.

    Raises `Unreadable` when a line is too long or no JSON, and an error of `requests` when the stream breaks off.
    """
    lines = skim.Lines()
    for piece in chain(response.iter_content(skim.PIECE), [b"\n"]):
        for line in lines.feed(piece):
            if line is None:
                raise Unreadable("a line that is too long")
            try:
                found = skim.loads(line)
            except ValueError:
                raise Unreadable(f"no JSON: {shown(line.decode(errors='replace'), 200)}") from None
            if isinstance(found, dict):
                yield found
