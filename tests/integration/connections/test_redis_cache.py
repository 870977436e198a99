"""What is kept on a real Redis, what does it get to see, and who can read it?"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.keeping import Upstream, asked, cached
from support.redis_server import KEY, Intruder, cache_at, used
from toolguard.connections import Connection
from toolguard.connections.redis import KEYS_VARIABLE, RedisTokenCache

NEW_KEY = b"n" * 32
WITH_A_STRAY = base64.b64encode(NEW_KEY).decode().replace("=", "*=")
ALICE = asked(access_token="alices-secret-token")
CONNECTION = Connection("ya29.secret", "Bearer", ("read", "write"), 1_000_040.5)
NOWHERE = "redis://127.0.0.1:1/0"


def put(cache: RedisTokenCache, key: str = "key", ttl: float = 60.0) -> None:
    asyncio.run(used(cache, by=cache.put(key, CONNECTION, ttl)))


def get(cache: RedisTokenCache, key: str = "key") -> Connection | None:
    found: Connection | None = asyncio.run(used(cache, by=cache.get(key)))
    return found


def test_a_connection_comes_back_as_it_was(url: str) -> None:
    put(cache_at(url))

    assert get(cache_at(url)) == CONNECTION
    assert get(cache_at(url), "another key") is None


@pytest.mark.parametrize(
    "connection",
    [
        Connection("t"),
        Connection("opaque~token+/=", "DPoP", ("a b", ""), 0.0),
        Connection("x" * 10_000, scopes=("read",), expires_at=1),
    ],
)
def test_any_connection_comes_back_as_it_was(url: str, connection: Connection) -> None:
    cache = cache_at(url)

    async def there_and_back() -> Connection | None:
        await cache.put("key", connection, 60)
        return await cache.get("key")

    assert asyncio.run(used(cache, by=there_and_back())) == connection


def test_redis_forgets_it_when_its_time_is_over(url: str, inside: Intruder) -> None:
    put(cache_at(url), ttl=40.0)
    (name,) = inside.names()
    assert 38_000 < inside.milliseconds(name) <= 40_000

    inside.age(name)
    assert get(cache_at(url)) is None


def test_an_old_value_put_back_is_a_miss(url: str, inside: Intruder) -> None:
    now = [1_000.0]
    cache = cache_at(url, wall_clock=lambda: now[0])
    put(cache, ttl=40.0)
    (name,) = inside.names()
    old = inside.read(name)

    now[0] += 40.0
    inside.write(name, old)

    assert get(cache) is None


def test_what_is_dropped_is_gone(url: str, inside: Intruder) -> None:
    cache = cache_at(url)
    put(cache)
    asyncio.run(used(cache, by=cache.drop("key")))

    assert inside.names() == []


def test_redis_holds_no_user_no_token_and_nothing_that_can_be_guessed_from(
    url: str, inside: Intruder
) -> None:
    cache = cache_at(url)
    upstream = Upstream()
    connections = cached(upstream, cache=cache, namespace="vault")
    asyncio.run(used(cache, by=connections.fetch(ALICE)))

    (name,) = inside.names()
    value = inside.read(name)
    held = name + value
    for secret in (b"alice", b"google-calendar", b"token", b"Bearer", b"read", b"issuer"):
        assert secret not in held
    # A name is no digest that somebody without the key could compute for a user.
    assert name.startswith(b"toolguard:")
    assert len(name) == len("toolguard:") + 64


def test_the_same_connection_is_never_written_alike_twice(url: str, inside: Intruder) -> None:
    put(cache_at(url))
    first = inside.read(inside.names()[0])
    put(cache_at(url))

    assert inside.read(inside.names()[0]) != first


def test_each_entry_is_sealed_with_a_key_of_its_own(url: str, inside: Intruder) -> None:
    put(cache_at(url))
    (name,) = inside.names()
    value = inside.read(name)

    with pytest.raises(InvalidTag):
        AESGCM(KEY).decrypt(value[:12], value[12:], name)


def test_a_value_under_another_name_is_a_miss(url: str, inside: Intruder) -> None:
    cache = cache_at(url)
    put(cache, "alice")
    (alices,) = inside.names()
    put(cache, "mallory")
    (mallorys,) = set(inside.names()) - {alices}
    inside.write(mallorys, inside.read(alices))

    assert get(cache, "alice") == CONNECTION
    assert get(cache, "mallory") is None


def test_a_value_of_another_prefix_is_a_miss(url: str, inside: Intruder) -> None:
    put(cache_at(url, prefix="staging:"))
    put(cache_at(url, prefix="production:"))
    production, staging = inside.names()
    inside.write(production, inside.read(staging))

    assert get(cache_at(url, prefix="production:")) is None
    assert get(cache_at(url, prefix="staging:")) == CONNECTION


def test_a_value_that_was_changed_in_any_byte_is_a_miss(url: str, inside: Intruder) -> None:
    cache = cache_at(url)
    put(cache)
    (name,) = inside.names()
    value = inside.read(name)

    async def changed() -> list[Connection | None]:
        found = []
        for position in range(len(value)):
            broken = bytearray(value)
            broken[position] ^= 1
            inside.write(name, bytes(broken))
            found.append(await cache.get("key"))
        return found

    assert asyncio.run(used(cache, by=changed())) == [None] * len(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100))
def test_whatever_else_is_there_is_a_miss(url: str, inside: Intruder, garbage: bytes) -> None:
    put(cache_at(url))
    (name,) = inside.names()
    inside.write(name, garbage)

    assert get(cache_at(url)) is None


def test_something_that_is_no_string_is_a_miss_and_replaced(url: str, inside: Intruder) -> None:
    put(cache_at(url))
    (name,) = inside.names()
    inside.write_list(name)

    assert get(cache_at(url)) is None
    put(cache_at(url))
    assert get(cache_at(url)) == CONNECTION


def test_without_the_key_nothing_is_found(url: str) -> None:
    put(cache_at(url, KEY))

    assert get(cache_at(url, NEW_KEY)) is None


def test_the_first_key_writes_and_every_key_reads(url: str) -> None:
    put(cache_at(url, KEY))
    assert get(cache_at(url, NEW_KEY, KEY)) == CONNECTION

    put(cache_at(url, NEW_KEY, KEY))
    assert get(cache_at(url, NEW_KEY)) == CONNECTION
    assert get(cache_at(url, KEY, NEW_KEY)) == CONNECTION


ROTATION = [[KEY], [KEY, NEW_KEY], [NEW_KEY, KEY], [NEW_KEY]]


@pytest.mark.parametrize("step", range(3))
def test_a_key_is_changed_in_two_steps_that_lose_nothing(url: str, step: int) -> None:
    before, after = (cache_at(url, *ROTATION[n]) for n in (step, step + 1))

    # While some processes are a step ahead, each reads what the others write.
    put(before)
    assert get(after) == CONNECTION
    put(after)
    assert get(before) == CONNECTION


def test_what_is_written_with_one_key_leaves_no_older_value_of_another(
    url: str, inside: Intruder
) -> None:
    put(cache_at(url, KEY))
    put(cache_at(url, NEW_KEY, KEY))
    assert len(inside.names()) == 1

    put(cache_at(url, KEY))
    cache = cache_at(url, NEW_KEY, KEY)
    asyncio.run(used(cache, by=cache.drop("key")))
    assert inside.names() == []


def test_keys_come_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache_at(url, KEY))
    texts = [base64.b64encode(NEW_KEY).decode(), base64.urlsafe_b64encode(KEY).decode()]
    monkeypatch.setenv(KEYS_VARIABLE, f"{texts[0]} ,\n{texts[1]},")

    assert get(RedisTokenCache(url, timeout=5.0)) == CONNECTION
    assert repr(RedisTokenCache(url)) == "<RedisTokenCache: toolguard:*, keys: 2>"


@pytest.mark.parametrize("given_keys", [None, [], ()])
def test_a_cache_without_a_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, given_keys: list[bytes] | None
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, " , ")

    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        RedisTokenCache(NOWHERE, keys=given_keys)


@pytest.mark.parametrize(
    "key",
    [
        b"secret",
        b"",
        "secret",
        "s" * 32,
        "s\u00e9cret!",
        base64.b64encode(b"secret").decode(),
        WITH_A_STRAY,
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(key: str | bytes) -> None:
    with pytest.raises(ValueError, match="a key is 32 bytes") as caught:
        RedisTokenCache(NOWHERE, keys=[KEY, key])

    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("key", [KEY, base64.b64encode(KEY).decode()])
def test_a_key_outside_a_list_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=r"write keys=\[key\]"):
        RedisTokenCache(NOWHERE, keys=key)


@pytest.mark.parametrize(
    "bad",
    [
        "http://host",
        "host:6379",
        "redis://:pass/word@host:6379",
        "redis://host:port",
        "redis://host/?no_such_option=1",
    ],
)
def test_what_is_no_url_of_a_redis_is_refused_and_not_shown(bad: str) -> None:
    with pytest.raises(ValueError, match=r"write RedisTokenCache\(\"rediss://") as caught:
        RedisTokenCache(bad, keys=[KEY])

    assert caught.value.__context__ is None
    assert "pass/" not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_an_exchange_without_a_limit_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"write timeout=0\.25"):
        RedisTokenCache(NOWHERE, keys=[KEY], timeout=timeout)


def test_a_cache_shows_neither_its_url_nor_its_keys() -> None:
    cache = RedisTokenCache("redis://:secret@127.0.0.1:1/0", keys=[b"s" * 32])

    assert repr(cache) == "<RedisTokenCache: toolguard:*, keys: 1>"
