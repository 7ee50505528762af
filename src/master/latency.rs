//! How long a disk takes to sync.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const TIME_MAX: Duration = Duration::from_secs(1);

/// Appends blocks of so many bytes to a file of its own in `dir` and syncs each: the time of each, in microseconds. Ends early
/// after about a second. Blocks.
///
/// # Errors
/// When the directory cannot be written to.
pub fn sync_times(dir: &Path, syncs: u32, bytes: u32) -> std::io::Result<Vec<u64>> {
    let mut file = tempfile_in(dir)?;
    let block = vec![0x5a; bytes as usize];
    let begun = Instant::now();
    let mut times = Vec::new();
    for _ in 0..syncs {
        let started = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        if begun.elapsed() > TIME_MAX {
            break;
        }
    }
    Ok(times)
}

/// A file without a name: gone when it is closed, even by a crash.
fn tempfile_in(dir: &Path) -> std::io::Result<std::fs::File> {
    let path = dir.join(format!(".bench-{:016x}", rand::random::<u64>()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #[test]
    fn syncing_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(super::sync_times(dir.path(), 3, 100).expect("writable").len(), 3);
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0);
    }
}
