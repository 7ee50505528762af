//! What a node says of its machine. [`ThisMachine`] reads it from the kernel; a simulation hands in figures of its own, so that
//! nothing in it depends on where it runs.

use std::path::Path;

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

/// Size and free bytes of the file system.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some((stat.blocks() * block, stat.blocks_available() * block))
}
