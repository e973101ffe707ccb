"""The tables of Docker's answers: each rule by examples, each call with every kind of answer; none is a defect."""

from __future__ import annotations

import json
import unittest
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from unittest import mock

from docker.errors import APIError
from requests import Response

from rtmanager.adapters.docker import Deadlines, DockerRuntime, runtime, skim
from rtmanager.adapters.docker.answers import CALLS, RULES, Meaning, kind_of, meaning, words
from rtmanager.adapters.docker.errors import launch_refused
from rtmanager.adapters.docker.registry_answers import pull_refused
from rtmanager.domain.errors import ErrorCode, RuntimeManagerError, TemporaryAnswer, Unavailable
from rtmanager.domain.text import LONGEST
from rtmanager.fakes import FakeRuntime, Meant
from rtmanager.ports.runtime import (
    ContainerNotFound,
    ContainerRuntime,
    ImageRefInvalid,
    ImageUnavailable,
    LaunchFailed,
    LaunchInvalid,
    PullPolicy,
)
from rtmanager.tests.answers_contract import METHODS, SPEC, AnswersContract
from rtmanager.tests.fake_daemon import Exchange, FakeDaemon
from rtmanager.tests.making import IMAGE, NETWORK, view

QUICK = Deadlines(
    ping_s=2.0, query_s=2.0, log_s=2.0, list_s=2.0, create_s=2.0, start_s=2.0, stop_margin_s=2.0, remove_s=2.0
)
#: The request that stands for a method of the port.
REQUESTS = {
    "network_exists": "GET /networks",
    "ensure_image": f"GET /images/{IMAGE}/json",
    "launch": "POST /containers/create",
    "create_next": "POST /containers/create",
    "promote": "POST /containers/c3/rename",
    "stop": "POST /containers/c2/stop",
    "remove": "DELETE /containers/c1",
    "inspect": "GET /containers/c1/json",
    "list_games": "GET /containers/json",
    "log_tail": "GET /containers/c1/logs",
}
#: A container that has ended, by inspect.
ENDED = {
    "Id": "c1",
    "Name": "/galaxy-game-g1",
    "Image": "sha256:1",
    "Config": {"Image": IMAGE, "Labels": {}, "Tty": False},
    "State": {"Status": "exited", "ExitCode": 3},
}
Reply = Callable[[Exchange], None]


def raw(content: bytes) -> Reply:
    """Answer with raw bytes instead of HTTP, then close the connection."""

    def reply(exchange: Exchange) -> None:
        exchange.wfile.write(content)
        exchange.close_connection = True

    return reply


def page(status: int, content: bytes = b"<html><h1>no</h1></html>") -> Reply:
    return lambda exchange: exchange.reply_raw(status, content)


