"""The README's two commands on a machine that has nothing but what the README asks for."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from docker_kit import CERTIFICATES, api, base, require_docker, run
from support import ROOT, until

pytestmark = [
    pytest.mark.timeout(420),  # pip
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of the SDK, in other files
]


def repository() -> bytes:
    """What `git clone` would bring, of this working tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.split(b"\0")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in sorted(filter(None, names)):
            if (ROOT / name.decode()).exists():
                tar.add(ROOT / name.decode(), f"argus/{name.decode()}")
    return packed.getvalue()


def test_two_commands_and_somebody_answers() -> None:
    require_docker()
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    mount = {"Type": "bind", "Source": str(CERTIFICATES), "Target": certificates, "ReadOnly": True}
    made = api().create_container(
        base(), ["sleep", "600"], environment={"PIP_CERT": certificates, "HOME": "/root"},
        host_config=api().create_host_config(mounts=[mount], init=True),
    )["Id"]  # fmt: skip
    try:
        api().start(made)
        api().put_archive(made, "/root", repository())
        run(made, "sh", "-c", "cd /root/argus && ./argus up > /root/said 2>&1 & sleep 0.1")
        # `up` is still at work while pip runs; then it says where it is.
        said = until(lambda: "open: http" in (text := run(made, "cat", "/root/said")[1]) and text, 300, "./argus up")
        assert "agent: demo" in said
        code, answer = run(made, "sh", "-c", "cd /root/argus && ./argus smoke --prompt 'good morning'")
        assert code == 0 and "good morning" in answer, answer
        assert "#ticket=" in run(made, "sh", "-c", "cd /root/argus && ./argus link")[1]
        assert "stopped" in run(made, "sh", "-c", "cd /root/argus && ./argus down")[1]
    finally:
        api().remove_container(made, force=True, v=True)
