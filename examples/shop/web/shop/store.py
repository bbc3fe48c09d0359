"""What the shop remembers: orders in PostgreSQL, visits in Redis."""

import json
import os
from contextlib import closing
from pathlib import Path

MIGRATIONS = [
    "CREATE TABLE product (id integer PRIMARY KEY, name text NOT NULL)",
    "INSERT INTO product VALUES (1, 'lamp'), (2, 'chair'), (3, 'teapot')",
    "CREATE TABLE ordered (id serial PRIMARY KEY, product integer NOT NULL REFERENCES product, "
    "at timestamptz NOT NULL DEFAULT now())",
]


def database():
    import psycopg2

    password = Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip()
    return closing(psycopg2.connect(
        host=os.environ["DATABASE_HOST"], dbname="shop", user="shop", password=password, connect_timeout=5,
    ))


def cache():
    import redis

    return redis.Redis(host=os.environ["CACHE_HOST"], socket_timeout=5)


def migrate():
    """Applies what has not been applied yet, all or nothing."""
    with database() as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS migration (done integer NOT NULL)")
        cursor.execute("SELECT count(*) FROM migration")
        done = cursor.fetchone()[0]
        for number, statement in enumerate(MIGRATIONS[done:], start=done + 1):
            cursor.execute(statement)
            cursor.execute("INSERT INTO migration VALUES (%s)", (number,))


def products():
    return [name for (name,) in query("SELECT name FROM product ORDER BY id")]


def orders():
    return query("SELECT count(*) FROM ordered")[0][0]


def order(product):
    return query("INSERT INTO ordered (product) VALUES (%s) RETURNING id", (product,))[0][0]


def count_visit():
    return cache().incr("visits")


def check():
    cache().ping()
    query("SELECT 1")


def parse_order(body):
    """The product that `{"product": number}` orders."""
    value = json.loads(body)
    product = value.get("product") if isinstance(value, dict) else None
    if not isinstance(product, int) or product < 1:
        raise ValueError("an order is {\"product\": number}")
    return product


def query(statement, values=()):
    with database() as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()