def replying(status: int, body: object) -> Reply:
    return lambda exchange: exchange.reply(status, body)


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def cut_short(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{")
    exchange.close_connection = True


def continued_for_ever(exchange: Exchange) -> None:
    exchange.close_connection = True
    with suppress(OSError):
        while not exchange.server.daemon_is_closed.wait(0.01):
            exchange.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


#: Answers that no daemon should give, and their meaning.
ODD: dict[str, tuple[Reply, Meaning]] = {
    "a page": (page(200), Meaning.TEMPORARY),
    "an empty body": (page(200, b""), Meaning.TEMPORARY),
    "truncated JSON": (page(200, b'[{"Id": "c'), Meaning.TEMPORARY),
    "no UTF-8": (page(200, b"\xff\xfe\x00"), Meaning.TEMPORARY),
    "a number": (replying(200, 7), Meaning.TEMPORARY),
    "null": (replying(200, None), Meaning.TEMPORARY),
    "a text": (replying(200, "Id"), Meaning.TEMPORARY),
    "other types": (
        replying(200, [{"Id": 7, "State": {"Status": []}, "Config": 5, "Names": 3}]),
        Meaning.TEMPORARY,
    ),
    "an object of others": (replying(200, {"Id": None, "State": "x", "Config": [], "Name": 1}), Meaning.TEMPORARY),
    "a list of lists": (replying(200, [[[]]]), Meaning.TEMPORARY),
    "deep": (page(200, b"[" * 100_000), Meaning.TEMPORARY),
    "a redirect": (page(302), Meaning.TEMPORARY),
    "an error without a message": (replying(500, {}), Meaning.TEMPORARY),
    "an error that is a list": (replying(500, []), Meaning.TEMPORARY),
    "an error whose message is none": (replying(500, {"message": {"x": 1}}), Meaning.TEMPORARY),
    "a page that is not found": (page(404), Meaning.TEMPORARY),
    "a proxy that forbids": (page(403), Meaning.FINAL),
    "a proxy that wants a login": (page(407), Meaning.FINAL),
    "a gateway without its daemon": (page(502), Meaning.SILENCE),
    "a gateway that waits no longer": (page(504), Meaning.SILENCE),
    "another protocol": (raw(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), Meaning.TEMPORARY),
    "an endless header": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), Meaning.TEMPORARY),
    "two lengths": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n{}"), Meaning.TEMPORARY),
    "no length": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), Meaning.TEMPORARY),
    "a half": (cut_short, Meaning.TEMPORARY),
    "a half of chunks": (raw(CHUNKED + b'3\r\n[{"\r\n'), Meaning.TEMPORARY),
    "a half of a chunk": (raw(CHUNKED + b"99\r\n[{"), Meaning.TEMPORARY),
    "no chunks": (raw(CHUNKED + b"x\r\n[]"), Meaning.TEMPORARY),
    "another encoding": (
        raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n[]"),
        Meaning.TEMPORARY,
    ),
    "nothing": (Exchange.drop, Meaning.SILENCE),
    "a promise": (continued_for_ever, Meaning.SILENCE),
    "a half of a head": (raw(b"HTTP/1"), Meaning.TEMPORARY),
}


def refusal(status: int, message: str | None) -> APIError:
    response = Response()
    response.status_code = status
    response._content = b"<html>" if message is None else json.dumps({"message": message}).encode()
    return APIError(str(status), response=response, explanation=message or "")


