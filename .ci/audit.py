"""Secrets in the repository, and known vulnerabilities of what deltaduck depends on.

A finding fails (exit code 1). A look-up that fails does not: an index that is away for an hour must not stop anybody's work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings
from packaging.requirements import Requirement

SHIPPED = {"cli", "postgres", "demo", "telemetry"}  # extras whose packages are audited too
ACCEPTED: dict[str, str] = {}  # advisory: why it does not concern us, and until when
SECONDS = 180  # for all look-ups

TOKENS = [  # what looks like one is one
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "DiscordBotTokenDetector", "GitHubTokenDetector",
    "GitLabTokenDetector", "JwtTokenDetector", "MailchimpDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector",
    "PypiTokenDetector", "SendGridDetector", "SlackDetector", "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector",
    "TwilioKeyDetector",
]  # fmt: skip
WORDS = ["BasicAuthDetector", "KeywordDetector"]  # password = "…", user:password@host: tests have invented ones
FILTERS = [f"detect_secrets.filters.{name}" for name in (
    "allowlist.is_line_allowlisted", "heuristic.is_sequential_string", "heuristic.is_templated_secret",
    "heuristic.is_prefixed_with_dollar_sign", "heuristic.is_not_alphanumeric_string", "heuristic.is_indirect_reference",
)]  # fmt: skip


def secrets(root: Path, names: Iterable[str]) -> list[str]:
    """Lines of files that seem to hold a secret. A line that ends in `# pragma: allowlist secret` is let pass."""
    found = []
    for detectors, wanted in ((TOKENS, lambda name: True), (WORDS, lambda name: not name.startswith("tests/"))):
        settings = {
            "plugins_used": [{"name": name} for name in detectors],
            "filters_used": [{"path": path} for path in FILTERS],
        }
        with transient_settings(settings):
            for name in filter(wanted, names):
                found += [f"{name}:{s.line_number}: {s.type}" for s in scan_file(str(root / name))]
    return found


def tracked(root: Path) -> list[str]:
    """The files that git knows, whoever owns the checkout; without git, all that are not hidden."""
    command = ["git", "-c", f"safe.directory={root}", "ls-files", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [str(p.relative_to(root)) for p in root.glob("[!.]*/**/*")]
    return [name for name in listed if name and (root / name).is_file()]


def closure(root: Path, extras: Iterable[str]) -> dict[str, str]:
    """name → version, as installed, of all that the project of a directory needs, with some of its extras."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [*project["dependencies"], *(text for e in extras for text in project["optional-dependencies"][e])]
    needed = [Requirement(text) for text in direct]
    out = {r.name.lower(): metadata.version(r.name) for r in needed if r.name != project["name"]}
    waiting, seen = [(r.name, frozenset(r.extras)) for r in needed if r.name != project["name"]], set()
    while waiting:
        asked = waiting.pop()
        if asked in seen:
            continue
        seen.add(asked)
        for requirement in _requirements(*asked):
            try:
                out[requirement.name.lower()] = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                continue  # an extra that is not installed here
            waiting.append((requirement.name, frozenset(requirement.extras)))
    return out


def _requirements(name: str, extras: Iterable[str]) -> Iterator[Requirement]:
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            yield requirement


def look_up(packages: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
    """(pip-audit's answer, what it complained of); None when it has no answer."""
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place, "requirements.txt")
        listed.write_text("".join(f"{name}=={version}\n" for name, version in sorted(packages.items())))
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip", "-f", "json"]
        command += ["--progress-spinner", "off", *(f"--ignore-vuln={advisory}" for advisory in ACCEPTED)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return None, f"no answer within {SECONDS} seconds"
    try:
        return json.loads(done.stdout), done.stderr
    except ValueError:
        return None, done.stderr.strip()[-500:]


def vulnerabilities(answer: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(what was found, which packages nobody could say anything of) in an answer of pip-audit."""
    found = [
        f"{d['name']} {d['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'no version yet'}"
        for d in answer["dependencies"]
        for v in d.get("vulns", ())
    ]
    return found, [d["name"] for d in answer["dependencies"] if "skip_reason" in d]


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    names = tracked(root)
    found = [f"secret? {line}" for line in secrets(root, names)]
    print(f"{len(names)} files searched for secrets")
    packages = closure(root, SHIPPED)
    answer, complaint = look_up(packages)
    if answer is None:
        print(f"warning: no vulnerability could be looked up: {complaint}")
    else:
        vulnerable, unknown = vulnerabilities(answer)
        found += [f"vulnerable: {line}" for line in vulnerable]
        print(f"{len(packages) - len(unknown)} of {len(packages)} packages looked up")
        if unknown:
            print(f"warning: nobody could say anything of {', '.join(unknown)}")
    print("\n".join(found) or "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
