#!/usr/bin/env bash
# Where rustup cannot fetch rust-src: takes Debian's package of the very same Rust version from
# trixie-backports, by a private apt configuration, and links it where cargo looks for it.
# usage: ebpf/rust-src.sh VERSION      (fails, with one line, when it cannot be had)
set -euo pipefail
version=$1
fail() { echo "rust-src: $*" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "no Debian archive keyring at $keyring"
command -v apt-get >/dev/null || fail "not a Debian machine"
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
    grep -oE '(https?|mirror\+file)[^ ]*/debian/?( |$)' | head -n 1 | tr -d " ") || true
[ -n "$mirror" ] || fail "no Debian mirror among this machine's apt sources"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,parts}
echo "deb [signed-by=$keyring] $mirror trixie-backports main" >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=$work/parts"
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o "APT::Sandbox::User=root")
"${apt[@]}" update || fail "trixie-backports cannot be read"
full=$(apt-cache -o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=$work/parts" \
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" madison rust-src |
    awk -F'|' '{gsub(/ /,"",$2); print $2}' | grep "^$version+" | head -n 1) || true
[ -n "$full" ] || fail "trixie-backports has no rust-src $version"
(cd "$work" && "${apt[@]}" download "rust-src=$full") || fail "rust-src $full cannot be downloaded"

sysroot=$(rustc --print sysroot)
place=$sysroot/lib/rustlib/debian-rust-src
rm -rf "$place"
dpkg -x "$work"/rust-src_*.deb "$place"
mkdir -p "$sysroot/lib/rustlib/src"
ln -sfn "$place/usr/src/rustc-$version" "$sysroot/lib/rustlib/src/rust"
