"""pandas: read_json and to_sql into a staging table, then one upsert from there."""

import io
import sqlite3
import sys

import pandas as pd
import requests

database, url = sys.argv[1:]
frames = []
while url:
    answer = requests.get(url, timeout=60)
    answer.raise_for_status()
    frames.append(pd.read_json(io.StringIO(answer.text), convert_dates=False))
    url = answer.links.get("next", {}).get("url")
users = pd.concat(frames)
users["city"] = users["address"].map(lambda address: address["city"])
users["email"] = users["email"].str.strip().str.lower()
with sqlite3.connect(database) as db:
    db.execute("create table if not exists users (user_id integer primary key, name, email, city, updated_at)")
    users[["id", "name", "email", "city", "updated_at"]].to_sql("stage", db, if_exists="replace", index=False)
    db.execute(
        "insert into users select id, name, email, city, updated_at from stage where true "
        "on conflict (user_id) do update set name = excluded.name, email = excluded.email, city = excluded.city, "
        "updated_at = excluded.updated_at"
    )
    db.execute("drop table stage")
