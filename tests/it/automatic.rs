//! Snapshots that the leader saves by itself.

use std::path::Path;

use crate::support::{Local, eventually};

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut names: Vec<String> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_leader_saves_and_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("dir");
    let place = dir.path().join("backups");
    std::fs::create_dir(&place).expect("create");
    std::fs::write(place.join("photos.snapshot"), "mine").expect("write");
    let place_name = place.to_str().expect("a path");
    let local = Local::up_with(3, 0, &["--snapshot-every", "1s", "--snapshot-keep", "2", "--snapshot-dir", place_name]);
    let own = || names(&place).into_iter().filter(|name| name.starts_with("hactl-auto-")).collect::<Vec<_>>();
    let first = eventually("two are there", || match own() {
        names if names.len() == 2 => Ok(names),
        names => Err(format!("{names:?}")),
    });
    // A new leader goes on, and the oldest go.
    local.ok(&["local", "kill", &local.leader()]);
    eventually("others have taken their place", || match own() {
        names if names.len() == 2 && names.iter().all(|name| !first.contains(name)) => Ok(()),
        names => Err(format!("{names:?}")),
    });
    assert!(names(&place).contains(&"photos.snapshot".to_owned()));
    let newest = place.join(own().last().expect("one"));
    let key = local.dir().join("recovery.key");
    local.ok(&[
        "cluster",
        "snapshot",
        "verify",
        newest.to_str().expect("a path"),
        "--recovery-key-file",
        key.to_str().expect("a path"),
    ]);
}

#[test]
fn a_failure_is_shown() {
    let dir = tempfile::tempdir().expect("dir");
    let place = dir.path().join("backups");
    // No directory can be made there.
    std::fs::write(&place, "a file").expect("write");
    let place_name = place.to_str().expect("a path");
    let local = Local::up_with(1, 0, &["--snapshot-every", "1s", "--snapshot-dir", place_name]);
    eventually("the status says so", || {
        let status = local.ok(&["cluster", "status"]);
        if status.contains("cannot save automatic snapshots to") && status.contains(place_name) {
            Ok(())
        } else {
            Err(status)
        }
    });
    std::fs::remove_file(&place).expect("remove");
    eventually("it goes on by itself", || {
        let status = local.ok(&["cluster", "status"]);
        if status.contains("Nothing is wrong") && !names(&place).is_empty() { Ok(()) } else { Err(status) }
    });
}
