"""The disasters of docs/operations.md, for real: what is lost, what comes back, and how."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
import stores

import deltaduck
from deltaduck import CatalogError, Lake, TableNotFoundError

RUNBOOK = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.fixture
def server() -> Iterator[servers.Postgres]:
    if servers.postgres_binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = servers.Postgres()
    yield server
    server.remove()


def rows(lake: Lake, at: str = "") -> list[tuple[int]]:
    return sorted(lake.sql(f"SELECT n FROM t {at}").fetchall())


def wrong(lake: Lake, *, repair: bool = False) -> list[str]:
    return [f["check"] for f in lake.fsck(repair=repair) if f["level"] == "error" and not f["repaired"]]


def logs(lake: Lake) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path(lake.storage, "t", "_delta_log").glob("*.json")}


def test_a_postgres_catalog_from_a_backup_that_is_older_than_the_mirror(server: servers.Postgres, tmp_path: Path) -> None:
    """Commits after the backup are in the published log: adopt brings them back, none is lost, none is published twice."""
    server.start()
    place = ["-h", server.home, "-U", "deltaduck"]
    with deltaduck.connect(server.uri("sales"), storage=tmp_path / "data") as lake:
        lake.write("t", [{"n": 1}])
        subprocess.run(["pg_dump", *place, "--schema=sales", "--file=sales.sql", "postgres"], check=True, cwd=tmp_path)
        lake.write("t", [{"n": 2}])
        lake.sql("DELETE FROM t WHERE n = 1")
        published = logs(lake)
        lake.catalog.execute("DROP SCHEMA sales CASCADE")
    subprocess.run(["psql", *place, "-qX", "-v", "ON_ERROR_STOP=1", "--file=sales.sql", "postgres"], check=True, cwd=tmp_path)
    with deltaduck.connect(server.uri("sales")) as lake:
        assert rows(lake) == [(1,)]
        assert wrong(lake, repair=True) == ["mirror"]
        lake.mirror.adopt("t")
        assert rows(lake) == [(2,)]
        assert rows(lake, "AT (VERSION => 1)") == [(1,), (2,)]
        assert logs(lake) == published
        assert lake.fsck() == []
        assert lake.write("t", [{"n": 3}]) == 3


def test_point_in_time_recovery_of_postgres(server: servers.Postgres, tmp_path: Path) -> None:
    """Back to the moment before a mistake, with the settings of the runbook."""
    archive, backup, data = (Path(server.home, name) for name in ("archive", "backup", "data"))
    settings = re.findall(r"^((?:wal_level|archive_mode|archive_command) = .*)$", RUNBOOK, re.MULTILINE)
    assert len(settings) == 3
    restore = re.findall(r"^((?:restore_command|recovery_target_\w+) = .*)$", RUNBOOK, re.MULTILINE)
    assert len(restore) == 3
    server.run_as("mkdir", str(archive))
    with (data / "postgresql.conf").open("a") as conf:
        conf.write("\n".join(line.replace("/backup/wal", str(archive)) for line in settings) + "\n")
    server.start()
    with deltaduck.connect(server.uri(), storage=tmp_path / "data") as lake:
        lake.write("t", [{"n": 1}])
        server.run("pg_basebackup", "-h", server.home, "-U", "deltaduck", "-D", str(backup), "--checkpoint=fast", "--no-sync")
        lake.write("t", [{"n": 2}])
        lake.catalog.fetch("SELECT CAST(pg_create_restore_point('before_the_mistake') AS TEXT)")
        lake.sql("DELETE FROM t WHERE n > 0")
        lake.catalog.fetch("SELECT CAST(pg_switch_wal() AS TEXT)")
        assert rows(lake) == []
    server.stop("fast")
    data.rename(data.with_name("lost"))
    backup.rename(data)
    (data / "recovery.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as conf:
        conf.write("\n".join(line.replace("/backup/wal", str(archive)) for line in restore) + "\n")
    server.start()
    with deltaduck.connect(server.uri()) as lake:
        assert rows(lake) == [(1,), (2,)]
        assert wrong(lake) == ["mirror"]  # the mistake is still published
        mistake = Path(lake.storage, "t", "_delta_log", f"{2:020d}.json")
        mistake.rename(tmp_path / mistake.name)
        assert lake.fsck() == []
        assert lake.write("t", [{"n": 3}]) == 2
        assert rows(lake) == [(1,), (2,), (3,)]
        assert lake.mirror.verify("t")


def test_a_lost_duckdb_catalog_is_imported_from_the_mirror(tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        lake.write("t", [{"n": 1, "day": "mon"}], partition_by="day")
        lake.write("t", [{"n": 2, "day": "tue"}], commit_metadata="the second")
        lake.sql("DELETE FROM t WHERE n = 1")
        lake.write("u", [{"x": 1}])
        before, history = logs(lake), [row["operation"] for row in lake.table("t").history()]
    (tmp_path / "lake.duckdb").unlink()
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        for root in sorted(Path(lake.storage).iterdir()):
            lake.import_table(root)
        assert [t["name"] for t in lake.tables()] == ["t", "u"]
        assert [rows(lake, f"AT (VERSION => {v})") for v in range(3)] == [[(1,)], [(1,), (2,)], [(2,)]]
        assert [row["operation"] for row in lake.table("t").history()] == history
        assert lake.fsck() == []
        assert lake.write("t", [{"n": 3, "day": "wed"}]) == 3
        assert {name: content for name, content in logs(lake).items() if name in before} == before
        assert lake.mirror.verify("t")


def test_a_lost_mirror_is_published_again_to_the_byte(lake: Lake) -> None:
    lake.write("t", [{"n": 1}], configuration={"delta.checkpointInterval": "2"})
    for n in range(2, 5):
        lake.write("t", [{"n": n}])
    before = logs(lake)
    shutil.rmtree(Path(lake.storage, "t", "_delta_log"))
    assert rows(lake) == [(1,), (2,), (3,), (4,)]
    assert all(f["repaired"] for f in lake.fsck(repair=True))
    assert logs(lake) == before
    assert lake.mirror.verify("t")
    from deltalake import DeltaTable

    assert sorted(DeltaTable(str(Path(lake.storage, "t"))).to_pyarrow_table()["n"].to_pylist()) == [1, 2, 3, 4]


@pytest.fixture
def tls(server: servers.Postgres) -> Callable[[str], str]:
    """A server that takes encrypted connections only, and the URI of a catalog there with the certificate of an authority."""
    home = Path(server.home)
    for name in ("ours", "strangers"):
        subject = ["-subj", f"/CN={name}", "-days", "2", "-nodes", "-newkey", "rsa:2048"]
        server.run_as("openssl", "req", "-x509", *subject, "-keyout", f"{home}/{name}.key", "-out", f"{home}/{name}.crt")
    server.run_as(
        "openssl", "req", "-new", "-subj", "/CN=localhost", "-nodes", "-newkey", "rsa:2048", "-keyout", f"{home}/data/server.key",
        "-out", f"{home}/server.csr",
    )  # fmt: skip
    server.run_as(
        "openssl", "x509", "-req", "-in", f"{home}/server.csr", "-CA", f"{home}/ours.crt", "-CAkey", f"{home}/ours.key",
        "-CAcreateserial", "-days", "2", "-out", f"{home}/data/server.crt",
    )  # fmt: skip
    (home / "data" / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n")
    port = stores.free_port()
    with (home / "data" / "postgresql.conf").open("a") as conf:
        conf.write(f"ssl = on\nport = {port}\n")
    server.start(listen="127.0.0.1")
    home.chmod(0o755)
    address = f"deltasql://postgres/deltaduck:right@localhost:{port}/postgres/lake"
    return lambda options: f"{address}?hostaddr=127.0.0.1&{options.replace('HOME', str(home))}"


def test_an_encrypted_connection_to_postgres(tls: Callable[[str], str], tmp_path: Path) -> None:
    with deltaduck.connect(tls("sslmode=verify-full&sslrootcert=HOME/ours.crt"), storage=tmp_path / "data") as lake:
        assert lake.catalog.fetch("SELECT ssl, version LIKE 'TLS%' FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [
            (True, True)
        ]
        lake.write("t", [{"n": 1}])
    for options in ("sslmode=verify-full&sslrootcert=HOME/strangers.crt", "sslmode=disable"):
        with pytest.raises(CatalogError, match="refuses the connection") as refused:
            deltaduck.connect(tls(options))
        assert "right" not in str(refused.value)


def test_readers_see_the_tables_that_are_named_for_them(server: servers.Postgres, tmp_path: Path) -> None:
    (roles,) = re.findall(r"^```sql\n(-- by an administrator.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    (policies,) = re.findall(r"^```sql\n(-- by the owner of the catalog.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    (show,) = re.findall(r"`(INSERT INTO sales\.readers .*?)`", RUNBOOK, re.DOTALL)
    run = ["psql", "-h", server.home, "-qX", "-v", "ON_ERROR_STOP=1", "postgres"]
    server.start()
    (bypass,) = re.findall(r"`(ALTER ROLE lake_writer BYPASSRLS)`", RUNBOOK)
    subprocess.run([*run, "-U", "deltaduck", "-c", roles, "-c", bypass], check=True)
    with deltaduck.connect(server.uri("sales", user="lake_owner"), storage=tmp_path / "data") as lake:
        lake.write("orders", [{"n": 1}])
        lake.write("salaries", [{"n": 2}])
        subprocess.run([*run, "-U", "lake_owner"], input=policies + ";\n" + show, text=True, check=True)
        assert len(lake.tables()) == 2
    with deltaduck.connect(server.uri("sales", user="lake_reader")) as lake:
        assert [t["name"] for t in lake.tables()] == ["orders"]
        assert lake.sql("FROM orders WHERE n > 0").fetchall() == [(1,)]
        assert lake.catalog.fetch("SELECT DISTINCT table_name FROM dl_audit") == [("orders",)]
        assert lake.catalog.fetch("SELECT DISTINCT table_name FROM dl_live_files") == [("orders",)]
        assert lake.catalog.fetch("SELECT count(DISTINCT table_id) FROM dl_add_files") == [(1,)]
        with pytest.raises(TableNotFoundError):
            lake.table("salaries").to_arrow()
    with deltaduck.connect(server.uri("sales", user="lake_writer")) as lake:
        assert lake.write("salaries", [{"n": 3}]) == 1
