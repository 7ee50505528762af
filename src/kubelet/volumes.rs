//! The files of a pod on this machine: volumes, /etc/hosts, termination messages.
//!
//! ```text
//! <data-dir>/kubelet/pods/<uid>/volumes/<name>/      emptyDir (tmpfs if Memory), configMap, secret (tmpfs)
//!                                 ..data -> ..<n>    contents are swapped by one rename
//!                               hosts                mounted as /etc/hosts
//!                               messages/<container>_<attempt>
//!                               subpaths/<container>/<attempt>_<n>   what a subPath names, bound there
//! ```
//! Blocking; called off the async threads. Not here: which ConfigMaps exist (`env::Source`). Invariant: doing it again changes nothing
//! unless the contents changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use nix::mount::{MsFlags, mount};

use crate::env::Source;
use crate::podspec::uid;
use crate::runtime::Mount;
use crate::subpath;

/// The end of a termination message that is kept.
pub const MESSAGE_BYTES_MAX: u64 = 4096;

/// Where a pod's files lie.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    pub fn of(data_dir: &Path, uid: &str) -> Home {
        Home(pods_dir(data_dir).join(uid))
    }
    fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }
    fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }
    fn sub_paths(&self, container: &str) -> PathBuf {
        self.0.join("subpaths").join(container)
    }
    fn message(&self, container: &str, attempt: u32) -> PathBuf {
        self.0.join("messages").join(format!("{container}_{attempt}"))
    }
}

pub fn pods_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("kubelet").join("pods")
}

fn told(what: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let text = format!("{what} {}", path.display());
    move |error| format!("{text}: {error}")
}

/// Makes all volumes of the pod as they should be. An error is the message of a FailedMount event.
pub fn prepare(pod: &core::Pod, home: &Home, source: &dyn Source) -> Result<(), String> {
    for volume in pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten() {
        one(pod, volume, home, source)
            .map_err(|error| format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name))?;
    }
    Ok(())
}

/// Brings configMap and secret volumes up to date; a source that is gone leaves the old contents.
pub fn refresh(pod: &core::Pod, home: &Home, source: &dyn Source) -> Result<(), String> {
    for volume in pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten() {
        let present = match (&volume.config_map, &volume.secret) {
            (Some(map), _) => source.config_map(&map.name).is_some(),
            (_, Some(secret)) => source.secret(secret.secret_name.as_deref().unwrap_or_default()).is_some(),
            _ => false,
        };
        if present {
            one(pod, volume, home, source)?;
        }
    }
    Ok(())
}

fn one(pod: &core::Pod, volume: &core::Volume, home: &Home, source: &dyn Source) -> Result<(), String> {
    let dir = home.volume(&volume.name);
    let group = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.fs_group);
    if let Some(host) = &volume.host_path {
        return host_path(host);
    }
    fs::create_dir_all(&dir).map_err(told("making", &dir))?;
    if let Some(map) = &volume.config_map {
        let contents = match source.config_map(&map.name) {
            Some(found) => {
                let text = found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
                text.chain(found.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)))
                    .collect()
            }
            None if map.optional == Some(true) => BTreeMap::new(),
            None => return Err(format!("configmap {:?} not found", map.name)),
        };
        let files = select(contents, map.items.as_deref(), map.default_mode, map.optional == Some(true))?;
        return publish(&dir, &files, group);
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let contents = match source.secret(name) {
            Some(found) => found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(),
            None if secret.optional == Some(true) => BTreeMap::new(),
            None => return Err(format!("secret {name:?} not found")),
        };
        let files = select(contents, secret.items.as_deref(), secret.default_mode, secret.optional == Some(true))?;
        tmpfs(&dir, None)?;
        return publish(&dir, &files, group);
    }
    if let Some(empty) = &volume.empty_dir {
        if empty.medium.as_deref() == Some("Memory") {
            tmpfs(&dir, empty.size_limit.as_ref().map(|limit| objects::quantity::value(&limit.0)))?;
        }
        return open_up(&dir, group);
    }
    if volume.projected.is_none() && volume.persistent_volume_claim.is_none() && volume.downward_api.is_none() {
        // A volume without a source is an emptyDir.
        return open_up(&dir, group);
    }
    Err("this kind of volume is not supported yet".to_owned())
}

fn open_up(dir: &Path, group: Option<i64>) -> Result<(), String> {
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    own_group(dir, group)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(told("opening", dir))
}

fn own_group(path: &Path, group: Option<i64>) -> Result<(), String> {
    match group.and_then(|group| u32::try_from(group).ok()) {
        Some(group) => std::os::unix::fs::lchown(path, None, Some(group)).map_err(told("giving to the fsGroup", path)),
        None => Ok(()),
    }
}

