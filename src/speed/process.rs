//! What the system says of this process: memory and processor time. Linux tells; elsewhere there is `None`.

use std::fs;

/// Resident memory now and at its highest, in MiB.
pub fn resident_mib() -> Option<(f64, f64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some((kib(&status, "VmRSS:")? / 1024.0, kib(&status, "VmHWM:")? / 1024.0))
}

fn kib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Processor time of all threads that live, in seconds. Threads that ended in between are missing, so the difference of
/// two calls is that of the threads that live through both: the engine's and the kernels' do.
pub fn cpu_seconds() -> Option<f64> {
    let mut nanoseconds = 0u64;
    for task in fs::read_dir("/proc/self/task").ok()? {
        // A thread may end while the list is read.
        let Ok(line) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        nanoseconds += line.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmHWM:")), (Some(1024.0), Some(2048.0)));
        assert_eq!(kib(status, "VmSwap:"), None);
    }

    #[test]
    fn work_costs_processor_time() {
        let Some(before) = cpu_seconds() else { return };
        let mut x = 1u64;
        while cpu_seconds().is_some_and(|now| now < before + 0.01) {
            x = std::hint::black_box(x.wrapping_mul(6364136223846793005));
        }
        assert!(cpu_seconds() > Some(before));
        assert!(resident_mib().is_none_or(|(now, most)| now > 0.0 && most >= now));
    }
}
