#!/usr/bin/env bash
# Builds the multi-call CNI binary, static, and hard-links it under each plugin's name.
# usage: plugins/build.sh TARGET FOLDER PLUGIN...
# Without the musl target the GNU target is linked statically: same behaviour, a larger file.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1 folder=$2
shift 2
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    target=$(rustc -vV | sed -n 's/^host: //p')
    export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
fi
cargo build --locked --profile cni --target "$target" -p towline-suite
mkdir -p "$folder"
# A new inode, moved into place: a runtime may be executing the old one at this moment.
install -m 0755 "${CARGO_TARGET_DIR:-target}/$target/cni/towline-cni" "$folder/.towline-cni.new"
mv -f "$folder/.towline-cni.new" "$folder/towline-cni"
for plugin in "$@"; do
    ln -f "$folder/towline-cni" "$folder/.link.new"
    mv -f "$folder/.link.new" "$folder/$plugin"
done
