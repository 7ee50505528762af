//! What a node says of its machine. [`ThisMachine`] reads it from the kernel; a simulation hands in figures of its own, so that
//! nothing in it depends on where it runs.

use std::path::Path;
use std::time::Duration;

/// Sizes, and how much of each is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub cores: u64,
    pub memory_bytes: u64,
    /// `None`: the kernel does not say.
    pub memory_free_bytes: Option<u64>,
    /// Of the file system of the data directory.
    pub disk_bytes: u64,
    pub disk_free_bytes: u64,
    pub processes: u64,
    pub processes_max: u64,
    /// Time that all processors together have spent at work since the machine started.
    pub cpu_busy: Duration,
}

/// Which machine it is, as the Node object names it. Empty: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub boot_id: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub kernel: String,
}

pub trait Host: Send + Sync + 'static {
    fn figures(&self, data_dir: &Path) -> Figures;
    fn identity(&self) -> Identity;
}

pub struct ThisMachine;

const PROCESSES_MAX: u64 = 32_768;

impl Host for ThisMachine {
    fn figures(&self, data_dir: &Path) -> Figures {
        let memory = read("/proc/meminfo");
        let kib = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (disk_bytes, disk_free_bytes) = disk(data_dir).unwrap_or_default();
        Figures {
            cores: std::thread::available_parallelism().map_or(1, usize::from) as u64,
            memory_bytes: kib("MemTotal:").unwrap_or(0) * 1024,
            memory_free_bytes: kib("MemAvailable:").map(|kib| kib * 1024),
            disk_bytes,
            disk_free_bytes,
            processes: read("/proc/loadavg").split(['/', ' ']).nth(4).and_then(|n| n.parse().ok()).unwrap_or(0),
            processes_max: read("/proc/sys/kernel/pid_max").parse().unwrap_or(PROCESSES_MAX),
            cpu_busy: busy(&read("/proc/stat")),
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            machine_id: read("/etc/machine-id"),
            system_uuid: read("/sys/class/dmi/id/product_uuid"),
            kernel: read("/proc/sys/kernel/osrelease"),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, guests (part of user).
fn busy(stat: &str) -> Duration {
    const TICKS_PER_SECOND: u64 = 100;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap_or(0)).take(7).collect();
    let busy: u64 = ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Duration::from_millis(busy.saturating_mul(1000 / TICKS_PER_SECOND))
}

/// Size and free bytes of the file system.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some((stat.blocks() * block, stat.blocks_available() * block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_no_work() {
        let stat = "cpu  100 10 50 9000 500 20 20 77 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Duration::from_secs(2));
        assert_eq!(busy(""), Duration::ZERO);
    }
}
