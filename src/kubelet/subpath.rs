//! The part of a volume that a `subPath` names, held fast.
//!
//! A pod that runs may turn a directory of its volume into a link to anywhere on the machine, at any moment. So the path is resolved
//! by the kernel, beneath the volume or not at all, to an open file; and that file, not its name, is bound to a place that no pod can
//! write to, which is what the engine is told to mount. Rejected: checking the real path first, because it may change before the
//! engine looks. Blocking. Invariant: nothing is removed below a place that is still a mount.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

/// Binds `sub` of the volume at `base` to `place`, making it as a directory when it is missing.
///
/// # Errors
/// When the path leads out of its volume, links included, or cannot be mounted.
pub fn fix(base: &Path, sub: &str, place: &Path) -> Result<(), String> {
    let found = find(base, sub).map_err(|error| match error {
        // Beneath: a link out of it, or `..`.
        Errno::EXDEV | Errno::ELOOP => format!("the subPath {sub:?} leads out of its volume"),
        Errno::ENOSYS => format!("the subPath {sub:?} needs Linux 5.6 or newer"),
        error => format!("finding the subPath {sub:?} in {}: {error}", base.display()),
    })?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let told = |error: io::Error| format!("making {}: {error}", place.display());
    unmount(place)?;
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(told)?;
    }
    if fs::metadata(&source).map_err(told)?.is_dir() {
        fs::create_dir_all(place).map_err(told)?;
    } else {
        fs::write(place, b"").map_err(told)?;
    }
    mount(Some(&source), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|error| format!("mounting the subPath {sub:?}: {error} (the kubelet must run as root)"))
}

fn find(base: &Path, sub: &str) -> nix::Result<OwnedFd> {
    let root = open(base, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let beneath = |path: &Path| {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
        openat2(root.as_fd(), path, how.resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS))
    };
    match beneath(Path::new(sub)) {
        Err(Errno::ENOENT) => {}
        found => return found,
    }
    let mode = fs::metadata(base).map_or(0o755, |meta| meta.permissions().mode() & 0o7777);
    let mut path = PathBuf::new();
    let mut at = root.try_clone().map_err(|_| Errno::EMFILE)?;
    for part in Path::new(sub).components() {
        let name = match part {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => return Err(Errno::EXDEV),
        };
        path.push(name);
        at = match beneath(&path) {
            Err(Errno::ENOENT) => {
                match mkdirat(at.as_fd(), name, Mode::from_bits_truncate(0o755)) {
                    // A link to nothing is in the way, or somebody was quicker.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error),
                }
                let made = beneath(&path)?;
                let own = format!("/proc/self/fd/{}", made.as_raw_fd());
                fs::set_permissions(own, fs::Permissions::from_mode(mode)).map_err(|_| Errno::EPERM)?;
                made
            }
            found => found?,
        };
    }
    Ok(at)
}

/// Ends the mount at this place; none is fine.
pub fn unmount(place: &Path) -> Result<(), String> {
    match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(format!("unmounting {}: {error}", place.display())),
    }
}

/// Ends every mount at or below a directory, innermost first.
///
/// # Errors
/// When one stays: what is below it is not ours to remove.
pub fn unmount_below(dir: &Path) -> Result<(), String> {
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("finding {}: {error}", dir.display())),
    };
    for place in mounts_below(&dir)?.iter().rev() {
        unmount(place)?;
    }
    match mounts_below(&dir)?.first() {
        Some(left) => Err(format!("{} is still mounted: `umount` it by hand", left.display())),
        None => Ok(()),
    }
}

fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let text = fs::read("/proc/self/mountinfo").map_err(|error| format!("reading the mounts: {error}"))?;
    Ok(below(&String::from_utf8_lossy(&text), dir))
}

/// proc(5), /proc/pid/mountinfo: the fifth word is the mount point, with spaces and their like in octal.
fn below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(plain(point)));
    points.filter(|point| point.starts_with(dir)).collect()
}

