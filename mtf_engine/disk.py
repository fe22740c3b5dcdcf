"""What is written appears whole or not at all; what the machine has no room for is told in a sentence."""

import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mtf_engine.spec import Refusal

FULL = "the disk is full", "free some space there and try again"
READ_ONLY = "nothing can be written", "name another place, or make it one that can be written to"
FAILS = (
    "the disk cannot be read or written",
    "look at its health (`dmesg`), or move the folder to another disk",
)
NO_MEMORY = "the memory does not suffice", "ask for less at once, or free some memory and try again"
KERNEL = {
    errno.ENOSPC: FULL,
    errno.EIO: FAILS,
    errno.EDQUOT: ("the disk quota is used up", FULL[1]),
    errno.EFBIG: ("no file may grow further", "raise the limit of its size (`ulimit -f`) and try again"),
    errno.EROFS: READ_ONLY,
    errno.EACCES: ("permission is missing", "ask for it, or name another place"),
    errno.ENAMETOOLONG: ("the name is longer than the disk allows", "name a shorter one"),
    errno.ENOMEM: NO_MEMORY,
}
"""What the kernel says no with: in our words, and what to do."""
REPAIR = "`doctor --repair` makes it anew from its backups and the folders of runs, or name another folder"
SQLITE = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR: ("the disk of the registry is full, or damaged", FULL[1]),
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: ("the registry cannot be opened", "see that its file and folder are whole"),
    sqlite3.SQLITE_NOTADB: ("registry.sqlite is no registry", REPAIR),
    sqlite3.SQLITE_CORRUPT: ("registry.sqlite is damaged", REPAIR),
    sqlite3.SQLITE_BUSY: ("another process has held the registry for a minute", "wait for it to end"),
}
LIBRARIES = {os.strerror(code): told for code, told in KERNEL.items()} | {
    "max_temp_directory_size": FULL,  # DuckDB sorts on disk in as much as was free when it began
    "Out of Memory Error": NO_MEMORY,
}
"""What libraries that keep no error number write into their messages."""


_guards: list[Callable[[], None]] = []
_mark = ""


@contextmanager
def guarded(check: Callable[[], None], mark: str = "") -> Iterator[None]:
    """Has `check` asked, until the end of the block, before this process adds to a file or gives it its name.

    It does not return where the process may not. Temp files get the `mark`, where others may write the same file.
    """
    global _mark  # noqa: PLW0603 (a process is one worker)
    before, _mark = _mark, mark or _mark
    _guards.append(check)
    try:
        yield
    finally:
        _guards.remove(check)
        _mark = before


def check_guards() -> None:
    """Returns only where this process may still write: asked once a file is open, and before it is changed."""
    for check in _guards:
        check()


class NoRoom(OSError):
    """A disk, or a quota of it, without room for `filename`; `told` says what that needs, and what is free."""

    def __init__(self, error_no: int, path: Path, told: str) -> None:
        super().__init__(error_no, os.strerror(error_no), str(path))
        self.told = told


def workspace_path(path: Path | str | None = None) -> Path:
    """Returns the folder worked in: `path`, else the environment's MTF_WORKSPACE, else `data`."""
    return Path(path or os.environ.get("MTF_WORKSPACE") or "data").absolute()


def keep_private(folder: Path) -> None:
    """Makes what this process writes from now on as private as `folder` is; one to come is for its owner alone.

    What the umask keeps from others stays kept from them.
    """
    try:
        rights = folder.stat().st_mode
    except OSError:  # it is to come, or closed, which whoever opens it is told
        rights = 0o700
    os.umask(os.umask(0o077) | ~rights & 0o077)


TEMPS = ".*.tmp*"
"""What the names of files and folders are like that have no name yet."""


def temp_of(path: Path) -> Path:
    """Returns where `write_atomically` writes what is to be `path`; who is stopped leaves it."""
    return path.with_name(f".{path.name}.tmp{_mark}")


