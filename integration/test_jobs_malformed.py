"""Malformed entries: each is answered, or kept for an operator; none blocks a stream."""

import json

from harness import start_services
from harness.rtm import RuntimeTestCase

STARTS, STOPS = "runtime:start_jobs", "runtime:stop_jobs"


def setUpModule() -> None:
    start_services()


class Malformed(RuntimeTestCase):
    def test_a_malformed_job_of_a_game_is_answered_in_its_turn_and_blocks_nothing(self) -> None:
        self.start_runtime()
        good = {"game_id": self.game_id, "requested_at_ms": "1"}
        jobs = (
            ("start", {**good, "image_ref": "NOT an image"}, "start_config_invalid"),
            ("start", good, "start_config_invalid"),
            ("start", {**good, "image_ref": ""}, "start_config_invalid"),
            ("start", {**good, "image_ref": f"galaxy/game:{'1' * 100_000}"}, "start_config_invalid"),
            ("stop", {**good, "reason": "boredom"}, "invalid_request"),
            ("stop", good, "invalid_request"),
            ("stop", {**good, "reason": "finished", "requested_at_ms": "soon"}, "invalid_request"),
            ("stop", {**good, "reason": "finished", "requested_at_ms": "-1"}, "invalid_request"),
            ("stop", {**good, "reason": "finished", "requested_at_ms": ""}, "invalid_request"),
            ("start", {**good, "image_ref": self.engine.ref, "requested_at_ms": "1.5"}, "invalid_request"),
            ("start", {**good, "image_ref": self.engine.ref}, ""),
        )
        for kind, fields, _ in jobs:
            self.add_job(kind, **fields)

        results = self.results(len(jobs))

        self.assertEqual([each["error_code"] for each in results], [code for _, _, code in jobs])
        for result in results[:-1]:
            self.assertEqual(
                (result["outcome"], result["container_id"], result["engine_endpoint"]), ("failure", "", "")
            )
            self.assertLess(len(result["error_message"]), 1000, "a message is for a person")
        self.assertEqual([row["error_code"] or "" for row in self.log_rows()], [code for _, _, code in jobs])
        self.assertEqual(len(self.containers()), 1)

    def test_a_game_whose_id_cannot_be_one_is_answered_by_that_id(self) -> None:
        self.start_runtime()
        games = ("../etc", "-x", "a" * 52, "käse", "with blank")
        for game_id in games:
            self.add_job("start", game_id=game_id, image_ref=self.engine.ref)
            self.add_job("stop", game_id=game_id, reason="finished")

        results = self.results(2 * len(games))

        answered = {(each["game_id"], each["error_code"]) for each in results}
        codes = ("start_config_invalid", "invalid_request")
        self.assertEqual(answered, {(game_id, code) for game_id in games for code in codes})
        self.assertEqual(list(self.state_root.folder("games").iterdir()), [])

    def test_fields_beyond_the_contracts_are_ignored(self) -> None:
        self.start_runtime()
        self.add_job("start", game_id=self.game_id, image_ref=self.engine.ref, reason="none", priority="high")
        self.add_job("stop", game_id=self.game_id, reason="finished", image_ref="NOT an image")

        self.assertEqual([each["error_code"] for each in self.results(2)], ["", ""])

    def test_entries_that_name_no_game_go_to_the_dead_letters_with_all_their_fields(self) -> None:
        self.start_runtime()
        entries: list[tuple[str, dict[str, str | bytes], dict[str, str]]] = [
            (STARTS, {"image_ref": "x:1", "note": "who?"}, {"image_ref": "x:1", "note": "who?"}),
            (STOPS, {"game_id": "", "reason": "finished"}, {"game_id": "", "reason": "finished"}),
            (STOPS, {"game_id": "two\nlines"}, {"game_id": "two\nlines"}),
            (STARTS, {"game_id": "a" * 201}, {"game_id": "a" * 201}),
            (STARTS, {"note": b"\xff\x00"}, {"note": "\\xff\\x00"}),
        ]
        sent = [(stream, self.redis.xadd(stream, fields), kept) for stream, fields, kept in entries]

        letters = self.wait_until("the letters", lambda: self.letters(len(sent)))

        found = [(each["stream"], each["entry_id"], json.loads(each["fields"])) for each in letters]
        self.assertCountEqual(found, sent)
        for letter in letters:
            self.assertIn("game_id", letter["reason"])
            self.assertEqual(set(letter), {"stream", "entry_id", "reason", "fields"})
        self.assertEqual(self.entries("runtime:job_results"), [], "nobody can be answered")
        self.assertEqual(self.rows("SELECT FROM operation_log"), [])

    def letters(self, count: int) -> list[dict[str, str]]:
        found = self.entries("runtime:dead_letters")
        return found if len(found) >= count else []
