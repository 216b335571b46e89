#!/usr/bin/env bash
# Brings a fresh Debian 12 to where the demo or the tests run. Idempotent: what is there is left alone.
#
# usage: noria/bootstrap.sh demo|test
set -euo pipefail
cd "$(dirname "$0")/.."

purpose="${1:-demo}"
case "$purpose" in
    demo | test) ;;
    *)
        echo "usage: noria/bootstrap.sh demo|test" >&2
        exit 2
        ;;
esac

if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; else bold='' green='' red='' plain=''; fi
steps=4
step=0
begin() {
    step=$((step + 1))
    printf '%s[%d/%d]%s %s\n' "$bold" "$step" "$steps" "$plain" "$1"
}
done_() { printf '      %s✓%s %s\n' "$green" "$plain" "$1"; }
stop() {
    printf '%sset-up stopped:%s %s\n' "$red" "$plain" "$1" >&2
    exit 1
}

# --- Debian packages ------------------------------------------------------------------------------
# command-or-file → package; a command that is already there is not installed again.
needs=(
    "arm-none-eabi-gcc:gcc-arm-none-eabi"
    "/usr/lib/arm-none-eabi/include/stdint.h:libnewlib-arm-none-eabi"
    "gcc:gcc"
    "/usr/include/stdint.h:libc6-dev"
    "mosquitto:mosquitto"
)
if [ "$purpose" = test ]; then
    needs+=(
        "cppcheck:cppcheck"
        "clang-format:clang-format"
        "chromium:chromium"
        "openocd:openocd"
        "node:nodejs"
        "nginx:nginx"
        "faketime:faketime"
    )
fi

begin "Debian packages"
PATH="$PATH:/usr/sbin:/sbin"
missing=()
for need in "${needs[@]}"; do
    what="${need%%:*}"
    if [ "${what#/}" != "$what" ]; then [ -e "$what" ] && continue; else command -v "$what" >/dev/null 2>&1 && continue; fi
    missing+=("${need#*:}")
done
python=""
for candidate in python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python="$candidate"
        break
    fi
done
[ -n "$python" ] || stop "Python 3.11 is needed (Debian 12: apt-get install python3)"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# One pinned package, Monocypher's binding, comes as source.
"$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || missing+=(python3-dev)

if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null 2>&1 || stop "these Debian packages are missing and there is no apt-get here: ${missing[*]}"
    [ "$(id -u)" = 0 ] || stop "root is needed once, to install: apt-get install --no-install-recommends ${missing[*]}"
    echo "      installing ${missing[*]}"
    log="$(mktemp)"
    # RUNLEVEL=1: Mosquitto and nginx are started privately by Noria, not as system services.
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        stop "apt-get could not install ${missing[*]} (is the network up?)"
    fi
    rm -f "$log"
fi
done_ "all there"

# --- virtual environment --------------------------------------------------------------------------
begin "Virtual environment"
if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv || stop "python -m venv failed"
fi
done_ ".venv, $(.venv/bin/python --version)"

begin "Python packages, pinned by hash"
stamp=".venv/installed-$(cat requirements.lock pyproject.toml noria/bootstrap.sh | sha256sum | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    quiet=(--progress-bar on)
    [ -t 1 ] || quiet=(-q)
    .venv/bin/python -m pip install "${quiet[@]}" --disable-pip-version-check --require-hashes -r requirements.lock ||
        stop "pip could not install requirements.lock (is the network up?)"
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ||
        stop "pip could not install this project"
    rm -f .venv/installed-*
    touch "$stamp"
fi
done_ "$(wc -l < <(grep '==' requirements.lock)) packages"

# --- firmware -------------------------------------------------------------------------------------
begin "Firmware for stm32l072 and stm32l432"
.venv/bin/python -m nodes.firmware.build || stop "the firmware did not build"
done_ "nodes/firmware/.pio/build"
