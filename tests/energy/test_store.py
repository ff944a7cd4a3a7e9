"""Durable totals in real files: what was saved comes back whole or not at all, and nothing else is ever believed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.other_user import NOBODY, needs_root, public_directory, run_as_nobody

from carbon_exporter.energy.slots import file_of, newest, offset_of, room_for, slot_of
from carbon_exporter.energy.store import FILE_NAME, Store, default_directory
from carbon_exporter.errors import StoreError

BODY = b'{"joules": 12345.678}\n\x00\xff'
LONG = BODY * 500
"""More than the slot of a short body holds."""

HOLD = """
import sys, time
from pathlib import Path
from carbon_exporter.energy.store import Store
store = Store(Path(sys.argv[1]))
store.open()
print("open", flush=True)
time.sleep(60)
"""

SAVE_FOR_EVER = """
import sys
from pathlib import Path
from carbon_exporter.energy.store import Store
store = Store(Path(sys.argv[1]))
number = int(store.open() or b"0")
while True:
    number += 1
    store.save(b"%d" % number)
    print(number, flush=True)
"""


@contextmanager
def opened(directory: Path) -> Iterator[Store]:
    store = Store(directory)
    store.open()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def program(code: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with the store; killed at the end if it still runs."""
    process = subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kept(directory: Path) -> bytes | None:
    """What the next exporter finds."""
    store = Store(directory)
    try:
        return store.open()
    finally:
        store.close()


def saved(directory: Path, *bodies: bytes) -> bytes:
    """The whole file after these were saved, by default `BODY` alone."""
    with opened(directory) as store:
        for body in bodies or (BODY,):
            store.save(body)
    return (directory / FILE_NAME).read_bytes()


def assert_not_believed(directory: Path, content: bytes, reason: str) -> None:
    """The file is refused, kept, and in nobody's way."""
    file = directory / FILE_NAME
    file.write_bytes(content)
    store = Store(directory)
    with pytest.raises(StoreError, match=reason) as refused:
        store.open()
    aside = [path for path in directory.iterdir() if path.name.startswith(f"{FILE_NAME}.unusable-")]
    assert [path.read_bytes() for path in aside] == [content]
    assert aside[0].name in str(refused.value)
    assert store.is_open
    assert not file.exists()
    store.save(b"anew")
    store.close()
    assert kept(directory) == b"anew"
    aside[0].unlink()


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    place = tmp_path / "made" / "on the way"
    store = Store(place)
    assert store.open() is None
    for body in (b"", BODY, b"x" * 200_000):
        store.save(body)
        store.close()
        assert store.open() == body
    store.close()
    assert sorted(path.name for path in place.iterdir()) == ["lock", FILE_NAME]
    assert (place / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_nothing_is_saved_before_opening_and_after_closing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="not open"):
        store.save(BODY)
    store.open()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="not open"):
        store.save(BODY)
    assert not (tmp_path / FILE_NAME).exists()


def test_a_file_truncated_at_any_byte_is_set_aside(tmp_path: Path) -> None:
    content = saved(tmp_path, b"before", BODY)
    lengths = {*range(64), *range(4000, len(content), 31), *range(8192, 8292), len(content) - 1}
    for length in sorted(lengths):
        assert_not_believed(tmp_path, content[:length], "is not a totals file|is truncated or corrupt")


def test_a_file_with_any_byte_flipped_is_set_aside(tmp_path: Path) -> None:
    content = saved(tmp_path)
    slot = range(8192, content.index(BODY) + len(BODY))
    for position in (*range(64), *slot, 4095):
        for bit in (0x01, 0x20, 0x80):
            flipped = bytearray(content)
            flipped[position] ^= bit
            assert_not_believed(tmp_path, bytes(flipped), "is not a totals file|has schema|is truncated or corrupt")


@pytest.mark.parametrize("content", [b"", b"\n", b'{"joules": 1}\n', b"\x00" * 4096, b"carbon-exporter totals\n"])
def test_a_foreign_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    assert_not_believed(tmp_path, content, "is not a totals file of carbon-exporter")


