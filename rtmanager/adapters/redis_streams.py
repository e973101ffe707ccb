"""Redis Streams: two to read as one consumer group, four to write exactly once.

*Reading.* Only the instance whose turn it is reads (see `adapters/postgres/inbox.py`), so one consumer name
serves all instances, and every entry that was given out and not acknowledged is an orphan: it is taken first.

*Writing.* A script adds a message and remembers its id in one step; while the id is remembered, the message is
not added again. The script also refuses an older turn than it has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rtmanager import failpoints
from rtmanager.adapters import redis_access
from rtmanager.adapters.redis_access import OUTBOX_PREFIX, Tls
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.jobs import Batch, Entry, EntryId
from rtmanager.domain.messages import Stream
from rtmanager.workers.ports import DueMessage, Published, StaleTurn

GROUP = "rtmanager"
CONSUMER = "ingest"
INPUTS = (Stream.START_JOBS, Stream.STOP_JOBS)

#: The part of the time for which PostgreSQL may be silent that one command may take here, and one connection to be
#: made. Twice this, since each command is tried twice, has to stay below the whole: ingest and relay ask Redis inside
#: a transaction, and PostgreSQL would be blamed for the wait.
COMMAND_PART = 1 / 4
#: The longest time that one blocking read waits, in parts of the same.
WAIT_PART = 5 / 8

#: KEYS: fence, remembered ids, then the streams. ARGV: turn, maximal length, then for each message its id, the
#: index of its stream in KEYS, the number of its fields and values, and these.
_PUBLISH = """
local latest = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) < latest then return {err = 'STALETURN ' .. string.format('%d', latest)} end
redis.call('SET', KEYS[1], ARGV[1])
-- What a script has done stays done when a later command fails: a right that was taken must not cost a second message.
redis.call('SREM', KEYS[2], '')
local added, refused, i = {}, {}, 3
while i <= #ARGV do
  local id, key, count = ARGV[i], KEYS[tonumber(ARGV[i + 1])], tonumber(ARGV[i + 2])
  if not refused[key] then
    if redis.call('SISMEMBER', KEYS[2], id) == 0 then
      local entry = {}
      for j = 1, count do entry[j] = ARGV[i + 2 + j] end
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
  i = i + 3 + count
