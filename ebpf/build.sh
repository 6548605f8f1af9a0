#!/bin/sh
# Rebuilds the eBPF object that the loader embeds, reproducibly: the bytes depend only on the sources,
# rustc, bpf-linker and llvm-objcopy.
#
#   ebpf/build.sh            write ebpf/loader/object/towline.bpf.o and its .sha256
#   ebpf/build.sh --check    build elsewhere and compare with the committed .sha256
#
# Needs: the toolchain pinned by rust-toolchain.toml with rust-src, bpf-linker 0.10, llvm-objcopy.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
object=ebpf/loader/object/towline.bpf.o
target=bpfel-unknown-none
export CARGO_TARGET_DIR="${TOWLINE_BPF_TARGET_DIR:-${CARGO_TARGET_DIR:-$root/target}/bpf}"

fail() { echo "ebpf/build.sh: $*" >&2; exit 1; }
# Without the toolchain nothing can be built, and with --check nothing compared: loud, but no failure.
missing() {
    [ "$mode" = --check ] || fail "$*"
    echo "ebpf/build.sh: NOT CHECKED whether $object is what the sources build: $*" >&2
    exit 0
}
mode=${1:-}

sysroot=$(rustc --print sysroot) || missing "no rustc: install the toolchain of rust-toolchain.toml"
library="$sysroot/lib/rustlib/src/rust"
[ -d "$library/library/core" ] || missing "no rust-src in $sysroot: see docs/building.md"
command -v bpf-linker >/dev/null || missing "no bpf-linker: cargo install bpf-linker --version 0.10.3"
objcopy=
for candidate in "$sysroot"/lib/rustlib/*/bin/llvm-objcopy llvm-objcopy llvm-objcopy-19 llvm-objcopy-14; do
    if command -v "$candidate" >/dev/null 2>&1; then objcopy=$candidate; break; fi
done
[ -n "$objcopy" ] || missing "no llvm-objcopy: apt-get install llvm"

# Paths are in debug information and so in BTF line information: give them neutral names. Later
# remappings win, so the most particular come last.
separator=$(printf '\037')
flags="-Cdebuginfo=2${separator}-Clink-arg=--btf"
remap() { flags="$flags${separator}--remap-path-prefix=$1=$2"; }
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
remap "$cargo_home" /cargo
# The name of a registry's folder depends on the mirror that is used.
for registry in "$cargo_home"/registry/src/*; do
    remap "$registry" /registry
done
remap "$root" /towline
remap "$sysroot" /sysroot
remap "$library" /rust
remap "$(realpath "$library")" /rust

RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS="$flags" cargo build --quiet \
    -p towline-ebpf-programs --profile bpf --target "$target" -Z build-std=core

built="$CARGO_TARGET_DIR/$target/bpf/towline-ebpf"
stripped="$CARGO_TARGET_DIR/towline.bpf.o"
"$objcopy" --strip-debug "$built" "$stripped"
sum=$(sha256sum "$stripped" | cut -d' ' -f1)

if [ "$mode" = --check ]; then
    committed=$(cut -d' ' -f1 "$object.sha256")
    [ "$sum" = "$committed" ] || fail "the sources build $sum, committed is $committed: run make ebpf"
    [ "$(sha256sum "$object" | cut -d' ' -f1)" = "$committed" ] || fail "$object does not match its .sha256"
    echo "ebpf/build.sh: $object is what the sources build"
else
    mkdir -p "$(dirname "$object")"
    cp "$stripped" "$object"
    echo "$sum  towline.bpf.o" >"$object.sha256"
    echo "ebpf/build.sh: $object $(wc -c <"$object") bytes, sha256 $sum"
fi
