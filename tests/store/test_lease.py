"""A lease: one of several processes does the work, with real processes that die."""

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from support.store_samples import Start

from sparta.errors import SpartaError
from sparta.store.baton import DEAD_AFTER_SECONDS
from sparta.store.files import write_json
from sparta.store.lease import Lease, lease_holder

HOLD = """
    import sys
    from pathlib import Path
    from sparta.store.lease import Lease
    lease = Lease.take(Path(sys.argv[1]))
    print("held" if lease else "refused", flush=True)
    sys.stdin.readline()
    if lease:
        lease.release()
    """


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_of_many_processes_gets_it(tmp_path: Path, start: Start) -> None:
    all_of_them = [start(HOLD, tmp_path / "turn") for _ in range(4)]
    assert sorted(map(said, all_of_them)) == ["held", "refused", "refused", "refused"]


def test_it_can_be_taken_again_after_a_release(tmp_path: Path) -> None:
    for _ in range(3):
        lease = Lease.take(tmp_path / "turn")
        assert lease is not None
        assert Lease.take(tmp_path / "turn") is None
        lease.release()
    assert [path.name for path in (tmp_path / "turn").iterdir()] == ["free"]


def test_a_killed_holder_does_not_keep_it(tmp_path: Path, start: Start) -> None:
    first = start(HOLD, tmp_path / "turn")
    assert said(first) == "held"
    assert Lease.take(tmp_path / "turn") is None
    first.kill()
    first.wait()
    lease = Lease.take(tmp_path / "turn")
    assert lease is not None
    lease.release()
    assert [path.name for path in (tmp_path / "turn").iterdir()] == ["free"]


def test_a_holder_on_another_machine_lives_as_long_as_its_heartbeat(tmp_path: Path) -> None:
    folder = tmp_path / "turn"
    lost = Lease.take(folder)
    assert lost is not None
    lost._stop.set()
    before = lease_holder(folder)
    assert before is not None and before.alive
    claim = folder / f"{before.claim.token}.json"
    write_json(claim, msgspec.structs.replace(before.claim, machine="another"))
    assert Lease.take(folder) is None
    silent = time.time() - DEAD_AFTER_SECONDS - 5
    os.utime(claim, (silent, silent))
    taken = Lease.take(folder)
    assert taken is not None
    lost.release()  # it was assumed dead: this changes nothing
    after = lease_holder(folder)
    assert after is not None and after.claim.token != before.claim.token
    taken.release()


def test_a_full_disk_leaves_no_claim(small_disk: Path) -> None:
    folder = small_disk / "turn"
    first = Lease.take(folder)
    assert first is not None
    first.release()
    with suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    with pytest.raises(SpartaError, match="space"):
        Lease.take(folder)
    assert [path.name for path in folder.iterdir()] == ["free"]
