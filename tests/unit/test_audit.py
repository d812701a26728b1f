"""The audit of .ci/audit.py finds what it is there for, and a look-up that fails is no finding."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = "AKIA" + "Q3EGRJXYHD5LKMZW"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.py", f'key = "{KEY}"', "AWS Access Key"),
        ("tests/a.py", f'key = "{KEY}"', "AWS Access Key"),
        ("a.pem", "-----BEGIN RSA " + "PRIVATE KEY-----", "Private Key"),
        ("a.md", "postgresql://owner:" + "hunter2x@db.example/lakes", "Basic Auth Credentials"),
        ("a.py", 'password = "' + 'correcthorse9"', "Secret Keyword"),
    ],
)
def test_a_secret_is_found(audit: ModuleType, tmp_path: Path, name: str, text: str, kind: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"first line\n{text}\n")
    assert audit.secrets(tmp_path, [name]) == [f"{name}:2: {kind}"]


def test_what_is_allowed_and_what_tests_invent_pass(audit: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "a.py").write_text(f'key = "{KEY}"  # pragma: allowlist secret\n')
    (tmp_path / "tests" / "b.py").write_text('uri = "postgresql://owner:hunter2@db.example/lakes"\n')
    assert audit.secrets(tmp_path, ["a.py", "tests/b.py"]) == []


def test_a_vulnerability_is_a_finding_and_an_unknown_package_is_not(audit: ModuleType) -> None:
    answer = {  # as pip-audit 2.10 writes it
        "dependencies": [
            {"name": "jinja2", "version": "2.4.1", "vulns": [
                {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": ["CVE-2019-10906"], "description": "..."},
                {"id": "GHSA-x", "fix_versions": [], "aliases": [], "description": "..."},
            ]},
            {"name": "rich", "version": "13.7.0", "vulns": []},
            {"name": "ours", "skip_reason": "Dependency not found on PyPI and could not be audited: ours (1.0)"},
        ],
        "fixes": [],
    }  # fmt: skip
    assert audit.vulnerabilities(answer) == (
        ["jinja2 2.4.1: PYSEC-2019-217, fixed in 2.10.1", "jinja2 2.4.1: GHSA-x, fixed in no version yet"], ["ours"],
    )  # fmt: skip


def test_what_is_audited_is_what_is_installed_with_deltaduck(audit: ModuleType) -> None:
    packages = audit.closure(ROOT, {"cli", "postgres"})
    assert {"duckdb", "pyarrow", "sqlglot", "obstore", "typer", "rich", "psycopg"} <= {*packages}
    assert not {"deltaduck", "pytest", "hypothesis"} & {*packages}