class Rules(unittest.TestCase):
    def test_each_rule_decides_something(self) -> None:
        examples: dict[str, tuple[str, int, str | None]] = {
            "gateway": ("list", 502, None),
            "not_docker": ("list", 500, None),
            "api_version": ("list", 400, "client version 1.52 is too new. Maximum supported API version is 1.41"),
            "registry_not_now": ("pull", 429, "toomanyrequests: You have reached your pull rate limit."),
            "going_down": ("create", 500, "dial unix:///run/containerd/containerd.sock: timeout"),
            "pull_cut_off": ("pull", 500, "context canceled"),
            "mount_source": ("create", 500, "error while creating mount source path '/x': no space left on device"),
            "container_full": ("start", 500, "OCI runtime create failed: mkdir /x: no space left on device"),
            "no_memory": ("start", 500, "fork/exec /usr/bin/runc: resource temporarily unavailable"),
            "host_full": ("create", 500, "mkdir /var/lib/docker/overlay2/x: no space left on device"),
            "not_now": ("create", 503, "This node is not ready"),
            "will_not_die": ("stop", 500, "tried to kill container, but did not receive an exit event"),
            "busy": ("remove", 500, "unable to remove filesystem: unlinkat /x: device or resource busy"),
            "timed_out_inside": ("create", 500, "context deadline exceeded"),
        }
        self.assertEqual(list(examples), [rule.name for rule in RULES])
        for name, (call, status, message) in examples.items():
            with self.subTest(name):
                self.assertEqual(meaning(call, refusal(status, message))[1], name)

    def test_a_directory_of_an_image_chooses_no_meaning(self) -> None:
        for name in ("too many open files", "database not open", "no space left on device", "invalid reference format"):
            error = refusal(500, f"lstat /var/lib/docker/overlay2/1/merged/etc/passwd/{name}: not a directory")
            with self.subTest(name):
                self.assertEqual((meaning("create", error)[0], kind_of("create", error)), (Meaning.FINAL, None))

    def test_a_colon_in_a_directory_of_an_image_chooses_no_meaning(self) -> None:
        inside = f"/var/lib/docker/overlay2/{'1' * 64}/merged/etc/passwd"
        for mark in (
            *(mark for rule in RULES for mark in rule.marks),
            "no space left on device: unknown",
            "dial unix:///run/containerd/containerd.sock",
            "invalid reference format",
        ):
            for text in (
                f"lstat {inside}/x: {mark}: not a directory",
                f"lstat {inside}/x: {mark}{'y' * 30_000}: {mark}: file name too long",
                f"lstat {inside}/\n\"'x: {mark}: {mark}: not a directory",
                f"evalSymlinksInScope: too many links in {inside}/x: {mark}",
                f"cannot mount volume over existing file, file exists {inside}: {mark}",
                f"Cannot mkdir: /etc/a: {mark} is not a directory",
                f'exec: "a\\" {mark} \\"b": executable file not found in $PATH: unknown',
            ):
                error = refusal(500, text)
                with self.subTest(text[:200]):
                    self.assertEqual((meaning("create", error), kind_of("create", error)), ((Meaning.FINAL, ""), None))

    def test_a_refusal_that_is_cut_in_a_directory_of_an_image_is_final(self) -> None:
        begin = f"lstat /var/lib/docker/overlay2/{'1' * 64}/merged/etc/passwd/"
        for length in range(1800, 2100):
            text = begin + "x" * (length - len(begin)) + ": no space left on device" * 4000 + ": file name too long"
            body = skim.reduced(BytesIO(json.dumps({"message": text}).encode()).read)
            error = refusal(500, json.loads(body)["message"])
            self.assertEqual(meaning("create", error), (Meaning.FINAL, ""), length)

    def test_a_text_of_silence_that_an_image_may_have_chosen_is_temporary(self) -> None:
        for mark in ("no space left on device", "too many open files", "shutting down"):
            error = refusal(500, f"lstat /snapshots/12/fs/etc/passwd/x: {mark}: not a directory")
            self.assertIs(meaning("create", error)[0], Meaning.TEMPORARY, mark)

    def test_a_cause_behind_a_path_and_an_outage_of_containerd_are_silence(self) -> None:
        for text in (
            f"write /var/lib/docker/overlay2/{'1' * 64}/merged/a: b: no space left on device",
            "mkdir /run/x: no space left on device: unknown",
            'connection error: desc = "transport: dial unix:///run/containerd/containerd.sock: timeout": unavailable',
            "open /run/x: ttrpc: closed: unknown",
            "open /run/x: error reading from server: EOF: unavailable",
        ):
            self.assertIs(meaning("start", refusal(500, text))[0], Meaning.SILENCE, text)

    def test_a_refusal_for_a_setting_names_the_variable_and_its_value(self) -> None:
        log = {"max-size": "-1", "splunk-token": "S3cret"}
        spec = replace(SPEC, log_driver="jsonfile", log_options=log, mount_path="/etc/hosts")
        for explanation in (
            'error looking up logging plugin jsonfile: plugin "jsonfile" not found',
            "failed to initialize logging driver: invalid size: '-1'",
            "unknown log opt 'foo' for json-file log driver",
            "logger: no log driver named 'jsonfile' is registered",
        ):
            with self.subTest(explanation):
                message = launch_refused(spec, "start", refusal(500, explanation))
                self.assertIn("RTMANAGER_DOCKER_LOG_DRIVER=jsonfile", message)
                self.assertIn("RTMANAGER_DOCKER_LOG_OPTS=max-size=-1,splunk-token=…", message)
                self.assertNotIn("S3cret", message)
        explanation = 'runc create failed: error mounting "/srv/g1" to rootfs at "/etc/hosts": not a directory: unknown'
        message = launch_refused(spec, "start", refusal(500, explanation))
        self.assertIn("RTMANAGER_ENGINE_STATE_MOUNT_PATH=/etc/hosts", message)

    def test_an_image_chooses_no_remedy(self) -> None:
        refused = refusal(500, "lstat /x/merged/etc/network/no space left: not a directory")
        self.assertNotIn("; check", launch_refused(SPEC, "create", refused))
        explanation = "manifest for timeout/x509:denied not found: manifest unknown"
        self.assertIn("check that the tag was pushed", pull_refused("localhost:1/timeout/x509:denied", explanation))

    def test_a_registry_calls_no_reference_malformed(self) -> None:
        self.assertIsNone(kind_of("pull", refusal(400, "name invalid: invalid reference format")))

    def test_every_other_answer_is_final(self) -> None:
        for call in CALLS:
            for status in (400, 401, 403, 404, 405, 409, 410, 413, 418, 422, 500, 501, 505, 599):
                self.assertIs(meaning(call, refusal(status, "some text"))[0], Meaning.FINAL, (call, status))

    def test_what_is_wrong_with_the_request_itself_is_final_whoever_reports_it(self) -> None:
        for status in (401, 403, 407, 413, 414, 431):
            for call in CALLS:
                error = refusal(status, None)
                self.assertIs(meaning(call, error)[0], Meaning.FINAL, (call, status))

    def test_an_answer_of_a_registry_never_counts_as_the_daemons(self) -> None:
        for status in (429, 500, 502, 503, 504):
            for text in ("shutting down", "no space left on device", "i/o timeout", "too many open files", ""):
                self.assertIsNot(meaning("pull", refusal(status, text))[0], Meaning.SILENCE, (status, text))

    def test_an_image_does_not_choose_the_meaning_of_its_answer(self) -> None:
        for text in (
            'OCI runtime create failed: exec: "no space left on device": executable file not found in $PATH',
            "linux spec user: unable to find user context canceled: no matching entries in passwd file",
            "invalid mount path: '/shutting down/i/o timeout' mount path must be absolute",
            'exec: \\"cannot allocate memory\\": permission denied',
        ):
            for call in ("create", "start"):
                self.assertEqual(meaning(call, refusal(500, text)), (Meaning.FINAL, ""), text)

    def test_the_text_is_bounded_and_on_one_line(self) -> None:
        for text in ("x" * 300_000, "a\nb\0c\u2028\u202e\u2066" * 100_000, "\udcff" * 5000, "<html>" * 99_999):
            found = words(refusal(500, text))
            self.assertLess(len(found), LONGEST + 40)
            self.assertNotRegex(found, "[\0\n\u2028\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
        self.assertEqual(words(refusal(403, None)), "403")


class DaemonTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.daemon.answers[REQUESTS["inspect"]] = replying(200, ENDED)
        self.daemon.answers["GET /containers/c2/json"] = replying(
            200, {**ENDED, "Id": "c2", "State": {"Status": "running"}}
        )
        self.runtime: ContainerRuntime = DockerRuntime(self.daemon.host, deadlines=QUICK)
        self.addCleanup(self.runtime.close)

    def restore(self, method: str) -> None:
        """Restore the first answer of a method."""
        if method == "inspect":
            self.daemon.answers[REQUESTS[method]] = replying(200, ENDED)
        else:
            del self.daemon.answers[REQUESTS[method]]


class DockerAnswers(AnswersContract, DaemonTestCase):
    def refuse(self, method: str, meant: Meant) -> None:
        status = 503 if meant is Meant.TEMPORARY else 500
        self.daemon.answers[REQUESTS[method]] = partial(Exchange.refuse, status=status, message="some text")

    def stop_refusing(self, method: str) -> None:
        self.restore(method)


class FakeAnswers(AnswersContract, unittest.TestCase):
    def setUp(self) -> None:
        self.fake = FakeRuntime([NETWORK])
        self.fake.add_foreign(view(container_id="c2"))
        self.runtime: ContainerRuntime = self.fake

    def refuse(self, method: str, meant: Meant) -> None:
        self.fake.refuse(method, meant)

    def stop_refusing(self, method: str) -> None:
        self.fake.stop_refusing(method)


class EveryAnswer(DaemonTestCase):
    """Each method of the port with each odd answer: a value, or the right named error."""

    def outcomes(self) -> Iterator[tuple[str, str, Meaning, object]]:
        for name, (reply, expected) in ODD.items():
            for method, (call, _, _) in METHODS.items():
                self.daemon.answers[REQUESTS[method]] = reply
                with self.subTest(answer=name, method=method):
                    try:
                        yield name, method, expected, call(self.runtime)
                    except RuntimeManagerError as error:
                        yield name, method, expected, error
                self.restore(method)

    def test_none_is_a_defect_a_lie_or_silence_for_ever(self) -> None:
        for name, method, expected, outcome in self.outcomes():
            if expected is Meaning.FINAL:
                self.assertIsInstance(outcome, METHODS[method][1])
                self.assertNotIsInstance(outcome, Unavailable)
            elif expected is Meaning.SILENCE:
                self.assertIsInstance(outcome, Unavailable)
                self.assertNotIsInstance(outcome, TemporaryAnswer)
            elif method == "list_games" and name in ("other types", "a list of lists"):
                self.assertIn(type(outcome), (list, TemporaryAnswer))
            else:
                self.assertIsInstance(outcome, TemporaryAnswer, outcome)

    def test_what_is_not_read_of_an_answer_may_have_any_size(self) -> None:
        odd: dict[str, object] = {"Test": ["x" * 3_000_000], "Aliases": [f"a{number}" * 90 for number in range(9_000)]}
        container = {**ENDED, "Config": {"Image": IMAGE, "Healthcheck": odd, "Env": odd["Aliases"]}}
        container |= {"NetworkSettings": {"Networks": {NETWORK: {"IPAddress": "10.0.0.1", **odd}}}, "Mounts": odd}
        listed = {"Id": "c1", "Names": ["/galaxy-game-g1"], "State": "exited", "Labels": odd, "Mounts": odd}
        networks = [{"Name": NETWORK, "Labels": odd, "Containers": odd}]
        image = {"Id": "sha256:1", "Config": {"Labels": {"com.galaxy.memory": "9m"}, "Healthcheck": odd}, "X": odd}
        self.daemon.answers |= {
            "GET /version": replying(200, {"ApiVersion": "1.41", "Version": "20", "Components": odd}),
            "GET /networks": replying(200, networks),
            f"GET /images/{IMAGE}/json": replying(200, image),
            "GET /containers/json": replying(200, [listed, listed]),
            "GET /containers/c1/json": replying(200, container),
            "POST /containers/create": replying(201, {"Id": "c1", "Warnings": ["w" * 3_000_000], "X": odd}),
            "POST /containers/c1/start": replying(204, None),
            "DELETE /containers/c1": replying(204, None),
        }
        self.assertTrue(self.runtime.network_exists(NETWORK))
        self.assertEqual(self.runtime.inspect("c1").exit_code, 3)
        self.assertEqual(dict(self.runtime.inspect("c1").addresses), {NETWORK: "10.0.0.1"})
        self.assertEqual([view.ended for view in self.runtime.list_games()], [True, True])
        self.assertEqual(self.runtime.ensure_image(IMAGE, PullPolicy.NEVER).labels, {"com.galaxy.memory": "9m"})
        with self.assertLogs("rtmanager.docker"), self.assertRaisesRegex(LaunchFailed, "exit code 3"):
            self.runtime.launch(SPEC)

    def test_a_list_of_too_many_containers_or_too_much_text_cannot_be_read(self) -> None:
        entry = {"Id": "c1", "Names": ["/" + "x" * 400], "Labels": {}}
        self.daemon.answers["GET /containers/json"] = replying(200, [entry] * 100)
        for bound, most in (("MOST_LISTED", 99), ("MOST_LISTED_TEXT", 39_999)):
            with (
                mock.patch.object(runtime, bound, most),
                self.assertRaisesRegex(TemporaryAnswer, "a list of more than"),
            ):
                self.runtime.list_games()
            self.assertEqual(len(self.runtime.list_games()), 100)

    def test_a_refusal_of_any_size_is_read_as_its_text(self) -> None:
        for call in ("GET /containers/json", "POST /images/create", f"GET /images/{IMAGE}/json"):
            refusal = {"odd": ["x" * 900] * 9_000, "message": "no " * 999_999}
            self.daemon.answers[call] = replying(500, refusal)
            with self.subTest(call), self.assertRaises(RuntimeManagerError) as caught:
                self.runtime.list_games() if "json" in call else self.runtime.ensure_image(IMAGE, PullPolicy.ALWAYS)
            self.assertLess(len(str(caught.exception)), 2 * LONGEST)
            self.assertIn("manager's log" if "create" in call else "no no", str(caught.exception))

    def test_a_stop_that_is_refused_to_what_has_ended_is_one(self) -> None:
        for reply in (
            replying(500, {"message": "Cannot stop container c1: no such process"}),
            replying(503, {"message": "no"}),
        ):
            self.daemon.answers["POST /containers/c1/stop"] = reply
            self.assertFalse(self.runtime.stop("c1", 1))

    def test_a_stop_returns_whether_it_ended_a_process(self) -> None:
        for status, ended in ((204, True), (304, False)):
            self.daemon.answers["POST /containers/c1/stop"] = replying(status, None)
            self.assertIs(self.runtime.stop("c1", 1), ended)

    def test_a_removal_that_never_ends_is_a_temporary_answer(self) -> None:
        removing = replying(409, {"message": "removal of container c1 is already in progress"})
        self.daemon.answers["DELETE /containers/c1"] = removing
        with self.assertRaises(TemporaryAnswer) as caught:
            self.runtime.remove("c1")
        self.assertEqual(caught.exception.answer, "remove: removing")

    def test_no_page_of_a_proxy_is_taken_for_done(self) -> None:
        self.daemon.answers["POST /containers/create"] = replying(201, {"Id": "c1"})
        self.daemon.answers["DELETE /containers/c1"] = replying(204, None)
        for status in (200, 201, 202, 301, 302, 307):
            self.daemon.answers["POST /containers/c1/start"] = page(status)
            with self.assertRaises(TemporaryAnswer):
                self.runtime.launch(SPEC)

    def test_a_page_is_no_news_about_a_container(self) -> None:
        """Otherwise a proxy without a daemon would cause the disposal of every game."""
        for body in (b"404 page not found", b"", b"<html>", b'{"message": "page not found"}', b'{"error": "no"}'):
            self.daemon.answers["GET /containers/c1/json"] = page(404, body)
            with self.assertRaises(RuntimeManagerError) as caught:
                self.runtime.inspect("c1")
            self.assertNotIsInstance(caught.exception, ContainerNotFound, body)

    def test_what_is_started_with_a_temporary_answer_is_taken_away_again(self) -> None:
        self.daemon.answers["POST /containers/create"] = replying(201, {"Id": "c1"})
        self.daemon.answers["POST /containers/c1/start"] = replying(503, {"message": "not now"})
        self.daemon.answers["DELETE /containers/c1"] = replying(204, None)
        with self.assertRaises(TemporaryAnswer):
            self.runtime.launch(SPEC)
        self.assertEqual(self.daemon.count("DELETE /containers/c1"), 1)

    def test_a_version_that_is_none_is_an_answer_of_every_call(self) -> None:
        bodies: tuple[object, ...] = (
            {"ApiVersion": "x"},
            {"ApiVersion": 3},
            [],
            None,
            "1.41",
            {"ApiVersion": "1.41\n"},
        )
        for body in bodies:
            self.daemon.answers["GET /version"] = replying(200, body)
            for method, (call, _, _) in METHODS.items():
                runtime = DockerRuntime(self.daemon.host, deadlines=QUICK)
                self.addCleanup(runtime.close)
                with self.subTest(body=body, method=method), self.assertRaises(TemporaryAnswer):
                    call(runtime)

    def test_a_malformed_reference_is_named_as_such(self) -> None:
        for status, message in ((400, "invalid reference format"), (500, "invalid reference format: lowercase")):
            self.daemon.answers[REQUESTS["ensure_image"]] = replying(status, {"message": message})
            with self.assertRaises(ImageRefInvalid):
                self.runtime.ensure_image(IMAGE, PullPolicy.IF_MISSING)
            self.daemon.answers["POST /containers/create"] = replying(status, {"message": message})
            with self.assertRaises(LaunchInvalid):
                self.runtime.launch(SPEC)
            self.daemon.answers["POST /images/create"] = replying(400, {"message": message})
            with self.assertRaises(ImageRefInvalid):
                self.runtime.ensure_image(IMAGE, PullPolicy.ALWAYS)

    def test_a_pull_has_a_temporary_answer_a_final_one_or_a_text_of_bounded_length(self) -> None:
        replies: tuple[tuple[Reply, type[RuntimeManagerError]], ...] = (
            (replying(429, {"message": "toomanyrequests: <!DOCTYPE html> rate limited"}), TemporaryAnswer),
            (replying(503, {"message": "the registry is being upgraded"}), TemporaryAnswer),
            (page(200), TemporaryAnswer),
            (page(404), TemporaryAnswer),
            (lambda exchange: exchange.chunks([b'{"status": "Pulling"}\r\n', b"no JSON\r\n"]), TemporaryAnswer),
            (replying(500, {"message": "manifest unknown"}), ImageUnavailable),
            (page(407), ImageUnavailable),
            (lambda exchange: exchange.stream([{"error": "x" * 300_000 + "\0"}]), ImageUnavailable),
        )
        for number, (reply, kind) in enumerate(replies):
            self.daemon.answers["POST /images/create"] = reply
            with self.subTest(number), self.assertRaises(kind) as caught:
                self.runtime.ensure_image(IMAGE, PullPolicy.ALWAYS)
            self.assertLess(len(str(caught.exception)), 2 * LONGEST)
            if isinstance(caught.exception, TemporaryAnswer):
                self.assertIs(caught.exception.code, ErrorCode.IMAGE_PULL_FAILED)
                self.assertTrue(caught.exception.answer.startswith("pull: "))

    def test_a_log_of_a_daemon_that_gives_its_version_no_more_leaves_it_too(self) -> None:
        def ended(exchange: Exchange) -> None:
            self.daemon.answers["GET /version"] = replying(403, {"message": "no"})
            one._engine._forget()  # as when another thread receives an answer
            exchange.reply(200, ENDED)

        one = DockerRuntime(self.daemon.host, deadlines=QUICK)
        self.addCleanup(one.close)
        self.daemon.answers["POST /containers/create"] = replying(201, {"Id": "c1"})
        self.daemon.answers["POST /containers/c1/start"] = replying(204, None)
        self.daemon.answers["GET /containers/c1/json"] = ended
        with self.assertRaisesRegex((LaunchFailed, TemporaryAnswer), "exit code 3; its log cannot be read: .*no"):
            one.launch(SPEC)
        self.assertRegex(one.log_tail("c1"), "^.the log cannot be read: .*no")

    def test_the_encoding_of_a_large_page_is_not_guessed(self) -> None:
        self.daemon.answers[REQUESTS["inspect"]] = page(500, b"\xe9 [" * 300_000)
        guessed = mock.PropertyMock(side_effect=AssertionError)
        unguessed = mock.patch.multiple(Response, text=guessed, apparent_encoding=guessed)
        with unguessed, self.assertRaises(TemporaryAnswer) as caught:
            self.runtime.inspect("c1")
        self.assertLess(len(str(caught.exception)), 2 * LONGEST)

    def test_a_log_that_cannot_be_read_leaves_the_answer_of_a_start(self) -> None:
        self.daemon.answers["POST /containers/create"] = replying(201, {"Id": "c1"})
        self.daemon.answers["POST /containers/c1/start"] = replying(204, None)
        self.daemon.answers["DELETE /containers/c1"] = replying(204, None)
        for reply, _ in (*ODD.values(), (replying(501, {"message": "cannot be read"}), Meaning.FINAL)):
            self.daemon.answers["GET /containers/c1/logs"] = reply
            with self.assertRaisesRegex(LaunchFailed, "exit code 3; its log"):
                self.runtime.launch(SPEC)