@pytest.mark.parametrize("room", [0, 10])
def test_a_file_whose_slots_are_too_small_for_anything_is_set_aside(tmp_path: Path, room: int) -> None:
    content = (b"carbon-exporter totals 2 %d\n" % room).ljust(4096, b"\0") + b"x" * 2 * room
    assert_not_believed(tmp_path, content, "is truncated or corrupt")


@pytest.mark.parametrize("schema", [b"0", b"3", b"01", b"one"])
def test_another_schema_is_set_aside_and_named(tmp_path: Path, schema: bytes) -> None:
    checksum = hashlib.sha256(BODY).hexdigest().encode()
    content = b"carbon-exporter totals " + schema + b" " + checksum + b"\n" + BODY
    assert_not_believed(tmp_path, content, f"has schema {schema.decode()}, and this version reads schema 1 to 2")


def test_a_file_that_is_too_large_is_set_aside(tmp_path: Path) -> None:
    content = saved(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(content)
    os.truncate(tmp_path / FILE_NAME, 257 * 2**20)
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="is larger than"):
        store.open()
    store.save(b"anew")
    store.close()
    assert kept(tmp_path) == b"anew"


def test_what_could_not_be_read_back_is_not_saved(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.save(BODY)
        with pytest.raises(StoreError, match="67108865 bytes are more than 67108864"):
            store.save(bytes(64 * 2**20 + 1))
    assert kept(tmp_path) == BODY


def test_a_directory_in_the_files_place_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="cannot read"):
        store.open()
    assert not store.is_open


