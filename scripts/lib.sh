# Sourced by the scripts beside it: finds a Python, makes .venv, installs what is missing. Quiet when nothing is to be done.
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
PATH="$PATH:/usr/sbin:/sbin" # Debian puts mosquitto there, and leaves it off a user's PATH
export PATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 # a person's pip.conf may say "user", which a venv refuses

# All of it goes to stderr: stdout belongs to the program that the script is for.
say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $*"
  exit 1
}
# fail_missing WHAT PACKAGES: tells a person who may install what we may not; everything at once, not one a run.
fail_missing() {
  fail "$1. Install it: sudo apt install $2
  All that the scripts here may need: sudo apt install python3-venv libgl1 libglib2.0-0 mosquitto"
}

# find_python [SYSTEM]: prints the first Python that is new enough and can make a venv; those that we test with come first.
# With SYSTEM, none that lies in somebody's home: a service cannot see it there.
find_python() {
  local name package old="" suits="import sys; sys.exit(sys.version_info < (3, 10))"
  if [ -n "${1:-}" ]; then
    suits="import sys; sys.exit(sys.version_info < (3, 10) or sys.base_prefix.startswith(('/root/', '/home/')))"
  fi
  for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3 /usr/bin/python3 python3.14 python3.10 python; do
    "$name" -c "$suits" 2>/dev/null || continue
    if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      command -v "$name"
      return
    fi
    old="${old:-$name}"
  done
  [ -n "$old" ] || fail "no Python 3.10 or newer. Install one, such as: sudo apt install python3 python3-venv"
  package="$("$old" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  if apt_install "$old cannot make virtual environments" "$package" && "$old" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v "$old"
    return
  fi
  fail_missing "$old lacks its venv module" "$package"
}

# apt_install WHY PACKAGE...: installs through apt where we may do so without asking. False where we may not.
apt_install() {
  local why="$1" log apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
  shift
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || return 1
    apt=(sudo -n env DEBIAN_FRONTEND=noninteractive "${apt[@]}")
  fi
  say "$why: installing $* with apt ..."
  log="$(mktemp)"
  # A machine that never ran "apt-get update" knows no packages, so a first failure is not the last word.
  if ! { DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@" ||
    { "${apt[@]}" update && DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@"; }; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# ensure_command COMMAND PACKAGES WHY
ensure_command() {
  command -v "$1" >/dev/null && return
  # shellcheck disable=SC2086  # there may be several packages
  apt_install "$3" $2 && command -v "$1" >/dev/null && return
  fail_missing "$1 is missing: $3" "$2"
}

# pip_install PYTHON TITLE ARGUMENTS...: says on a terminal how far it is, and shows all of it when it fails.
pip_install() {
  local python="$1" title="$2" log begun=$SECONDS
  shift 2
  log="$(mktemp)"
  say "$title ..."
  if ! "$python" -m pip install --no-input --progress-bar off "$@" 2>&1 </dev/null | tee "$log" | show_progress; then
    tail -n 25 "$log" >&2
    rm -f "$log"
    fail "pip could not install the packages (above is what it said). Is the package index reachable?"
  fi
  rm -f "$log"
  say "  done in $((SECONDS - begun)) s"
}

# Reads what pip says and keeps one line of a terminal up to date with it.
show_progress() {
  local line count=0
  while IFS= read -r line; do
    [ -t 2 ] || continue
    case "$line" in
      Collecting*)
        count=$((count + 1)) line="${line#Collecting }"
        printf '\r\033[K  %d: %s' "$count" "${line%%[ ;]*}" >&2
        ;;
      Installing*) printf '\r\033[K  unpacking %d packages' "$count" >&2 ;;
    esac
  done
  if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

# What an installed .venv depends on: when one of these changes, it is installed again.
stamp() {
  {
    echo "$ROOT"
    "$VENV/bin/python" --version
    cat "$ROOT/requirements/$1.lock" "$ROOT/requirements/build.lock" "$ROOT/pyproject.toml"
  } | sha256sum
}

is_current() { [ -f "$VENV/.station-$1" ] && [ "$(stamp "$1")" = "$(cat "$VENV/.station-$1")" ]; }

# ensure_venv LEVEL (demo or dev): .venv with the packages of requirements/LEVEL.lock and the station itself.
# One at a time: the lock is on the folder, so that no file is left behind.
ensure_venv() {
  {
    flock 9 || say "cannot lock $ROOT: do not run two of these scripts at once"
    make_venv "$1" 9<&-
  } 9<"$ROOT"
}

make_venv() {
  local level="$1" python
  if ! "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    python="$(find_python)"
    say "making .venv with $("$python" --version) ..."
    "$python" -m venv --clear "$VENV" || fail "$python -m venv failed (above is why)"
  fi
  # dev holds everything that demo holds.
  if ! is_current dev && ! is_current "$level"; then
    pip_install "$VENV/bin/python" "installing the packages of requirements/$level.lock, once (some 400 MB on disk)" \
      --require-hashes -r "$ROOT/requirements/$level.lock" -r "$ROOT/requirements/build.lock"
    pip_install "$VENV/bin/python" "installing the station" --no-deps --no-build-isolation -e "$ROOT"
    stamp "$level" >"$VENV/.station-$level.new"
    mv "$VENV/.station-$level.new" "$VENV/.station-$level"
  fi
  ensure_cv2 "$VENV/bin/python"
}

# ensure_cv2 PYTHON: OpenCV's wheel lacks two libraries that a server has not.
ensure_cv2() {
  "$1" -c 'import cv2' 2>/dev/null && return
  apt_install "OpenCV needs two libraries of the system" libgl1 libglib2.0-0 || true
  "$1" -c 'import cv2' || fail_missing "OpenCV does not load" "libgl1 libglib2.0-0"
}

# ensure_mosquitto WHO: Debian's package starts a broker on port 1883 as well; ours have ports of their own.
ensure_mosquitto() {
  ensure_command mosquitto mosquitto "$1 against a real MQTT broker"
}

# ensure_compiler: for the library that lets a disk fail and a clock jump under one program.
ensure_compiler() {
  ensure_command cc "gcc libc6-dev" "a small library is built, by which disks fail on command"
}

# ensure_test_servers: what the tests talk to besides mosquitto. What cannot be installed is skipped by them, except in
# CI, where they fail. Some of Debian's packages start a service of their own (ports 80, 6379, 9090): ours have others.
ensure_test_servers() {
  local missing=() look="import gi; gi.require_version('GstRtspServer', '1.0')"
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v nginx >/dev/null || missing+=(nginx-light)
  command -v promtool >/dev/null || missing+=(prometheus)
  command -v nft >/dev/null || missing+=(nftables)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v strace >/dev/null || missing+=(strace)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v chromedriver >/dev/null || missing+=(chromium-driver)
  /usr/bin/python3 -c "$look" 2>/dev/null ||
    missing+=(python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good)
  /usr/bin/python3 -c 'import cv2' 2>/dev/null || missing+=(python3-opencv)
  [ "${#missing[@]}" = 0 ] && return
  apt_install "the tests talk to real servers and a real browser" "${missing[@]}" && return
  say "some tests are skipped: they need ${missing[*]}"
}