end
local why = {}
for key, err in pairs(refused) do why[#why + 1] = key; why[#why + 1] = err end
return {added, why}
"""


class RedisStreams:
    """One Redis, both directions. Each worker uses its half from one thread; the others are for any thread."""

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
        # One more try, on a fresh connection, when a pooled one turns out to be dead; the workers do the rest.
        # `Any`: redis-py annotates replies as unions of everything, differently in each release.
        self._client: Any = redis.Redis(**common, socket_timeout=command_s, retry=Retry(NoBackoff(), 1))
        # A blocking read is answered late on purpose. It has a connection of its own and no second try, since
        # that would block once more.
        self._waiter: Any = redis.Redis(
            **common, socket_timeout=self._longest_wait_s + command_s, retry=Retry(NoBackoff(), 0)
        )
        self._publish = self._client.register_script(_PUBLISH)
        self._waiting_client: int | None = None
        self._fence = ""
        self._remembered = ""

    def use_deployment(self, deployment_id: str) -> None:
        """Say which database the messages come from: several may use one Redis, each with ids of its own."""
        self._fence = f"{OUTBOX_PREFIX}{deployment_id}:turn"
        self._remembered = f"{OUTBOX_PREFIX}{deployment_id}:published"

    def close(self) -> None:
        """Close every connection."""
        self._client.close()
        self._waiter.close()

    def ping(self) -> str:
        """The server's version. Raises `Unavailable`, or `RedisUnfit` when it answers and cannot be used."""
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

    def require(self) -> None:
        """Raises `Unavailable` unless it serves: not while it loads its data, or a script does not end.

        It takes less than `ping`, and Redis would refuse PING when a snapshot has failed: calls are done then.
        """
        with self._command("ping"):
            self._client.exists(self._names[Stream.JOB_RESULTS])

    # --- reading

    def wait(self, timeout_s: float) -> bool:
        """Block until the group can be given a new entry on either stream, or the time is over.

        `XREAD` and not `XREADGROUP`: waiting needs no turn and takes nothing.
        """
        timeout_ms = max(1, round(min(timeout_s, self._longest_wait_s) * 1000))
        with self._command("wait"), self._waiter.client() as connection:
            positions = {self._names[stream]: self._last_given(stream) for stream in INPUTS}
            self._waiting_client = int(connection.client_id())
            try:
                return bool(connection.xread(positions, count=1, block=timeout_ms))
            finally:
                self._waiting_client = None

    def interrupt(self) -> None:
        """End a `wait` on another thread now. One that is about to begin is not seen: ask again."""
        waiting = self._waiting_client
        if waiting is not None:
            # A user who may not do that has to wait: no longer than `WAIT_PART`.
            with self._command("interrupt"), suppress(redis.exceptions.NoPermissionError):
                self._client.client_unblock(waiting)

    def read(self, limit: int) -> Sequence[Batch]:
        """See `InputStreams.read`."""
        with self._command("read"):
            try:
                return self._read(limit)
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            # The first read of all; or Redis came back empty, or somebody deleted the group.
            self._make_groups()
            return self._read(limit)

    def give_again(self, after: Mapping[Stream, EntryId]) -> Mapping[Stream, EntryId]:
        """See `InputStreams.give_again`."""
        with self._command("give_again"):
            given = {stream: EntryId.parse(self._last_given(stream)) for stream in after}
            beyond = {stream: last for stream, last in given.items() if last > after[stream]}
            for stream in beyond:
                self._client.xgroup_setid(self._names[stream], GROUP, str(after[stream]))
        return beyond

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """See `InputStreams.acknowledge`."""
        with self._command("acknowledge"), self._client.pipeline(transaction=False) as pipe:
            for stream in INPUTS:
                ids = [str(entry.entry_id) for entry in entries if entry.stream is stream]
                if ids:
                    pipe.xack(self._names[stream], GROUP, *ids)
            pipe.execute()

    def _make_groups(self) -> None:
        """Create the consumer groups that are missing, from the beginning of their streams.

        Jobs that came before the first start are done; entries of a stream whose group was deleted are read
        again, and found to be known already.
        """
        for stream in INPUTS:
            try:
                self._client.xgroup_create(self._names[stream], GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def _last_given(self, stream: Stream) -> str:
        try:
            groups = self._client.xinfo_groups(self._names[stream])
        except redis.ResponseError as error:
            if "no such key" not in str(error):
                raise
            return "0-0"
        return next((g["last-delivered-id"].decode() for g in groups if g["name"] == GROUP.encode()), "0-0")

    def _read(self, limit: int) -> list[Batch]:
        while True:
            answers = self._take(limit)
            batches = []
            for stream, (cursor, orphans, *_) in zip(INPUTS, answers[:-1], strict=True):
                fresh = answers[-1].get(self._names[stream], [])
                # Orphans that are not shown yet stand before anything new, which then is an orphan next time.
                left = cursor != b"0-0"
                rows = orphans if left else orphans + fresh
                entries = [_entry(stream, entry_id, fields) for entry_id, fields in rows]
                batches.append(Batch(entries, drained=not left and len(fresh) < limit))
            if all(batch.drained or batch.entries for batch in batches):
                return batches  # else: only deleted entries were looked at; look further

    def _take(self, limit: int) -> list[Any]:
        """Everything in one step: what was given and not acknowledged of each stream, then what is new of both.

        Reading changes what Redis gives next. When an answer is lost and the question sent again, or a frozen
        instance wakes up and asks, the step as a whole shows what was given before; its parts would not.
        """
        with self._client.pipeline(transaction=True) as pipe:
            for stream in INPUTS:
                pipe.xautoclaim(self._names[stream], GROUP, CONSUMER, min_idle_time=0, start_id="0-0", count=limit)
            pipe.xreadgroup(GROUP, CONSUMER, {self._names[stream]: ">" for stream in INPUTS}, count=limit)
            # Errors as answers: raised by the pipeline they would begin with "Command # 1".
            answers: list[Any] = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        answers[-1] = {name.decode(): rows for name, rows in answers[-1]}
        return answers

    # --- writing

    def publish(self, turn: int, messages: Sequence[DueMessage]) -> Published:
        """See `OutputStreams.publish`."""
        keys = [self._fence, self._remembered]
        keys += sorted({self._names[due.message.stream] for due in messages})
        arguments: list[str | int] = [turn, self._maxlen]
        for due in messages:
            flat = [part for pair in due.message.fields.items() for part in pair]
            index = keys.index(self._names[due.message.stream]) + 1
            arguments += [due.message_id, index, len(flat), *flat]
        with self._command("publish"):
            try:
                added, refused = self._publish(keys=keys, args=arguments)
            except redis.ResponseError as error:
                code, _, latest = str(error).partition(" ")
                if code != "STALETURN":
                    raise
                raise StaleTurn(int(latest)) from error
        texts = [text.decode() for text in refused]
        return Published([int(text) for text in added], dict(zip(texts[::2], texts[1::2], strict=True)))

    def remembered(self) -> set[int]:
        """See `OutputStreams.remembered`."""
        with self._command("remembered"):
            return {int(text) for text in self._client.smembers(self._remembered)}

    def forget(self, message_ids: Sequence[int]) -> None:
        """See `OutputStreams.forget`."""
        if message_ids:
            with self._command("forget"):
                self._client.srem(self._remembered, *message_ids)

    @contextmanager
    def _command(self, name: str) -> Iterator[None]:
        """Whatever Redis has against a command, a person mends it there, and then trying again helps.

        `name` is what is asked for, as `failpoints.EFFECTS` has it behind `redis.`.
        """
        try:
            with failpoints.around(f"redis.{name}"):
                yield
        except redis.ReadOnlyError as error:
            # The server was demoted: the next command, and the next wait, have to find the new master.
            self._client.connection_pool.disconnect()
            self._waiter.connection_pool.disconnect(inuse_connections=False)
            raise Unavailable("redis", f"{self._where} is a replica now: {error}") from error
        except redis.RedisError as error:
            text = str(error) or type(error).__name__
            raise Unavailable("redis", f"{self._where} does not serve: {text}") from error


def _entry(stream: Stream, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    texts = {_text(name): _text(value) for name, value in fields.items()}
    return Entry(stream, EntryId.parse(entry_id.decode()), texts)


def _text(raw: bytes) -> str:
    """UTF-8 with everything else escaped; a NUL too, which PostgreSQL cannot store."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