def test_a_second_exporter_is_kept_out_and_told_who_is_in(tmp_path: Path) -> None:
    with program(HOLD, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        store = Store(tmp_path)
        with pytest.raises(StoreError, match=rf"another carbon-exporter \(pid {holder.pid}\).*--storage.path=DIR"):
            store.open()
        assert not store.is_open


def test_a_killed_exporter_leaves_no_lock(tmp_path: Path) -> None:
    with program(HOLD, tmp_path) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with opened(tmp_path) as store:
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
        store.save(BODY)


def test_an_exporter_killed_at_any_moment_has_forgotten_nothing_that_it_said(tmp_path: Path) -> None:
    said = 0
    for delay in (0.0, 0.001, 0.003, 0.01, 0.02, 0.05):
        with program(SAVE_FOR_EVER, tmp_path) as writer:
            assert writer.stdout is not None
            said = int(writer.stdout.readline())
            time.sleep(delay)
            writer.kill()
            said = int((writer.stdout.read().splitlines() or [str(said)])[-1])
            writer.wait()
        assert int(kept(tmp_path) or b"0") in {said, said + 1}


def of_before(body: bytes) -> bytes:
    """The file as releases before had it."""
    return b"carbon-exporter totals 1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def test_a_file_of_an_earlier_release_is_read_and_made_anew_by_the_first_save(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(of_before(BODY))
    assert kept(tmp_path) == BODY
    assert file.read_bytes() == of_before(BODY), "reading alone changes nothing"
    with opened(tmp_path) as store:
        store.save(b"next")
    assert file.read_bytes().startswith(b"carbon-exporter totals 2 ")
    assert kept(tmp_path) == b"next"


def test_an_earlier_release_would_name_the_schema_and_set_the_file_aside(tmp_path: Path) -> None:
    header = saved(tmp_path, BODY, BODY).partition(b"\n")[0]
    assert header.rsplit(b" ", 2)[:2] == [b"carbon-exporter totals", b"2"], "three words, as it parts them"


@pytest.mark.parametrize("spoilt", [0, 1], ids=["the one before", "the last one"])
def test_a_save_that_is_not_whole_leaves_the_other_one(tmp_path: Path, spoilt: int) -> None:
    content = saved(tmp_path, b"one", b"two", b"three")
    bodies = [b"two", b"three"]
    (tmp_path / FILE_NAME).write_bytes(content.replace(bodies[spoilt], b"x" * len(bodies[spoilt])))
    with opened(tmp_path) as store:
        assert store.was_torn
    assert kept(tmp_path) == bodies[1 - spoilt]
    with opened(tmp_path) as store:
        store.save(b"four")
    with opened(tmp_path) as store:
        assert not store.was_torn, "the first save has made the file anew"


def test_a_file_grows_and_shrinks_with_the_totals(tmp_path: Path) -> None:
    sizes = []
    with opened(tmp_path) as store:
        for size in (10, 4000, 5000, 100_000, 70_000, 20_000, 10_000, 10):
            store.save(b"x" * size)
            sizes.append((tmp_path / FILE_NAME).stat().st_size)
            assert newest((tmp_path / FILE_NAME).read_bytes()).body == b"x" * size
    kib = [(size - 4096) // 2048 for size in sizes]
    assert kib == [4, 4, 8, 128, 128, 128, 16, 16]


def delete(file: Path) -> None:
    file.unlink()


def replace_by_a_backup(file: Path) -> None:
    other = file.with_name("other")
    shutil.copy(file, other)
    other.replace(file)


def write_a_backup_over_it(file: Path) -> None:
    file.write_bytes(file.read_bytes())


def cut(file: Path) -> None:
    os.truncate(file, 0)


def keep_by_a_link(file: Path) -> None:
    os.link(file, file.with_name("linked"))


def open_to_others(file: Path) -> None:
    file.chmod(0o666)


def point_elsewhere(file: Path) -> None:
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


@pytest.mark.parametrize(
    "change",
    [delete, replace_by_a_backup, write_a_backup_over_it, cut, keep_by_a_link, open_to_others, point_elsewhere],
)
def test_a_file_that_somebody_has_changed_meanwhile_is_made_anew(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    file = tmp_path / FILE_NAME
    with opened(tmp_path) as store:
        for body in (b"one", b"two", b"three"):
            store.save(body)
        time.sleep(0.02)  # the kernel's stamps are that coarse
        change(file)
        others = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name in {"linked", "moved"}}
        store.save(b"four")
        assert newest(file.read_bytes()) == (b"four", False)
    assert not file.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path: path.read_bytes() for path in others} == others, "what somebody keeps is not written over"
    assert kept(tmp_path) == b"four"


def test_a_save_needs_no_new_file_while_nobody_has_changed_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        files = set()
        for number in range(10):
            store.save(b"%d" % number)
            files.add((tmp_path / FILE_NAME).stat().st_ino)
    assert len(files) == 1


@given(bodies=st.lists(st.binary(max_size=9000), min_size=2, max_size=6), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_sectors_of_a_save_leave_its_totals_or_the_ones_before(bodies: list[bytes], data: st.DataObject) -> None:
    """A crash may leave any of a save's sectors, in any order, and of one of them a part."""
    room = room_for(slot_of(1, max(bodies, key=len)))
    content = bytearray(file_of(1, slot_of(1, bodies[0]), room))
    for number, body in enumerate(bodies[1:], 2):
        slot, place = slot_of(number, body), offset_of(number, room)
        before = bytes(content)
        content[place : place + len(slot)] = slot
        assert newest(bytes(content)) == (body, False)
    reached = bytearray(before)
    for at in range(0, len(slot), 512):
        if data.draw(st.booleans(), label=f"sector {at // 512}"):
            end = min(len(slot), at + data.draw(st.sampled_from([512, 512, 1, 47, 511])))
            reached[place + at : place + end] = slot[at:end]
    found = newest(bytes(reached)).body
    assert found == (bodies[-1] if reached == content else bodies[-2])


@pytest.mark.parametrize("left", [b"", b"carbon-exporter totals 1 half of a chec"])
def test_a_crash_between_writing_and_renaming_leaves_the_old_state(tmp_path: Path, left: bytes) -> None:
    saved(tmp_path)
    (tmp_path / f"{FILE_NAME}.new").write_bytes(left)
    store = Store(tmp_path)
    assert store.open() == BODY
    store.save(b"next")
    store.close()
    assert kept(tmp_path) == b"next"
    assert not (tmp_path / f"{FILE_NAME}.new").exists()


@pytest.mark.parametrize("planted", [f"{FILE_NAME}.new", FILE_NAME])
def test_a_symlink_in_a_files_place_is_replaced_and_not_followed(tmp_path: Path, planted: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = tmp_path / "state"
    with opened(place) as store:
        (place / planted).symlink_to(victim)
        store.save(BODY)
    assert victim.read_bytes() == b"precious"
    assert not (place / FILE_NAME).is_symlink()
    assert kept(place) == BODY


def test_a_symlink_in_the_locks_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError, match="cannot write in"):
        Store(tmp_path).open()
    assert not (tmp_path / "victim").exists()


@needs_root
def test_an_unwritable_place_says_whom_to_let_in() -> None:
    with public_directory() as place:

        def check() -> None:
            store = Store(place / "below")
            with pytest.raises(StoreError, match=f"cannot write in {place}/below: Permission denied; let uid {NOBODY}"):
                store.open()
            assert not store.is_open

        run_as_nobody(check)
        assert list(place.iterdir()) == []


@needs_root
def test_a_place_that_becomes_unwritable_keeps_its_last_state() -> None:
    with public_directory() as place:
        os.chown(place, NOBODY, NOBODY)

        def check() -> None:
            with opened(place) as store:
                store.save(BODY)
                place.chmod(0o555)
                with pytest.raises(StoreError, match=f"cannot write .*let uid {NOBODY} write there"):
                    store.save(LONG)
                assert newest((place / FILE_NAME).read_bytes()).body == BODY
                place.chmod(0o755)
                store.save(b"again")

        run_as_nobody(check)
        assert kept(place) == b"again"


@contextmanager
def tiny_disk(place: Path) -> Iterator[None]:
    """A file system of 64 KiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_last_state_and_mends_itself(tmp_path: Path) -> None:
    with tiny_disk(tmp_path), opened(tmp_path) as store:
        store.save(BODY)
        filler = tmp_path / "filler"
        fill(filler)
        with pytest.raises(StoreError, match="No space left on device; free some space"):
            store.save(LONG)
        assert newest((tmp_path / FILE_NAME).read_bytes()).body == BODY
        filler.unlink()
        store.save(LONG)
        store.close()
        assert kept(tmp_path) == LONG


def test_totals_that_do_not_grow_need_no_space_of_a_full_disk(tmp_path: Path) -> None:
    with tiny_disk(tmp_path), opened(tmp_path) as store:
        store.save(BODY)
        fill(tmp_path / "filler")
        for number in range(5):
            store.save(BODY + b"%d" % number)
        store.close()
        assert kept(tmp_path) == BODY + b"4"


def test_totals_are_read_even_from_a_full_disk(tmp_path: Path) -> None:
    with tiny_disk(tmp_path):
        saved(tmp_path)
        (tmp_path / "lock").write_bytes(b"")
        fill(tmp_path / "filler")
        store = Store(tmp_path)
        assert store.open() == BODY
        assert store.is_open
        store.close()


def fill(filler: Path) -> None:
    """Write until there is no space."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def test_a_limit_on_file_size_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.save(BODY)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(StoreError, match="File too large"):
                store.save(b"x" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept(tmp_path) == BODY


def test_the_default_place_follows_its_table(tmp_path: Path) -> None:
    closed, parent = tmp_path / "missing" / "carbon-exporter", tmp_path / "var" / "carbon-exporter"
    parent.parent.mkdir()
    for environ, system, place in [
        ({"STATE_DIRECTORY": "/run/state"}, parent, Path("/run/state")),
        ({"STATE_DIRECTORY": "/run/one:/run/two", "HOME": "/root"}, closed, Path("/run/one")),
        ({"STATE_DIRECTORY": "", "HOME": "/h"}, parent, parent),
        ({"HOME": "/h"}, parent.parent, parent.parent),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, closed, Path("/x/carbon-exporter")),
        ({"HOME": "/h"}, closed, Path("/h/.local/state/carbon-exporter")),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, closed, None),
        ({}, closed, None),
    ]:
        assert default_directory(environ, system) == place


@needs_root
def test_a_user_without_privileges_gets_a_place_of_their_own() -> None:
    with public_directory() as system:

        def check() -> None:
            assert default_directory({"HOME": "/h"}, system) == Path("/h/.local/state/carbon-exporter")
            assert default_directory({"HOME": "/h"}, system / "new") == Path("/h/.local/state/carbon-exporter")

        run_as_nobody(check)
