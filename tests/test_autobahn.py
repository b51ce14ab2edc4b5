"""The Autobahn test suite against our WebSocket object, behind a real gunicorn."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from echo_app import echo_server
from parts import require

ROOT = Path(__file__).resolve().parents[1]
SUITE = Path(os.environ.get("ARGUS_TEST_AUTOBAHN") or ROOT / ".agents" / "autobahn")
HOW = "tests/tools/install_autobahn.sh .agents/autobahn"

# Groups of the suite, with how many cases each has. Left out: 12 and 13, compression, which we do not offer.
FRAMING = {"1.*": 16, "2.*": 11, "3.*": 7, "4.*": 10, "5.*": 20, "6.*": 145, "7.*": 37, "10.*": 1}
LARGE = {"9.*": 54}


@pytest.fixture(scope="module")
def echo_url(tmp_path_factory):
    require("autobahn", (SUITE / "stamp").is_file() and os.access(SUITE / "bin" / "wstest", os.X_OK), HOW)
    with echo_server(tmp_path_factory.mktemp("echo")) as (port, _):
        yield f"ws://127.0.0.1:{port}/echo"


def run_suite(url: str, groups: list[str], place: Path) -> dict[str, dict]:
    """Every case of the groups, by its number: {"behavior", "behaviorClose", ...}."""
    spec = {
        "outdir": str(place / "report"),
        "servers": [{"agent": "argus", "url": url}],
        "cases": groups,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (place / "spec.json").write_text(json.dumps(spec))
    # The limit is for a case that hangs; the suite itself has none.
    with (place / "log").open("wb") as log:
        command = [SUITE / "bin" / "wstest", "-m", "fuzzingclient", "-s", place / "spec.json"]
        try:
            subprocess.run(command, cwd=place, stdout=log, stderr=log, timeout=240, check=True)
        except subprocess.SubprocessError as error:
            pytest.fail(f"{error}\n{(place / 'log').read_text()[-2000:]}", pytrace=False)
    return json.loads((place / "report" / "index.json").read_text())["argus"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("groups", [FRAMING, LARGE], ids=["framing", "large messages"])
def test_no_case_of_the_suite_fails(groups, echo_url, tmp_path):
    results = run_suite(echo_url, list(groups), tmp_path)

    allowed = {"OK", "NON-STRICT", "INFORMATIONAL"}
    failed = {
        case: (result["behavior"], result["behaviorClose"])
        for case, result in results.items()
        if result["behavior"] not in allowed or result["behaviorClose"] not in allowed
    }
    assert failed == {}
    ran = {group: sum(case.startswith(group[:-1]) for case in results) for group in groups}
    assert ran == groups
