"""Checkpoints of both kinds, without the commits before them, in everybody's eyes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaProtocolError

import deltaduck
from deltaduck.mirror import checkpoint

Read = Callable[[str, int | None], pa.Table]
REFUSE_V2 = {"delta-rs-arrow", "polars"}  # the reason why a table gets classic ones unless told


@pytest.mark.parametrize("few", [checkpoint.BATCH, 2], ids=["copied", "streamed"])
@pytest.mark.parametrize("policy", ["classic", "v2"])
def test_a_checkpoint_is_enough(
    tmp_path: Path, reader: Read, policy: str, few: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "BATCH", few)
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        settings = {"delta.checkpointPolicy": policy, "delta.checkpointInterval": "6"}
        lake.write("t", [{"n": 0, "day": "mon"}], partition_by="day", configuration=settings, app_transaction=("loader", 1))
        for n in range(1, 5):
            lake.write("t", [{"n": n, "day": "tue" if n % 2 else "wed"}])
        lake.sql("DELETE FROM t WHERE n = 3")
        lake.write("t", [{"n": 6, "day": "mon"}])
        lake.write("t", [{"n": 7, "day": "mon"}])
        assert lake.mirror.verify("t").checkpoint == 6
        place = Path(lake.table("t").detail()["location"])
    assert list((place / "_delta_log").rglob("_sidecars/*.parquet") if policy == "v2" else ["none"])
    for version in range(7):
        (place / "_delta_log" / f"{version:020d}.json").unlink()
    if policy == "v2" and request.node.callspec.params["reader"] in REFUSE_V2:
        with pytest.raises(DeltaProtocolError, match="v2Checkpoint"):
            reader(str(place), None)
        return
    assert sorted(reader(str(place), None)["n"].to_pylist()) == [0, 1, 2, 4, 6, 7]
    (place / "_delta_log" / "_last_checkpoint").unlink()
    assert sorted(reader(str(place), 6)["n"].to_pylist()) == [0, 1, 2, 4, 6]
    with deltaduck.connect(tmp_path / "other.duckdb") as lake:
        assert lake.import_table(place, "t").checkpoint == 6
        assert sorted(n for (n,) in lake.sql("SELECT n FROM t").fetchall()) == [0, 1, 2, 4, 6, 7]
