"""Redis Streams: reads the inputs as one consumer group, and writes each output exactly once.

*Reading.* Only the holder of the ingest lock reads (see `adapters/postgres/inbox.py`). So one consumer name serves all
instances, and every pending entry is an orphan, which is read first.

*Writing.* A script adds a message and records its key in one step; while the key is recorded, the message is not added
again. The script also rejects an older fencing token than it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rtmanager import failpoints
from rtmanager.adapters import redis_access, redis_reading, redis_trimming
from rtmanager.adapters.redis_access import CheckedTlsConnection, RedisAway, Tls
from rtmanager.domain.errors import FinalAnswer, Unavailable
from rtmanager.domain.jobs import INPUT_STREAMS, Batch, Entry, EntryId
from rtmanager.domain.messages import OUTBOX_PREFIX, Stream
from rtmanager.domain.text import bounded
from rtmanager.ports.streams import DueMessage, Published, StaleFencingToken, Trimmed

GROUP = "rtmanager"
CONSUMER = "ingest"

#: Errors that mean that the whole server cannot serve now, or does not answer.
SILENT_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.InvalidResponse,
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)
#: Beginnings of such replies for which redis-py has no class.
SILENT_REPLIES = ("BUSY", "MISCONF", "NOREPLICAS", "NOMASTERLINK")

#: The part of PostgreSQL's silence limit that one command, or one connection attempt, may take. Each command is tried
#: twice, and twice this must stay below the limit: ingest and relay call Redis inside a transaction, and a longer wait
#: would count as PostgreSQL's.
COMMAND_PART = 1 / 4
#: The longest blocking read, as a part of the same limit.
WAIT_PART = 5 / 8
#: A read of entries may take the whole limit: it is not repeated after a timeout, and an entry may be large.
#: When it takes longer while Redis answers other commands, the next read may take this many seconds. That is slightly
#: less than the time after which PostgreSQL ends the transaction of a frozen lock holder.
PATIENT_S = 9.0
#: A read that takes more seconds than this is followed by one of fewer bytes, at least `SLOW_BUDGET_BYTES` unless it
#: failed; a faster one by one of more. A failed size is not tried again for `CAUTIOUS_S` seconds.
SLOW_READ_S = 1.0
SLOW_BUDGET_BYTES = 16 * 1024
CAUTIOUS_S = 60.0
#: That time doubles with each such failure, up to this bound: a limit of the server stays.
MOST_CAUTIOUS_S = 3600.0
#: Consecutive smallest reads that Redis may end, while it answers other commands, before a limit is reported.
LEAST_FAILURES = 2
_CUT_OFF = "answers, and ends the connection at each read, of one entry, too"
_CUT_OFF_REMEDY = "raise client-output-buffer-limit normal to 256kb or more, or set it to 0 0 0"

#: The largest id: no entry follows it.
_LAST_ID = f"{2**64 - 1}-{2**64 - 1}"

#: The key of a recorded message; in older releases the id alone.
_KEY = re.compile(rb"[0-9]{1,18}(:[0-9a-f]{16})?")

#: KEYS: fence, recorded messages, then the streams. ARGV: fencing token, maximal length, then for each message its key,
#: its older key, the index of its stream in KEYS, the number of its fields and values, and these.
_PUBLISH = """
local found = redis.pcall('GET', KEYS[1])
-- Anybody may have written there: what can be no turn is none, and SET puts one in the place of any type.
if type(found) == 'table' and (found.err or ''):sub(1, 9) ~= 'WRONGTYPE' then return found end
local latest = type(found) == 'string' and tonumber(found) or 0
if not (latest >= 0 and latest < 2^53) then latest = 0 end
if tonumber(ARGV[1]) < latest then return {err = 'STALETURN ' .. string.format('%d', latest)} end
redis.call('SET', KEYS[1], ARGV[1])
-- What a script has done stays done when a later command fails: a right that was taken must not cost a second message.
redis.call('SREM', KEYS[2], '')
local added, refused, i = {}, {}, 3
while i <= #ARGV do
  local id, older, key, count = ARGV[i], ARGV[i + 1], KEYS[tonumber(ARGV[i + 2])], tonumber(ARGV[i + 3])
  if not refused[key] then
    local known = redis.call('SISMEMBER', KEYS[2], id) == 1 or redis.call('SISMEMBER', KEYS[2], older) == 1
    if not known then
      local entry = {}
      for j = 1, count do entry[j] = ARGV[i + 3 + j] end
      redis.call('SADD', KEYS[2], id)
      local reply = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[2], '*', unpack(entry))
      if type(reply) == 'table' and reply.err then
        redis.call('SREM', KEYS[2], id)
        refused[key] = reply.err
      else
        added[#added + 1] = id
      end
    else
      added[#added + 1] = id
    end
  end
  i = i + 4 + count
end
local why = {}
for key, err in pairs(refused) do why[#why + 1] = key; why[#why + 1] = err end
return {added, why}
"""


class RedisStreams:
    """One Redis, both directions. Each worker uses its half from one thread; other methods are thread-safe."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        password: str,
        username: str = "",
        tls: Tls | None = None,
        names: Mapping[Stream, str],
        output_maxlen: int,
        silence_s: float,
    ) -> None:
        command_s, self._longest_wait_s = silence_s * COMMAND_PART, silence_s * WAIT_PART
        self._where = f"redis at {host}:{port}"
        self._address, self._tls, self._command_s = (host, port), tls, command_s
        self._names = names
        self._maxlen = output_maxlen
        common: dict[str, Any] = {
            "host": host,
            "port": port,
            "username": username or None,
            "password": password or None,
            "socket_connect_timeout": command_s,
            "socket_keepalive": True,
            "client_name": "rtmanager",
            "protocol": 2,
            **(tls.settings() if tls else {}),
        }
        # Retried once on a fresh connection, for a dead pooled one; the workers retry further.
        # `Any`: redis-py annotates replies as unions of everything, differently in each release.
        self._client: Any = redis.Redis(**common, socket_timeout=command_s, retry=Retry(NoBackoff(), 1))
        # A blocking read is answered late on purpose. It has a connection of its own and no retry, which would block
        # once more.
        self._waiter: Any = redis.Redis(
            **common, socket_timeout=self._longest_wait_s + command_s, retry=Retry(NoBackoff(), 0)
        )
        # Entries are read on connections of their own, without a retry after a timeout: Redis may still process the
        # read.
        read_again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        self._reader: Any = redis.Redis(**common, socket_timeout=min(silence_s, PATIENT_S), retry=read_again)
        self._patient_reader: Any = redis.Redis(**common, socket_timeout=PATIENT_S, retry=Retry(NoBackoff(), 0))
        if tls:
            for client in (self._client, self._waiter, self._reader, self._patient_reader):
                client.connection_pool.connection_class = CheckedTlsConnection
        self._patient = False
        self._failed: redis.RedisError | None = None
        self._least_failed = 0
        self._cautious_s = CAUTIOUS_S
        self._budget = self._most = redis_reading.BUDGET_BYTES
        self._most_until = 0.0
        self._pace = redis_reading.Pace()
        self._shape = self._client.register_script(redis_access.SHAPE)
        self._waiting_client: int | None = None
        self._interrupted = False
        self._fence = ""
        self._remembered = ""
        #: The recorded keys of messages, by message id.
        self._keys: dict[int, set[str]] = {}

    def use_deployment(self, deployment_id: str) -> None:
        """Set the database that the messages come from: several may share one Redis, each with its own ids."""
        self._fence = f"{OUTBOX_PREFIX}{deployment_id}:turn"
        self._remembered = f"{OUTBOX_PREFIX}{deployment_id}:published"

    def close(self) -> None:
        """Close every connection."""
        for client in (self._client, self._waiter, self._reader, self._patient_reader):
            client.close()

    def ping(self) -> str:
        """Return the server's version. Raises `Unavailable`, or `RedisUnfit` when it answers but cannot be used."""
        with self._command("ping"):
            try:
                with self._client.client() as client:
                    return redis_access.examine(client.connection, self._names, self._where)
            except redis.RedisError as error:
                rules = redis_access.acl_rules(self._names)
                known = redis_access.why_unusable(error, self._where, self._address, self._tls, self._command_s, rules)
                if known is None:
                    raise
                raise known from error

    def warnings(self) -> list[str]:
        """Return problems that do not prevent use, with remedies. Raises `Unavailable`."""
        with self._command("ping"), self._client.client() as client:
            return redis_access.warnings(client.connection, self._names)

    def require(self) -> None:
        """Raise `Unavailable` unless the server serves: not while it loads its data, or a script does not end.

        This is cheaper than `ping`. Redis refuses PING after a failed snapshot, though it then executes other commands.
        """
        with self._command("ping"):
            self._client.exists(self._names[Stream.JOB_RESULTS])

    # --- reading

    def wait(self, timeout_s: float) -> bool:
        """Block until the group can receive a new entry on either stream, or the time is over.

        Uses `XREAD` and not `XREADGROUP`: waiting needs no lock and takes nothing. Its answer would contain an entry of
        any size, so it is skipped. The commands behind it show its end and any refusal; the elapsed time shows whether
        there is an entry.
        """
        timeout_ms = max(1, round(min(timeout_s, self._longest_wait_s) * 1000))
        with self._command("wait"), self._waiter.client() as waiter:
            names = [self._names[stream] for stream in INPUT_STREAMS]
            positions = [self._last_given(stream) for stream in INPUT_STREAMS]
            blocking = ("XREAD", "COUNT", 1, "BLOCK", timeout_ms, "STREAMS", *names, *positions)
            asking = ("XREAD", "COUNT", 1, "STREAMS", *names, *(_LAST_ID for _ in names))
            self._interrupted, self._waiting_client = False, int(waiter.client_id())
            connection, began = waiter.connection, monotonic()
            try:
                commands = [("CLIENT", "REPLY", "SKIP"), blocking, asking, ("EXISTS", *names)]
                connection.send_packed_command(connection.pack_commands(commands))
                _read_to_the_number(connection)
            except BaseException:
                connection.disconnect()  # pending answers must not reach the next command
                raise
            finally:
                self._waiting_client = None
            return monotonic() - began < timeout_ms / 1000 and not self._interrupted

    def interrupt(self) -> None:
        """End a `wait` on another thread now. A `wait` that is about to begin is missed: call again."""
        waiting = self._waiting_client
        if waiting is not None:
            self._interrupted = True
            # Without the right to unblock, the wait lasts at most `WAIT_PART`.
            with self._command("interrupt"), suppress(redis.exceptions.NoPermissionError):
                self._client.client_unblock(waiting)

    def read(self, limit: int) -> Sequence[Batch]:
        """See `InputStreams.read`."""
        with self._command("read"):
            if self._failed is not None:
                self._read_less(self._failed)
            began = monotonic()
            try:
                batches = self._read(limit)
            except (redis.TimeoutError, redis.ConnectionError) as error:
                self._failed = error
                if self._least_failed >= LEAST_FAILURES:
                    raise RedisAway(f"{self._where} {_CUT_OFF}: {error}", _CUT_OFF_REMEDY) from error
                raise
            self._patient, self._least_failed = False, 0
            self._learn(monotonic() - began, batches)
            return batches

    def _read(self, limit: int) -> list[Batch]:
        try:
            return self._take(limit)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        # The first read of all; or Redis lost its data, or the group was deleted.
        self._make_groups()
        return self._take(limit)

    def _take(self, limit: int) -> list[Batch]:
        """Read in one step: the pending entries of each stream, then the new ones of both."""
        least = self._budget <= redis_reading.LEAST_BUDGET_BYTES
        work = redis_reading.LEAST_BUDGET_BYTES if least else redis_reading.WORK_BYTES
        pace = self._pace.arguments(least=least)
        answer = _on_primary(
            self._patient_reader if self._patient else self._reader,
            redis_reading.READ,
            keys=[self._names[stream] for stream in INPUT_STREAMS],
            args=[GROUP, CONSUMER, limit, self._budget, work, *pace],
        )
        return redis_reading.batches(INPUT_STREAMS, answer)

    def _learn(self, seconds: float, batches: Sequence[Batch]) -> None:
        """Set how many bytes the next read may return over this connection."""
        entries = [entry for batch in batches for entry in batch.entries]
        self._pace.learn(seconds, entries)
        brought = sum(len(value) for entry in entries for value in entry.fields.values())
        if seconds > SLOW_READ_S:
            # A slow read of few bytes took its time in Redis.
            if brought > self._budget // 2:
                self._budget = max(self._budget // 4, SLOW_BUDGET_BYTES)
            return
        most = self._most if monotonic() < self._most_until else redis_reading.BUDGET_BYTES
        self._budget = min(max(self._budget, SLOW_BUDGET_BYTES // 4) * 4, most)

    def _read_less(self, failed: redis.RedisError) -> None:
        """Reduce the size of reads after one without an answer, if Redis answers another command.

        Raises `redis.RedisError` when it does not. A server with a limit on its output (client-output-buffer-limit)
        ends the connection of a large answer.
        """
        self._client.exists(self._names[Stream.JOB_RESULTS])
        self._failed = None
        if self._budget > redis_reading.LEAST_BUDGET_BYTES:
            self._most, self._most_until = max(self._budget // 4, SLOW_BUDGET_BYTES), monotonic() + self._cautious_s
            self._cautious_s = min(self._cautious_s * 2, MOST_CAUTIOUS_S)
            self._budget = redis_reading.LEAST_BUDGET_BYTES
        elif isinstance(failed, redis.ConnectionError):
            self._least_failed += 1
        self._patient = isinstance(failed, redis.TimeoutError)

    def give_again(self, after: Mapping[Stream, EntryId]) -> Mapping[Stream, EntryId]:
        """See `InputStreams.give_again`."""
        with self._command("give_again"):
            given = {stream: EntryId.parse(self._last_given(stream)) for stream in after}
            beyond = {stream: last for stream, last in given.items() if last > after[stream]}
            for stream in beyond:
                self._client.xgroup_setid(self._names[stream], GROUP, str(after[stream]))
        return beyond

    def give_all_again(self) -> Mapping[Stream, EntryId]:
        """See `InputStreams.give_all_again`. Without the right to read the last id, nothing is given again."""
        beyond: dict[Stream, EntryId] = {}
        with self._command("give_again"):
            for stream in INPUT_STREAMS:
                given = EntryId.parse(self._last_given(stream))
                shape = self._shape(keys=[self._names[stream]]) if given > EntryId(0, 0) else []
                if shape and given > EntryId.parse(shape[0].decode()):
                    self._client.xgroup_setid(self._names[stream], GROUP, "0")
                    beyond[stream] = given
        return beyond

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """See `InputStreams.acknowledge`."""
        with self._command("acknowledge"), self._client.pipeline(transaction=False) as pipe:
            for stream in INPUT_STREAMS:
                ids = [str(entry.entry_id) for entry in entries if entry.stream is stream]
                if ids:
                    pipe.xack(self._names[stream], GROUP, *ids)
            pipe.execute()

    def trim(self, stream: Stream, *, older_than: EntryId | None, durable: EntryId, limit: int) -> Trimmed:
        """See `InputTrimming.trim`."""
        with self._command("trim"):
            answer = _on_primary(
                self._client,
                redis_trimming.TRIM,
                keys=[self._names[stream]],
                args=[GROUP, redis_trimming.bound(older_than), str(durable), limit],
            )
            return redis_trimming.trimmed(answer)

    def _make_groups(self) -> None:
        """Create the missing consumer groups, from the beginning of their streams.

        So jobs published before the first start are executed. Entries of a stream whose group was deleted are read
        again and recognised as known.
        """
        for stream in INPUT_STREAMS:
            try:
                self._client.xgroup_create(self._names[stream], GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                # A key that is no stream must not leave the other one unread; the read reports it.
                if not str(error).startswith(("BUSYGROUP", "WRONGTYPE")):
                    raise

    def _last_given(self, stream: Stream) -> str:
        try:
            groups = self._client.xinfo_groups(self._names[stream])
        except redis.ResponseError as error:
            if "no such key" not in str(error):
                raise
            return "0-0"
        return next((g["last-delivered-id"].decode() for g in groups if g["name"] == GROUP.encode()), "0-0")

    # --- writing

    def publish(self, turn: int, messages: Sequence[DueMessage], by_id: Collection[int] = ()) -> Published:
        """See `OutputStreams.publish`."""
        keys = [self._fence, self._remembered]
        keys += sorted({self._names[due.message.stream] for due in messages})
        arguments: list[str | int] = [turn, self._maxlen]
        for due in messages:
            flat = [part for pair in due.message.fields.items() for part in pair]
            index = keys.index(self._names[due.message.stream]) + 1
            # The empty key is never recorded.
            older = str(due.message_id) if due.message_id in by_id else ""
            arguments += [due.key, older, index, len(flat), *flat]
            self._keys.setdefault(due.message_id, set()).add(due.key)
        with self._command("publish"):
            try:
                added, refused = _on_primary(self._client, _PUBLISH, keys=keys, args=arguments)
            except redis.ResponseError as error:
                code, _, latest = str(error).partition(" ")
                if code != "STALETURN":
                    raise
                raise StaleFencingToken(int(latest)) from error
        texts = [text.decode() for text in refused]
        return Published([_message_id(key) for key in added], dict(zip(texts[::2], texts[1::2], strict=True)))

    def remembered(self) -> set[int]:
        """See `OutputStreams.remembered`."""
        with self._command("remembered"):
            found = self._client.smembers(self._remembered)
            strange = [key for key in found if not _KEY.fullmatch(key)]
            if strange:
                self._client.srem(self._remembered, *strange)
            self._keys = {}
            for key in found.difference(strange):
                self._keys.setdefault(_message_id(key), set()).add(key.decode())
            return {_message_id(key) for key in found.difference(strange)}

    def forget(self, message_ids: Sequence[int]) -> None:
        """See `OutputStreams.forget`."""
        if message_ids:
            with self._command("forget"):
                keys = [key for each in message_ids for key in self._keys.get(each, ())]
                self._client.srem(self._remembered, *message_ids, *keys)
                for each in message_ids:
                    self._keys.pop(each, None)

    @contextmanager
    def _command(self, name: str) -> Iterator[None]:
        """Map silence, and replies that Redis cannot serve now, to `Unavailable`; other errors to `FinalAnswer`.

        No operation depends on a `FinalAnswer`, but the log must not suggest an outage. `name` is the command's name in
        `failpoints.EFFECTS`, without `redis.`.
        """
        try:
            with failpoints.around(f"redis.{name}"):
                yield
        except redis.RedisError as error:
            if isinstance(error, redis.ReadOnlyError):
                # The server was demoted: the next command and the next wait must connect to the new master.
                self._client.connection_pool.disconnect()
                self._waiter.connection_pool.disconnect(inuse_connections=False)
                self._reader.connection_pool.disconnect()
                self._patient_reader.connection_pool.disconnect()
            if refused := redis_access.refused_write(error, self._where):
                raise refused from error
            text = bounded(str(error)) or type(error).__name__
            if text.startswith("WRONGTYPE") and name in {"publish", "remembered", "forget"}:
                text = f"{self._remembered} is no set, which holds up all messages; DEL that key: {text}"
            if is_silence(error):
                raise Unavailable("redis", f"{self._where} does not serve: {text}") from error
            raise FinalAnswer("redis", f"{self._where} refuses to {name}: {text}") from error


def _message_id(key: bytes) -> int:
    return int(key.partition(b":")[0])


def _on_primary(client: Any, script: str, *, keys: Sequence[str], args: Sequence[str | int]) -> Any:
    """Run a script and return its answer. Raises `redis.RedisError`, also when the server is a replica.

    A replica may take writes, which it loses. HELLO follows the script on the same connection and in the same round
    trip, which also detects a demotion between the two. The write is then repeated elsewhere, and not twice where it
    was.
    """
    sha = redis_access.sha_of(script)
    for attempt in range(2):
        with client.pipeline(transaction=False) as pipe:
            pipe.evalsha(sha, len(keys), *keys, *args)
            pipe.execute_command("HELLO")
            answer, hello = pipe.execute(raise_on_error=False)
        redis_access.require_primary(hello)
        if attempt or not isinstance(answer, redis.exceptions.NoScriptError):
            break
        client.script_load(script)
    if isinstance(answer, Exception):
        raise answer
    return answer


def is_silence(error: redis.RedisError) -> bool:
    """Return whether an error says nothing about the command; see `SILENT_ERRORS` and `SILENT_REPLIES`."""
    text = re.sub(redis_access.IN_PIPELINE, "", str(error), flags=re.DOTALL)
    return isinstance(error, SILENT_ERRORS) or text.startswith(SILENT_REPLIES)


def _read_to_the_number(connection: Any) -> None:
    """Read the answers of a wait, of which only the last is a number.

    One error is allowed: the refusal to skip, by an ACL or a proxy. The answer of the blocking read then arrives and is
    dropped here. Raises any other error.
    """
    refused: redis.ResponseError | None = None
    answers = 0
    while True:
        try:
            answer = connection.read_response()
        except redis.ResponseError as error:
            if answers or refused is not None:
                raise
            refused = error
            continue
        if isinstance(answer, int):
            break
        answers += 1
    if refused is not None and answers < 2:
        raise refused