def write_atomically(path: Path, content: bytes, temp: Path | None = None, mode: int | None = None) -> None:
    """Writes `content` to `path` so that a reader, a crash or a full disk leaves the old file or the new one.

    Who may read it is for `mode` to say, before anything is in it, else for the process's umask.
    """
    temp = temp or temp_of(path)
    try:
        with room_for(path, temp, n_bytes=len(content)):
            with temp.open("wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(content)
            appear(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def appear(temp: Path, path: Path) -> None:
    """Gives a file, or a folder with all in it, its name, in place of an earlier file; a loss of power undoes neither.

    What it holds is on the disk before its name is, and its name when this returns.
    """
    for one in (temp, *temp.rglob("*")):
        settle(one)
    check_guards()
    temp.replace(path)
    settle(path.parent)


def settle(path: Path) -> None:
    """Has what a file holds, or the names in a folder, on the disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def room_for(path: Path, *temps: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Raises `NoRoom` where a disk is full while `path`, of `n_bytes` if they are known, is written as `temps`."""
    try:
        yield
    except NoRoom:
        raise
    except Exception as error:
        check_guards()  # what failed may be of another process by now, and whoever cleans up must not
        if not is_full(error):
            raise
        held = sum(
            file.stat().st_size for temp in temps for file in (temp, *temp.rglob("*")) if file.is_file()
        )
        free = f"{_free(path.parent) + held:,} bytes that are free"
        needs = f"needs {n_bytes:,} bytes, more than the {free}" if n_bytes else f"needs more than the {free}"
        code = getattr(error, "errno", None) or errno.ENOSPC
        raise NoRoom(code, path, f"{path} {needs}") from error


def fill_atomically(path: Path, temp: Path, fill: Callable[[Path], None]) -> None:
    """Makes the folder `path` with what `fill` writes to the folder it is given; all of it or nothing.

    It is `temp` until it is whole, and held by whoever fills it: another process waits, and finds it made.
    """
    while not path.exists():
        temp.mkdir(exist_ok=True)
        with _held(temp, fcntl.LOCK_EX) as is_held:
            if is_held and not path.exists():
                _empty(temp)
                try:
                    with room_for(path, temp):
                        fill(temp)
                        appear(temp, path)
                except BaseException:
                    shutil.rmtree(temp)
                    raise
            elif is_held:  # it was made between our look and our folder
                temp.rmdir()


def remove_folder(path: Path) -> None:
    """Removes a folder and all that is in it, unless a live process fills it."""
    with _held(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_held:
        if is_held:
            shutil.rmtree(path)


@contextmanager
def _held(folder: Path, how: int) -> Iterator[bool]:
    """Yields whether this process now holds `folder`; not where another does, or has moved it meanwhile."""
    descriptor = _hold(folder, how)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _hold(folder: Path, how: int) -> int | None:
    """Returns a descriptor that holds `folder` until it is closed, by its process's end at the latest; or None."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, how)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def refusals(place: Path) -> Iterator[None]:
    """Makes a Refusal of what the disk or the memory has no room for, while `place` is worked in."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        for cause in _causes(error):
            if told := _told(cause):
                where = cause.filename if isinstance(cause, OSError) and cause.filename else place
                if isinstance(cause, NoRoom):
                    where = cause.told
                elif told in (FULL, SQLITE[sqlite3.SQLITE_IOERR]):
                    where = f"{where}, where {_free(Path(where)):,} bytes are free now"
                raise Refusal(f"{told[0]} ({where}); {told[1]}") from error
        raise


def is_full(error: BaseException) -> bool:
    """Returns whether an error says that a disk, or a quota of it, is full."""
    told = _told(error)
    return told in (FULL, KERNEL[errno.EDQUOT], SQLITE[sqlite3.SQLITE_IOERR])


def _free(place: Path) -> int:
    """Returns the bytes that are free where `place` is, or is to be."""
    return shutil.disk_usage(next(one for one in (place, *place.absolute().parents) if one.exists())).free


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException) -> tuple[str, str] | None:
    """Returns what `error` says in our words, and what to do; None where it says something else."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, OSError) and error.errno in KERNEL:
        return KERNEL[error.errno]
    if isinstance(error, sqlite3.Error):
        return SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)  # of a code its kind
    return next((told for text, told in LIBRARIES.items() if text in str(error)), None)
