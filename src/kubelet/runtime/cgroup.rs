//! What the kernel counts for a container, read from its control group: no question to the engine.
//!
//! Both versions of control groups, and both ways in which Docker names a container's group. Not here: whether it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Usage;

const ROOT: &str = "/sys/fs/cgroup";
/// Docker's own numbers for ids: 64 hexadecimal digits.
const ID_LENGTH: usize = 64;

/// `None` where the group is not seen from here, or is gone.
pub fn usage(id: &str) -> Option<Usage> {
    usage_below(Path::new(ROOT), id)
}

fn usage_below(root: &Path, id: &str) -> Option<Usage> {
    if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    // The driver is cgroupfs or systemd.
    let names = [format!("docker/{id}"), format!("system.slice/docker-{id}.scope")];
    names.iter().find_map(|name| unified(&root.join(name)).or_else(|| split(root, name)))
}

/// Version 2: one tree.
fn unified(group: &Path) -> Option<Usage> {
    let micros = entry(&read(group, "cpu.stat")?, "usage_usec")?;
    let memory = number(&read(group, "memory.current")?)?;
    let idle = entry(&read(group, "memory.stat")?, "inactive_file").unwrap_or(0);
    Some(Usage { cpu: Duration::from_micros(micros), memory_bytes: memory.saturating_sub(idle) })
}

/// Version 1: a tree for each controller.
fn split(root: &Path, name: &str) -> Option<Usage> {
    let group = |controller: &str| -> PathBuf { root.join(controller).join(name) };
    let nanos = number(&read(&group("cpuacct"), "cpuacct.usage")?)?;
    let memory = number(&read(&group("memory"), "memory.usage_in_bytes")?)?;
    let idle = entry(&read(&group("memory"), "memory.stat")?, "total_inactive_file").unwrap_or(0);
    Some(Usage { cpu: Duration::from_nanos(nanos), memory_bytes: memory.saturating_sub(idle) })
}

fn read(group: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(group.join(file)).ok()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Of lines `name number`.
fn entry(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(name)?.strip_prefix(' ')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_and_both_drivers() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |file: String, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let id = |digit: &str| digit.repeat(ID_LENGTH);
        let scope = format!("system.slice/docker-{}.scope", id("a"));
        write(format!("{scope}/cpu.stat"), "usage_usec 2500000\nuser_usec 1\n");
        write(format!("{scope}/memory.current"), "5000\n");
        write(format!("{scope}/memory.stat"), "anon 7\ninactive_file 1000\nactive_file 3\n");
        let name = format!("docker/{}", id("b"));
        write(format!("cpuacct/{name}/cpuacct.usage"), "1500000000\n");
        write(format!("memory/{name}/memory.usage_in_bytes"), "900\n");
        write(format!("memory/{name}/memory.stat"), "inactive_file 1\ntotal_inactive_file 1000\n");
        let found = |id: &str| usage_below(dir.path(), id);
        assert_eq!(found(&id("a")), Some(Usage { cpu: Duration::from_millis(2500), memory_bytes: 4000 }));
        assert_eq!(found(&id("b")), Some(Usage { cpu: Duration::from_millis(1500), memory_bytes: 0 }));
        assert_eq!(found(&id("c")), None);
        assert_eq!(found("../../etc"), None, "no id");
    }
}