fn plain(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A volume and a place, unmounted however the test ends.
    struct Ground(tempfile::TempDir);

    impl Ground {
        fn new() -> Ground {
            let ground = Ground(tempfile::tempdir().expect("a directory"));
            fs::create_dir(ground.volume()).expect("a volume");
            ground
        }
        fn volume(&self) -> PathBuf {
            self.0.path().join("volume")
        }
        fn place(&self) -> PathBuf {
            self.0.path().join("places/web/0-0")
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            unmount_below(self.0.path()).expect("unmounted");
        }
    }

    #[test]
    fn paths_stay_inside_and_missing_ones_are_made() {
        let ground = Ground::new();
        let volume = ground.volume();
        symlink("/etc", volume.join("out")).expect("a link");
        symlink("../volume/inner", volume.join("round")).expect("a link");
        symlink("inner/file", volume.join("in")).expect("a link");
        fs::create_dir(volume.join("inner")).expect("a directory");
        fs::write(volume.join("inner/file"), "text").expect("a file");
        for (sub, fine) in [
            ("a/b", true),
            ("./a/./c", true),
            ("in", true),
            ("inner/file", true),
            ("../x", false),
            ("a/../../x", false),
            ("/etc", false),
            ("out", false),
            ("out/ssl", false),
            ("round", false),
        ] {
            let fixed = fix(&volume, sub, &ground.place());
            assert_eq!(fixed.is_ok(), fine, "{sub}: {fixed:?}");
            unmount(&ground.place()).expect("unmounted");
            let _ = fs::remove_file(ground.place()).or_else(|_| fs::remove_dir(ground.place()));
        }
        assert!(volume.join("a/b").is_dir() && !ground.0.path().join("x").exists());
    }

    #[test]
    fn what_is_mounted_is_what_was_found() {
        let ground = Ground::new();
        let data = ground.volume().join("data");
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("file"), "text").expect("a file");
        fix(&ground.volume(), "data", &ground.place()).expect("fixed");
        // The pod swaps what it may write to.
        fs::rename(&data, ground.volume().join("aside")).expect("renamed");
        symlink("/etc", &data).expect("a link");
        assert_eq!(fs::read_to_string(ground.place().join("file")).expect("the file"), "text");
        assert!(fix(&ground.volume(), "data", &ground.place()).is_err());
        unmount_below(ground.0.path()).expect("unmounted");
        assert_eq!(fs::read_dir(ground.place()).expect("the place").count(), 0, "only the mount is gone");
        assert!(ground.volume().join("aside/file").exists());
    }

    #[test]
    fn a_swap_at_any_moment_wins_nothing() {
        let ground = Ground::new();
        let (volume, stop) = (ground.volume(), Arc::new(AtomicBool::new(false)));
        let secret = ground.0.path().join("outside");
        fs::create_dir(&secret).expect("a directory");
        fs::write(secret.join("secret"), "s").expect("a file");
        let swapper = std::thread::spawn({
            let (path, secret, stop) = (volume.join("data"), secret.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::create_dir(&path);
                    let _ = fs::remove_dir(&path);
                    let _ = symlink(&secret, &path);
                    let _ = fs::remove_file(&path);
                }
            }
        });
        for _ in 0..300 {
            if fix(&volume, "data", &ground.place()).is_ok() {
                assert!(!ground.place().join("secret").exists());
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().expect("ended");
    }

    #[test]
    fn mount_points_with_spaces() {
        let text =
            "36 35 98:0 / /srv/my\\040data/kubelet rw - ext3 /dev/x rw\n37 35 98:0 / /srv/other rw - ext3 /dev/x rw\n";
        assert_eq!(below(text, Path::new("/srv/my data")), [PathBuf::from("/srv/my data/kubelet")]);
        assert_eq!(plain("a\\b\\0401"), "a\\b 1");
    }
}
