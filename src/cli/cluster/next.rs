//! The commands that come after a restore or a recovery, for a real machine and for one of a local cluster.

use std::path::{Path, PathBuf};

use super::super::local::Layout;

/// The local cluster that a data dir belongs to, and its name there.
fn local(data_dir: &Path) -> Option<(PathBuf, String)> {
    let (dir, name) = (data_dir.parent()?, data_dir.file_name()?.to_str()?);
    let layout = Layout::load(dir).ok()?;
    layout.check_name(name).ok()?;
    Some((dir.to_owned(), name.to_owned()))
}

/// How this master is started.
pub fn start(data_dir: &Path) {
    println!("\nNext, start this master:");
    match local(data_dir) {
        Some((dir, name)) => println!("  hactl local start {name} --dir {}", dir.display()),
        None if super::unit::systemd_runs() => {
            println!("  systemctl restart hactl      # or: hactl run --data-dir {}", data_dir.display())
        }
        None => println!("  hactl run --data-dir {}", data_dir.display()),
    }
}

/// How the others come back.
pub fn others(data_dir: &Path, api: &str) {
    match local(data_dir) {
        Some((dir, _)) => {
            println!("Then empty the data dirs of the other masters (in {}) and let them join:", dir.display());
            println!("  hactl local up --dir {}", dir.display());
        }
        None => {
            println!("Then, for every further master, here and there:");
            println!("  hactl cluster token create --master");
            println!("  hactl cluster leave --force     # empties the data dir of a master of before");
            println!("  hactl cluster join {api} --master --token …");
        }
    }
}
