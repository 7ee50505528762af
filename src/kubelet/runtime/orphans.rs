//! Ends a program that was started in a container and is waited for no longer: Docker has no call for that.
//!
//! The kubelet shares the engine's process ids (on the machine itself, or in a container with the host's). A pid is touched only
//! while its control group is the container's, so that one used again by something else is left alone.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Kills the program with this pid, if it is one of the container's, and everything it started; how many there were.
pub fn kill_tree(pid: i32, container_id: &str) -> usize {
    let parents = parents();
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        if !is_of(pid, container_id) {
            continue;
        }
        found.push(pid);
        next.extend(parents.iter().filter(|(_, parent)| **parent == pid).map(|(child, _)| *child));
    }
    for pid in &found {
        // Gone by itself meanwhile.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    found.len()
}

/// Whether the process is one of the container's.
pub fn is_of(pid: i32, container_id: &str) -> bool {
    pid > 1
        && !container_id.is_empty()
        && std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container_id))
}

/// The parent of every process.
fn parents() -> BTreeMap<i32, i32> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parent(&Path::new("/proc").join(pid.to_string()).join("stat"))?))).collect()
}

fn parent(stat: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(stat).ok()?;
    // pid (name) state parent …; the name may hold anything, a parenthesis too.
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_of_the_container_are_touched() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(kill_tree(own, "no-such-container"), 0);
        assert_eq!(kill_tree(own, ""), 0);
        assert!(parents().contains_key(&own));
    }
}
