# SPDX-License-Identifier: Apache-2.0
"""psql and redis-cli with real servers behind the redirects, which tell the address they were reached at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clients import servers
from clients.policies import FAMILIES, POSTGRES, REDIS, Family
from clients.stage import Stage, program


@pytest.fixture(scope="module")
def postgres(stage: Stage) -> Iterator[None]:
    with servers.postgres(stage):
        yield


@pytest.fixture(scope="module")
def redis(stage: Stage) -> Iterator[None]:
    with servers.redis(stage):
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_psql_asks_the_server_behind(stage: Stage, postgres: None, family: Family) -> None:
    query = "select host(inet_server_addr()), inet_server_port(), sum(n) from generate_series(1, 100000) n"
    psql = [program("postgresql-client", "psql"), "-X", "-A", "-t", "-U", "postgres", "-h", family.asked]
    text = stage.run([*psql, "-c", query, "-c", r"\conninfo"], PGCONNECT_TIMEOUT="60")
    answer, _, info = text.partition("\n")
    assert answer == f"{family.actual}|{POSTGRES.actual}|5000050000"
    assert family.asked in info


@pytest.mark.parametrize("family", FAMILIES)
def test_redis_cli_asks_the_server_behind(stage: Stage, redis: None, family: Family) -> None:
    cli = [program("redis-tools", "redis-cli"), "-h", family.asked, "-p", str(REDIS.asked)]
    assert stage.run([*cli, "incr", family.table or "4"]) == "1\n"
    host = f"[{family.actual}]" if family.table else family.actual
    assert f" laddr={host}:{REDIS.actual} " in stage.run([*cli, "client", "info"])
