"""Datasets as folders of Parquet files: a manifest, and the rows of each table in buckets of users.

A user's bucket is told by its id alone, so that whoever writes which buckets, the files hold the same rows. They lie
beside the manifest, or where it says: on a server that speaks S3.
"""

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import duckdb
from pydantic import ValidationError

from mtf_engine import sealed
from mtf_engine.spec import Refusal, Spec

if TYPE_CHECKING:  # reading a log that lies here needs none
    from pyarrow.fs import FileSystem

SUFFIX = ".parquet"
MANIFEST, MODEL = "manifest.json", "prediction_model"
N_BUCKETS = 64
BUCKET = "(md5_number_upper(user_id) >> 58)::INT"
"""The bucket of a user, in SQL."""
S3, HERE = "s3://", "parquet"
PLACE = re.compile(rf"{HERE}|{S3}[a-z0-9][a-z0-9.-]+(/[\w.-]+)*/?", re.ASCII)
"""Where files may be asked to lie: in the workspace, or on a server; nothing that DuckDB would take for a pattern."""
REMEDY = "restore it from a copy or delete the dataset"


class Shard(Spec):
    """A file: the rows of one table and one bucket, in their order; `content_hash` is of them."""

    table: str
    bucket: int
    n_rows: int
    n_bytes: int
    content_hash: str

    @property
    def name(self) -> str:
        return name_of(self.table, self.bucket)


class Manifest(Spec):
    """What a folder holds. `place` is the URL of the files, empty where they lie beside the manifest."""

    format: Literal[1] = 1
    place: str = ""
    meta: str
    types: Mapping[str, Mapping[str, str]]
    """DuckDB's type of each column, by table: Parquet itself does not tell lists of one length from others."""
    shards: tuple[Shard, ...]

    @property
    def content_hash(self) -> str:
        return content_hash(self.shards)

    def count(self, table: str) -> int:
        """Returns the number of rows of a table."""
        return sum(shard.n_rows for shard in self.shards if shard.table == table)


def name_of(table: str, bucket: int) -> str:
    """Returns the name of the file with the rows of a table and a bucket."""
    return f"{table}-{bucket:02}{SUFFIX}"


def content_hash(shards: Iterable[Shard]) -> str:
    """Returns the SHA-256 of what the shards hold, by table and bucket, whoever wrote them."""
    lines = sorted(f"{shard.name}:{shard.content_hash}\n" for shard in shards)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Folder:
    """The folder of a dataset and its files, opened for reading."""

    def __init__(self, path: Path) -> None:
        """A Refusal where the manifest is missing or damaged."""
        self.path = path
        content = sealed.read(path / MANIFEST, REMEDY)
        try:
            self.manifest = Manifest.model_validate_json(content)
        except ValidationError:
            raise Refusal(f"{path.name}/{MANIFEST} is damaged: it is no manifest; {REMEDY}") from None

    @classmethod
    def at(cls, path: Path) -> Self | None:
        """Returns the folder at `path`; None where a dataset there is a file."""
        return cls(path) if path.suffix == SUFFIX else None

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Makes the tables views of a database `dataset` of the connection."""
        place = self.manifest.place
        if place:
            con.register_filesystem(_for_duckdb(place))
        else:
            self._check_sizes()
        con.execute("ATTACH ':memory:' AS dataset")
        for table in self.manifest.types:
            con.execute(f"CREATE VIEW dataset.{table} AS {self.rows(table)}")
        con.execute(
            "CREATE TABLE dataset.meta AS SELECT ? AS meta, ? AS content_hash",
            [self.manifest.meta, self.manifest.content_hash],
        )

    def rows(self, table: str, buckets: Sequence[int] | None = None) -> str:
        """Returns the SQL of the rows of a table, one bucket after the other."""
        wanted = range(N_BUCKETS) if buckets is None else buckets
        files = [
            f"'{self._where(shard)}'"
            for shard in self.manifest.shards
            if shard.table == table and shard.bucket in wanted
        ]
        columns = ", ".join(
            f"{name}::{type_} AS {name}"
            for name, type_ in ((_quoted(name), type_) for name, type_ in self.manifest.types[table].items())
        )
        if not files:
            nothing = ", ".join(
                f"NULL::{type_} AS {_quoted(name)}" for name, type_ in self.manifest.types[table].items()
            )
            return f"SELECT {nothing} WHERE false"
        return f"SELECT {columns} FROM read_parquet([{', '.join(files)}])"

    def _where(self, shard: Shard) -> str:
        place = self.manifest.place or glob.escape(str(self.path))
        return f"{place}/{shard.name}".replace("'", "''")

    def _check_sizes(self) -> None:
        for shard in self.manifest.shards:
            try:
                found = (self.path / shard.name).stat().st_size
            except FileNotFoundError:
                raise Refusal(f"{self.path.name}/{shard.name} is missing; {REMEDY}") from None
            if found != shard.n_bytes:
                told = f"is damaged: it has {found:,} bytes and was written with {shard.n_bytes:,}"
                raise Refusal(f"{self.path.name}/{shard.name} {told}; {REMEDY}")

    def prediction_model(self) -> bytes:
        """Returns the file of the prediction model as it is kept; empty where it is missing."""
        path = self.path / MODEL
        return path.read_bytes() if path.exists() else b""


def _quoted(name: str) -> str:
    return f'"{name.replace(chr(34), chr(34) * 2)}"'


def filesystem(place: str) -> "FileSystem":
    """Returns the file system of an `s3://` place, as the environment's AWS_* say."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    settings: dict[str, Any] = {"endpoint_override": endpoint} if endpoint else {}
    return S3FileSystem(
        region=region or "us-east-1",
        connect_timeout=10,
        request_timeout=60,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3),
        **settings,
    )


def check_place(to: str) -> None:
    """Refuses what is no place for the files of a dataset."""
    if not PLACE.fullmatch(to):
        raise Refusal(
            f"{to} is no place for the files of a dataset; write {HERE}, or {S3}BUCKET/PREFIX for a server"
        )


def check_writable(place: str) -> None:
    """Refuses a place on a server where no file can be written, or none removed."""
    name = f"{without_scheme(place)}/begun"
    try:
        files = filesystem(place)
        with files.open_output_stream(name):
            pass
    except OSError as error:
        raise unreachable(place, error) from None
    try:
        files.delete_file(name)
    except OSError as error:
        why = str(error).splitlines()[0]
        raise Refusal(
            f"{place} takes files and lets none be removed, as a deleted log's are; allow it: {why}"
        ) from None


def without_scheme(place: str) -> str:
    """Returns the bucket and prefix of an `s3://` place, as its file system takes them."""
    return place.removeprefix(S3)


def unreachable(place: str, error: Exception) -> Refusal:
    """Returns what is told where a place on a server cannot be read or written."""
    problem = str(error).splitlines()[0]
    return Refusal(
        f"{place} cannot be reached; look at AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: {problem}"
    )


def _for_duckdb(place: str) -> Any:
    """Returns the file system of a place as DuckDB takes one for `s3://`; its own extension would be a download.

    The package of the wrapper comes with torch.
    """
    from fsspec.implementations.arrow import ArrowFSWrapper

    return ArrowFSWrapper(filesystem(place))


def remove(place: str) -> None:
    """Removes the files of a place on a server; a Refusal says what is left where that cannot be."""
    try:
        filesystem(place).delete_dir(without_scheme(place))
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreachable(place, error) from None
