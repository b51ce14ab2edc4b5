#!/usr/bin/env bash
# Puts the Autobahn WebSocket test suite into DIR, so that DIR/bin/wstest runs it.
#
# The suite is still Python 2, which Debian 12 no longer has. So the Python 2.7 of the Debian release before is
# fetched from the mirror that this machine's apt already uses, signatures checked, and unpacked (never installed)
# below DIR; the suite and what it imports come from the package index that pip uses.
#
# Usage: [PYTHON=python3] install_autobahn.sh DIR
# Says "ready" and does nothing else if DIR is complete and was made by this version of the script.
# Exit codes: 0 ready, 1 something could not be had (one line on stderr says what), 2 usage.
set -euo pipefail

readonly RELEASE=bullseye
readonly DEBS=(python2.7 python2.7-minimal libpython2.7 libpython2.7-minimal libpython2.7-stdlib
    libffi7 libssl1.1 python-setuptools python-pkg-resources)
readonly PIP=pip==20.3.4
# The last releases of each that still run on Python 2.7. The first group must be there before the second.
readonly BASE=(setuptools==44.0.0 six==1.16.0 txaio==2.1.0 incremental==16.10.1 zope.interface==4.6.0
    constantly==15.1.0 'hyperlink<22' typing 'idna<3' 'Automat<21' 'PyHamcrest<2' 'attrs<22'
    pyasn1==0.4.8 pyasn1-modules==0.2.8 service_identity==18.1.0 pyOpenSSL==19.1.0 cryptography==3.3.2
    'cffi<1.16' pycparser==2.21 enum34 ipaddress jinja2==2.11.3 markupsafe==1.1.1 Werkzeug==1.0.1 klein==17.10.0)
readonly SUITE=(Twisted==20.3.0 autobahn==0.10.9 unittest2==1.1.0 traceback2 linecache2 argparse
    autobahntestsuite==0.8.2)

fail() { echo "install_autobahn: $*" >&2; exit 1; }
say() { echo "autobahn: $*"; }

python=${PYTHON:-python3}
[ $# -eq 1 ] || { echo "usage: install_autobahn.sh DIR" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
script=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
stamp=$(sha256sum "$script" | cut -d' ' -f1)
if [ "$(cat "$target/stamp" 2>/dev/null || true)" = "$stamp" ] && [ -x "$target/bin/wstest" ]; then
    say "ready in $target"
    exit 0
fi
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || fail "needs $tool, that is, Debian"
done
"$python" -m pip --version >/dev/null 2>&1 || fail "needs pip for $python"

rm -rf "${target:?}"/{stamp,bin,root,site,pip,apt,debs}
mkdir -p "$target"/{bin,root,site,pip,debs,apt/lists/partial,apt/cache/archives/partial}

# Python 2.7, unpacked.
mirror() {
    # What apt itself calls the place of this machine's own release: works for .list and .sources files alike.
    . /etc/os-release
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
        awk -v release="${VERSION_CODENAME:-}" '$2 == release && $3 == "main" { print $1; exit }'
}

uri=$(mirror)
[ -n "$uri" ] || fail "apt knows no mirror of this Debian release"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "needs the package debian-archive-keyring"
echo "deb [signed-by=$keyring] $uri $RELEASE main" >"$target/apt/sources.list"
apt=(apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root
    -o "Dir::Etc::sourcelist=$target/apt/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$target/apt/lists" -o "Dir::Cache=$target/apt/cache")
say "fetching Python 2.7 of $RELEASE"
"${apt[@]}" update || fail "the mirror no longer serves $RELEASE"
(cd "$target/debs" && "${apt[@]}" download "${DEBS[@]}") || fail "the packages of Python 2.7 could not be fetched"
for deb in "$target"/debs/*.deb; do dpkg-deb -x "$deb" "$target/root"; done

# Wrappers that find their place by themselves.
cat >"$target/bin/python2" <<'WRAPPER'
#!/usr/bin/env bash
place=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
libraries=$(printf '%s:' "$place"/root/usr/lib/*-linux-gnu* "$place"/root/lib/*-linux-gnu*)
export LD_LIBRARY_PATH=$libraries PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
export PYTHONPATH=$place/site:$place/pip:$place/root/usr/lib/python2.7/dist-packages
exec "$place/root/usr/bin/python2.7" -W ignore "$@"
WRAPPER
cat >"$target/bin/wstest" <<'WRAPPER'
#!/usr/bin/env bash
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/python2" \
    -c 'import autobahntestsuite.wstest as suite; suite.run()' "$@"
WRAPPER
chmod +x "$target/bin/python2" "$target/bin/wstest"
"$target/bin/python2" -c 'import ssl, zlib' || fail "the unpacked Python 2.7 does not run here"

# The suite.
say "fetching the suite"
"$python" -m pip download -qq --no-deps -d "$target/pip" "$PIP" || fail "the last pip for Python 2.7 could not be had"
"$python" -m zipfile -e "$target"/pip/pip-*.whl "$target/pip"
install() {
    "$target/bin/python2" -m pip install -qq --disable-pip-version-check --no-python-version-warning --no-deps \
        --prefer-binary --target "$target/site" "$@" || fail "could not install $*"
}
install "${BASE[@]}"
for package in "${SUITE[@]}"; do install "$package"; done
touch "$target/site/zope/__init__.py"
"$target/bin/wstest" --help >/dev/null || fail "the suite does not start"

rm -rf "${target:?}"/{debs,apt,pip}
echo "$stamp" >"$target/stamp"
say "ready in $target"
