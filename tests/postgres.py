"""A PostgreSQL server of the system's packages, started for the tests that ask for one."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import sqlalchemy as sa

PLACES = "/usr/lib/postgresql/*/bin"
"""Where Debian keeps what PATH does not name."""
USER = "postgres"


def programs() -> Path | None:
    """Returns the folder of the server's programs, the newest version's; None where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    folders = sorted(Path("/").glob(PLACES[1:]), key=lambda folder: int(folder.parent.name))
    return folders[-1] if folders and (folders[-1] / "initdb").exists() else None


def new_database(server: str) -> str:
    """Returns the URL of an empty schema of the server's database, which was just made."""
    name = f"mtf_{secrets.token_hex(4)}"
    engine = sa.create_engine(server, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(name))
    url = sa.make_url(server).update_query_dict({"options": f"-csearch_path={name}"})
    return url.render_as_string(hide_password=False)


@contextmanager
def served() -> Iterator[str]:
    """Yields the URL of a server's maintenance database on loopback; everything is gone afterwards.

    PostgreSQL does not run as root: there it is run as the user that its packages make.
    """
    there = programs()
    assert there is not None
    folder = Path(mkdtemp(prefix="mtf-postgres-"))
    owner = {"user": USER} if os.geteuid() == 0 else {}
    if owner:
        os.chown(folder, pwd.getpwnam(USER).pw_uid, -1)

    def run(program: str, *arguments: str) -> None:
        command = [there / program, "--pgdata", folder / "data", *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **owner)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        run("initdb", "--username", USER, "--auth", "trust", "--no-sync", "--encoding", "UTF8")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        run("pg_ctl", "--wait", "--options", options, "--log", str(folder / "log"), "start")
        try:
            yield f"postgresql+psycopg://{USER}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "--wait", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
