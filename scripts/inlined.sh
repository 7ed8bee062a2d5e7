#!/bin/sh
# Fails when our kernels call vector intrinsics as functions instead of holding their instructions.
# Usage: scripts/inlined.sh BINARY     (a release build with symbols; needs objdump, takes about five seconds)
#
# An intrinsic is inlined only into a function that has its target feature. A closure that is not inlined into such a
# function has none, so that every vector operation in it becomes a call that passes its operands through memory: this
# once made prefill three times slower, and no test notices. A call counts as ours when the caller is of this crate, or
# when it is a generic function of the standard library that names no crate: there our closures may have landed. Other
# crates' own calls (half precision in gemm, brain floats in candle) are theirs; of generic callers only AVX2, FMA, AMX
# and AVX-512 are looked at, as other crates' loads and half-precision casts end up in some, too.
#
# Exits 0 when there is none, 1 with a list of intrinsic, caller and calls, 2 when BINARY cannot be looked at.
set -eu
[ $# -eq 1 ] || { sed -n '3s/^# //p' "$0" >&2; exit 2; }
[ -r "$1" ] || { echo "inlined.sh: cannot read $1" >&2; exit 2; }
command -v objdump >/dev/null || { echo "inlined.sh: objdump is not installed (binutils)" >&2; exit 2; }

listing=$(mktemp)
trap 'rm -f "$listing"' EXIT
LC_ALL=C objdump --disassemble --demangle --no-show-raw-insn "$1" | awk '
    /^[0-9a-f]+ <.*>:$/ {
        caller = $0; sub(/^[0-9a-f]+ </, "", caller); sub(/>:$/, "", caller)
        if (caller ~ /demeanor::kernels::/) print "kernel"
        next
    }
    /\t(call|jmp) .*<core::core_arch::x86::/ {
        intrinsic = $0; sub(/.*<core::core_arch::x86::/, "", intrinsic); sub(/>[^>]*$/, "", intrinsic)
        ours = caller ~ /demeanor::/
        generic = caller ~ /^<?(core|std|alloc)::/ && intrinsic ~ /^(avx2|fma|amx|avx512[a-z0-9]*)::/
        if (intrinsic !~ /^xsave::/ && (ours || generic)) print intrinsic " in " caller
    }' >"$listing"
grep -q '^kernel$' "$listing" || { echo "inlined.sh: $1 has no symbols of demeanor's kernels; is it stripped?" >&2; exit 2; }

calls=$(grep -v '^kernel$' "$listing" | sort | uniq -c | sort -rn)
[ -n "$calls" ] || { echo "vector intrinsics are inlined: $1"; exit 0; }
echo "$calls" | head -n 30
number=$(echo "$calls" | awk '{n += $1} END {print n}')
echo "inlined.sh: $number calls of vector intrinsics in $1" >&2
echo "hint: make their closures functions with #[inline(always)] or with the target feature" >&2
exit 1
