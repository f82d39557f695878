"""Declare the section `[pipeline]`: where days and tables are stored, and what processes them."""

import luigi

from wholeday.config.parameters import Variable, bounded
from wholeday.config.section import Section


class Pipeline(Section):
    """The section `[pipeline]`."""

    section = "pipeline"

    data_dir = luigi.Parameter(default="data", description="folder for raw and clean files, or s3://…")
    database = luigi.Parameter(default="sqlite:///data/warehouse.db", description="SQLAlchemy URL of the warehouse")
    part_records = bounded(int, 1, 10**7, default=16_000, description="records per part; larger parts need more memory")
    engine = luigi.ChoiceParameter(
        choices=["local", "spark"], default="local", description="transforms the parts of a day"
    )
    spark_master = luigi.Parameter(
        default="local[*]", description="master URL for engine = spark, such as spark://host:7077"
    )
    engine_workers = bounded(int, 0, 1000, default=0, description="processes of the local engine; 0: one per core")
    webhook = Variable(default="", description="environment variable that holds the URL for failure alerts")
    log_format = luigi.ChoiceParameter(choices=["text", "json"], default="text", description="format of log lines")
    file_mode = luigi.ChoiceParameter(
        choices=["private", "umask"],
        default="private",
        description="access to new files and folders: this user only (0600, 0700), or by the umask",
    )

    @property
    def is_private(self) -> bool:
        """Whether only this user may read new files and folders."""
        return bool(self.file_mode == "private")
