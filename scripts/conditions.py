"""What a figure was measured on and what a process uses, for scripts that keep figures as data."""

import os
import pathlib
import platform
import subprocess

# The ones that decide which kernels run.
INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def processor():
    """The name of the processor and the instruction sets it has of those that matter here."""
    name, flags = platform.machine(), ()
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        for line in handle:
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                name = value
            elif key == "flags":
                flags = value.split()
                break
    return {"processor": name, "instruction_sets": [flag for flag in INSTRUCTION_SETS if flag in flags],
            "cores": os.cpu_count()}


def commit():
    """The commit of this checkout, with `+` where files differ from it; None outside a checkout."""
    def git(*arguments):
        here = pathlib.Path(__file__).resolve().parent
        return subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True, check=True).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def version(program):
    """What a program says to `--version`, in one line."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    return "; ".join((said.stdout + said.stderr).split("\n")).strip("; ")


def cpu_seconds(pid):
    """Of all threads, in user and in system mode."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as handle:
        fields = handle.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid, name="VmRSS"):
    """`VmRSS`, or `VmHWM` for its highest."""
    with open(f"/proc/{pid}/status", encoding="ascii") as handle:
        return next(int(line.split()[1]) for line in handle if line.startswith(name)) / 1024


def warm(path):
    """Reads a file, so that it is in the page cache; its bytes."""
    size = 0
    with open(path, "rb", buffering=0) as handle:
        while block := handle.read(1 << 22):
            size += len(block)
    return size