fn host_path(host: &core::HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&host.path);
    let wrong = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", host.path));
    let kind = fs::metadata(path).map(|meta| meta.file_type()).ok();
    match host.type_.as_deref().unwrap_or_default() {
        "DirectoryOrCreate" => fs::create_dir_all(path).map_err(told("making", path)),
        "FileOrCreate" if kind.is_none() => fs::write(path, b"").map_err(told("making", path)),
        "Directory" if !kind.is_some_and(|kind| kind.is_dir()) => wrong("a directory"),
        "File" | "FileOrCreate" if !kind.is_some_and(|kind| kind.is_file()) => wrong("a file"),
        "Socket" if !kind.is_some_and(|kind| kind.is_socket()) => wrong("a socket file"),
        "CharDevice" if !kind.is_some_and(|kind| kind.is_char_device()) => wrong("a character device"),
        "BlockDevice" if !kind.is_some_and(|kind| kind.is_block_device()) => wrong("a block device"),
        // Unchecked: Docker's own bind would make a missing directory, as Kubernetes does with Docker.
        "" if kind.is_none() => fs::create_dir_all(path).map_err(told("making", path)),
        _ => Ok(()),
    }
}

fn is_mount_point(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    dir.parent().is_some_and(|parent| device(dir) != device(parent))
}

fn tmpfs(dir: &Path, bytes: Option<i64>) -> Result<(), String> {
    if is_mount_point(dir) {
        return Ok(());
    }
    let options = match bytes {
        Some(bytes) if bytes > 0 => format!("mode=0777,size={bytes}"),
        _ => "mode=0755".to_owned(),
    };
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(|error| format!("mounting a tmpfs on {}: {error} (the kubelet must run as root)", dir.display()))
}

type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// The files of a volume: all keys, or the items that are named.
fn select(
    mut contents: BTreeMap<String, Vec<u8>>,
    items: Option<&[core::KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
) -> Result<Files, String> {
    let mode = |own: Option<i32>| own.or(mode).and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644);
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(contents.into_iter().map(|(key, bytes)| (key, (bytes, mode(None)))).collect());
    };
    let mut files = Files::new();
    for item in items {
        inside(Path::new(&item.path))?;
        match contents.remove(&item.key) {
            Some(bytes) => {
                files.insert(item.path.clone(), (bytes, mode(item.mode)));
            }
            None if optional => {}
            None => return Err(format!("references non-existent key: {}", item.key)),
        }
    }
    Ok(files)
}

/// Refuses paths that lead out of the volume.
fn inside(path: &Path) -> Result<(), String> {
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        Ok(())
    } else {
        Err(format!("the path {} leads out of its volume", path.display()))
    }
}

/// Writes the files into a new directory and points `..data` at it with one rename; readers see all of the old or all of the new.
fn publish(dir: &Path, files: &Files, group: Option<i64>) -> Result<(), String> {
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    let digest = digest(files);
    let fresh = format!("..{digest}");
    if old.as_deref() == Some(Path::new(&fresh)) {
        return Ok(());
    }
    let target = dir.join(&fresh);
    // What a crash left.
    let _ = fs::remove_dir_all(&target);
    fs::create_dir(&target).map_err(told("making", &target))?;
    for (name, (bytes, mode)) in files {
        let path = target.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(told("making", parent))?;
        }
        fs::write(&path, bytes).map_err(told("writing", &path))?;
        own_group(&path, group)?;
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(told("setting the mode of", &path))?;
    }
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(told("opening", &target))?;
    let swap = dir.join("..data_tmp");
    let _ = fs::remove_file(&swap);
    symlink(&fresh, &swap).map_err(told("linking", &swap))?;
    fs::rename(&swap, &data).map_err(told("swapping", &data))?;
    // Visible names are links through ..data, by first path component.
    let tops: std::collections::BTreeSet<&str> =
        files.keys().filter_map(|name| name.split('/').find(|p| !p.is_empty() && *p != ".")).collect();
    for top in &tops {
        let link = dir.join(top);
        if fs::read_link(&link).is_err() {
            symlink(Path::new("..data").join(top), &link).map_err(told("linking", &link))?;
        }
    }
    for name in names(dir).map_err(told("reading", dir))? {
        let path = dir.join(&name);
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(name.as_ref()) {
            fs::remove_file(&path).map_err(told("removing", &path))?;
        }
    }
    if let Some(old) = old {
        // Still open files keep their contents.
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(())
}

fn digest(files: &Files) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (name, (bytes, mode)) in files {
        for part in [name.as_bytes(), &mode.to_be_bytes(), bytes] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    hex::encode(&context.finish().as_ref()[..12])
}

