#!/bin/sh
# Fills a file system of 3 MB under a store and frees it again. Needs user namespaces (unshare).
# Usage: scripts/full_disk.sh
set -eu
cd "$(dirname "$0")/.."
binary=$(scripts/test_binary.sh)
disk=$(mktemp -d)
trap 'rmdir "$disk"' EXIT
DEMEANOR_SMALL_DISK=$disk unshare -rm sh -c \
    'mount -t tmpfs -o size=3m tmpfs "$1" && "$2" --exact kill_store::a_full_disk --ignored --nocapture' sh "$disk" "$binary"
