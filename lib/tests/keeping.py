"""Something written to a server of each kind, and looked for again: what must outlive a kill."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import urlsplit

import greenstalk
import nats
import pika
import psycopg
import pymysql
import redis

from imqueue.servers import _private


def remember(server: _private.Private) -> None:
    """Write something that `recalls` finds again."""
    match server.kind:
        case "redis":
            with contextlib.closing(redis.Redis.from_url(server.url)) as client:
                client.set("beans", 7)
        case "postgres":
            with psycopg.connect(server.url) as connection:
                connection.execute("drop table if exists beans")
                connection.execute("create table beans as select 7 as n")
        case "mysql":
            with mysql(server) as connection, connection.cursor() as cursor:
                cursor.execute("drop table if exists beans")
                cursor.execute("create table beans as select 7 as n")
                connection.commit()
        case "rabbitmq":
            with pika.BlockingConnection(pika.URLParameters(server.url)) as link:
                channel = link.channel()
                channel.confirm_delivery()
                channel.queue_declare("beans", durable=True)
                # Until another change to its tables the broker may forget a queue (rabbitmq.py tells more).
                channel.queue_bind("beans", "amq.direct", "beans")
                channel.queue_purge("beans")
                channel.basic_publish("", "beans", b"7", pika.BasicProperties(delivery_mode=2))
        case "nats":
            asyncio.run(_remember_in_jetstream(server.url))
        case "beanstalkd":
            with greenstalk.Client(("127.0.0.1", server.port), use="beans") as tube:
                tube.put("7")


def recalls(server: _private.Private) -> bool:
    match server.kind:
        case "redis":
            with contextlib.closing(redis.Redis.from_url(server.url)) as client:
                return client.get("beans") == b"7"
        case "postgres":
            with psycopg.connect(server.url) as connection:
                return connection.execute("select n from beans").fetchone() == (7,)
        case "mysql":
            with mysql(server) as connection, connection.cursor() as cursor:
                cursor.execute("select n from beans")
                return bool(cursor.fetchone() == (7,))
        case "rabbitmq":
            with pika.BlockingConnection(pika.URLParameters(server.url)) as link:
                return bool(link.channel().basic_get("beans", auto_ack=True)[2] == b"7")
        case "nats":
            return asyncio.run(_recall_from_jetstream(server.url)) == b"7"
        case "beanstalkd":
            with greenstalk.Client(("127.0.0.1", server.port), watch="beans") as tube:
                return bool(tube.reserve(timeout=0).body == "7")
    return True  # prometheus: what it knows is kept in the trials' folders


async def _remember_in_jetstream(url: str) -> None:
    async with await nats.connect(url, allow_reconnect=False) as link:
        stream = link.jetstream()
        await stream.add_stream(name="beans", subjects=["beans"])
        await stream.publish("beans", b"7")


async def _recall_from_jetstream(url: str) -> bytes | None:
    async with await nats.connect(url, allow_reconnect=False) as link:
        message = await link.jetstream().get_last_msg("beans", "beans")
        return message.data


def mysql(server: _private.Private) -> Any:
    url = urlsplit(server.url)
    return pymysql.connect(
        host=url.hostname, port=url.port or 0, user=url.username, password=url.password or "", database=url.path[1:]
    )
