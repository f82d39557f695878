"""The script that people write first: requests, json, executemany."""

import sqlite3
import sys

import requests

database, *urls = sys.argv[1:]
with sqlite3.connect(database) as db:
    db.execute("create table if not exists users (user_id integer primary key, name, email, city, updated_at)")
    for first in urls:
        url = first
        while url:
            answer = requests.get(url, timeout=60)
            answer.raise_for_status()
            rows = [
                (
                    user["id"],
                    user["name"].strip(),
                    user["email"].strip().lower(),
                    user["address"]["city"],
                    user["updated_at"],
                )
                for user in answer.json()
            ]
            db.executemany(
                "insert into users values (?, ?, ?, ?, ?) on conflict (user_id) do update set name = excluded.name, "
                "email = excluded.email, city = excluded.city, updated_at = excluded.updated_at",
                rows,
            )
            url = answer.links.get("next", {}).get("url")