/// The mounts of one container, its /etc/hosts and termination message among them.
pub fn mounts(
    pod: &core::Pod,
    container: &core::Container,
    home: &Home,
    attempt: u32,
    hosts: Option<&str>,
    expand: &dyn Fn(&str) -> String,
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mut out = Vec::new();
    release_sub_paths(&home.sub_paths(&container.name))?;
    for (number, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes
            .iter()
            .find(|v| v.name == wanted.name)
            .ok_or_else(|| format!("volume {:?} not found", wanted.name))?;
        let base =
            volume.host_path.as_ref().map_or_else(|| home.volume(&volume.name), |host| PathBuf::from(&host.path));
        let sub = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(expression)) if !expression.is_empty() => Some(expand(expression)),
            _ => None,
        };
        let source = match sub {
            Some(path) => {
                inside(Path::new(&path))?;
                let place = home.sub_paths(&container.name).join(format!("{attempt}_{number}"));
                subpath::fix(&base, &path, &place)?;
                place
            }
            None => base,
        };
        let fixed = volume.config_map.is_some() || volume.secret.is_some();
        out.push(Mount {
            source: source.to_string_lossy().into_owned(),
            target: wanted.mount_path.clone(),
            read_only: fixed || wanted.read_only.unwrap_or(false),
            propagation: match wanted.mount_propagation.as_deref() {
                Some("Bidirectional") => Some("rshared".to_owned()),
                Some("HostToContainer") => Some("rslave".to_owned()),
                _ => None,
            },
        });
    }
    let taken = |out: &[Mount], target: &str| out.iter().any(|mount| mount.target == target);
    if let Some(text) = hosts
        && !taken(&out, "/etc/hosts")
    {
        let path = home.hosts();
        write_file(&path, text.as_bytes(), 0o644)?;
        out.push(bind(&path, "/etc/hosts"));
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message_path.is_empty() && !taken(&out, message_path) {
        let path = home.message(&container.name, attempt);
        write_file(&path, b"", 0o666)?;
        out.push(bind(&path, message_path));
    }
    Ok(out)
}

fn bind(path: &Path, target: &str) -> Mount {
    Mount {
        source: path.to_string_lossy().into_owned(),
        target: target.to_owned(),
        read_only: false,
        propagation: None,
    }
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(told("making", parent))?;
    }
    fs::write(path, bytes).map_err(told("writing", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(told("setting the mode of", path))
}

/// The places of earlier attempts: the engine has its own mounts of them, for as long as such a container is there.
fn release_sub_paths(dir: &Path) -> Result<(), String> {
    subpath::unmount_below(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told("removing", dir)(error)),
        _ => Ok(()),
    }
}

/// What a container left as its last words.
pub fn message(home: &Home, container: &str, attempt: u32) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(home.message(container, attempt)) {
        // A message that cannot be read is no message.
        let _ = file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Unmounts and removes everything of the pod.
pub fn release(home: &Home) -> Result<(), String> {
    // What is mounted here lies elsewhere, and must not be removed with the pod.
    subpath::unmount_below(&home.0)?;
    match fs::remove_dir_all(&home.0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told("removing", &home.0)(error)),
        _ => Ok(()),
    }
}

/// The pods that have files here.
pub fn homes(data_dir: &Path) -> Vec<String> {
    let names = names(&pods_dir(data_dir)).unwrap_or_default();
    names.into_iter().filter_map(|name| name.into_string().ok()).collect()
}

/// What a directory holds, in order of names: that of the file system is a matter of chance.
fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names: Vec<OsString> = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The home of a pod.
pub fn home(data_dir: &Path, pod: &core::Pod) -> Home {
    Home::of(data_dir, uid(pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(name, text)| ((*name).to_owned(), (text.as_bytes().to_vec(), 0o644))).collect()
    }

    #[test]
    fn contents_are_swapped_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        publish(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("first");
        assert_eq!((at("a"), at("sub/b")), (Some("1".to_owned()), Some("2".to_owned())));
        let before = fs::read_link(dir.path().join("..data")).expect("a link");
        publish(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("again");
        assert_eq!(fs::read_link(dir.path().join("..data")).expect("a link"), before);
        publish(dir.path(), &files(&[("a", "3"), ("c", "4")]), None).expect("changed");
        assert_eq!((at("a"), at("sub/b"), at("c")), (Some("3".to_owned()), None, Some("4".to_owned())));
        assert!(!dir.path().join(before).exists());
    }

    #[test]
    fn items_select_and_name() {
        let contents = BTreeMap::from([("k".to_owned(), b"v".to_vec()), ("l".to_owned(), b"w".to_vec())]);
        let item =
            |key: &str, path: &str| core::KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: Some(0o400) };
        let picked = select(contents.clone(), Some(&[item("k", "x/y")]), None, false).expect("files");
        assert_eq!(picked, Files::from([("x/y".to_owned(), (b"v".to_vec(), 0o400))]));
        assert!(select(contents.clone(), Some(&[item("none", "x")]), None, false).is_err());
        assert!(select(contents, Some(&[item("k", "../x")]), None, false).is_err());
    }
}
