"""Luigi's own way: a file of records, and luigi.contrib.sqla.CopyToTable, which appends rows, with a marker."""

import json
import sys

import luigi
import requests
from luigi.contrib import sqla
from sqlalchemy import BigInteger, Text


class Extract(luigi.Task):
    url = luigi.Parameter()
    path = luigi.Parameter()

    def output(self):
        return luigi.LocalTarget(self.path)

    def run(self):
        url = self.url
        with self.output().open("w") as file:
            while url:
                answer = requests.get(url, timeout=60)
                answer.raise_for_status()
                file.writelines(json.dumps(user) + "\n" for user in answer.json())
                url = answer.links.get("next", {}).get("url")


class Load(sqla.CopyToTable):
    url = luigi.Parameter()
    path = luigi.Parameter()
    connection_string = luigi.Parameter()
    table = "users"
    columns = (
        (["user_id", BigInteger()], {"primary_key": True}),
        (["name", Text()], {}),
        (["email", Text()], {}),
        (["city", Text()], {}),
        (["updated_at", Text()], {}),
    )

    def requires(self):
        return Extract(url=self.url, path=self.path)

    def rows(self):
        with self.input().open() as file:
            for user in map(json.loads, file):
                yield user["id"], user["name"], user["email"].lower(), user["address"]["city"], user["updated_at"]


database, url = sys.argv[1:]
task = Load(url=url, path=f"{database}.jsonl", connection_string=f"sqlite:///{database}")
sys.exit(not luigi.build([task], local_scheduler=True, log_level="WARNING"))
