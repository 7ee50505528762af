//! `<data-dir>/hactl.json`: what `init` or `join` made of this machine. Written last, so that a data dir without it is not
//! half a cluster but none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

const FILE: &str = "hactl.json";
pub const NONCE: &str = "join.nonce";
/// There while a data dir is being prepared.
const DRAFT: &str = "draft";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installation {
    pub cluster_id: String,
    pub epoch: u64,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<MasterRole>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRole>,
    /// Settings given to `init` or `join`, by name.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MasterRole {
    pub member_id: u64,
    /// `host:port` that users and nodes, and that the other masters, reach it at.
    pub advertise_api: String,
    pub advertise_peer: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeRole {
    pub name: String,
    pub uid: String,
    /// API addresses of the masters known when the node joined; it learns of later ones by itself.
    pub masters: Vec<String>,
}

impl Installation {
    pub fn exists(data_dir: &Path) -> bool {
        data_dir.join(FILE).exists()
    }

    pub fn load(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "{} holds no machine of a cluster; run `hactl cluster init` or `hactl cluster join` first, or give --data-dir",
                data_dir.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}; are you root?", path.display())),
        };
        serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged; restore it, or remove the data dir and join this machine again", path.display())
        })
    }

    pub fn save(&self, data_dir: &Path) -> Result<()> {
        write_private(&data_dir.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}

/// A data dir being prepared. Unless it is kept, what was made in it is removed: nothing half made stays behind. If the
/// process ends too soon for that, the next one to prepare it does so.
pub struct Draft {
    /// Nobody else prepares it meanwhile.
    _lock: Flock<File>,
    dir: PathBuf,
    created: bool,
    kept: bool,
}

impl Draft {
    /// # Errors
    /// When the directory is in use, or holds something that is not ours.
    pub fn begin(dir: &Path) -> Result<Self> {
        if Installation::exists(dir) {
            let present = Installation::load(dir)?;
            bail!(
                "{} already belongs to cluster {} as `{}`; `hactl cluster leave` undoes that, or give another --data-dir",
                dir.display(),
                present.cluster_id,
                present.name
            );
        }
        let created = !dir.exists();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create {}; are you root?", dir.display()))?;
        let lock = super::run::lock(dir)?;
        let interrupted = dir.join(DRAFT).exists();
        for name in foreign(dir)? {
            if !interrupted {
                bail!("{} is not empty (it holds {name}) and is no cluster's; give an empty --data-dir", dir.display());
            }
            let path = dir.join(name);
            std::fs::remove_file(&path)
                .or_else(|_| std::fs::remove_dir_all(&path))
                .with_context(|| format!("cannot remove {}, which an interrupted command left", path.display()))?;
        }
        let begun = File::create(dir.join(DRAFT)).and_then(|mark| mark.sync_all()).and_then(|()| sync(dir));
        begun.with_context(|| format!("cannot write to {}; are you root?", dir.display()))?;
        Ok(Self { _lock: lock, dir: dir.to_owned(), created, kept: false })
    }

    pub fn keep(mut self) {
        self.kept = true;
        let _ = std::fs::remove_file(self.dir.join(DRAFT));
        // It has served; a machine that joins once more later is a new one.
        let _ = std::fs::remove_file(self.dir.join(NONCE));
    }

    /// Random text by which the masters recognise this machine when it asks again; the same until a join succeeds.
    pub fn nonce(&self) -> Result<String> {
        nonce(&self.dir)
    }

    /// Removes all but the nonce: the join may have happened, and is to be asked for again.
    pub fn keep_nonce(mut self) {
        self.created = false;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Best effort: the error that led here is what the user must see.
        if self.created {
            let _ = std::fs::remove_dir_all(&self.dir);
            return;
        }
        for name in foreign(&self.dir).unwrap_or_default() {
            let path = self.dir.join(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
        let _ = std::fs::remove_file(self.dir.join(DRAFT));
    }
}

/// What stands in a data dir beside that which may stand there before the first start: a local cluster's process log and
/// record, and what tells a machine from another.
fn foreign(dir: &Path) -> Result<Vec<String>> {
    let ours = ["hactl.log", "process.json", "lock", DRAFT, NONCE];
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ours.contains(&name.as_str()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn sync(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What [`Draft::nonce`] gives, for a data dir that is not drafted.
pub fn nonce(dir: &Path) -> Result<String> {
    let path = dir.join(NONCE);
    if let Ok(text) = std::fs::read_to_string(&path)
        && !text.is_empty()
    {
        return Ok(text);
    }
    let fresh = rpc::pki::seal::SealKey::generate()?.to_hex();
    write_private(&path, fresh.as_bytes())?;
    Ok(fresh)
}

/// Writes a file that only its owner can read, in one step.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_draft_leaves_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let data = dir.path().join("data");
        let draft = Draft::begin(&data).expect("begin");
        std::fs::create_dir(data.join("pki")).expect("pki");
        drop(draft);
        assert!(!data.exists());
    }

    #[test]
    fn what_an_interrupted_command_left_is_cleared_and_nothing_else() {
        let dir = tempfile::tempdir().expect("dir");
        let mut draft = Draft::begin(dir.path()).expect("begin");
        let nonce = draft.nonce().expect("nonce");
        std::fs::create_dir(dir.path().join("pki")).expect("pki");
        std::fs::write(dir.path().join("hactl.log"), "said").expect("write");
        // Killed: the lock goes, all else stays.
        draft.kept = true;
        drop(draft);
        let again = Draft::begin(dir.path()).expect("begin again");
        assert!(!dir.path().join("pki").exists() && dir.path().join("hactl.log").exists());
        assert_eq!(again.nonce().expect("nonce"), nonce, "the masters recognise it");
        again.keep();
        assert!(!dir.path().join(DRAFT).exists());
    }

    #[test]
    fn a_used_or_foreign_directory_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("letters.txt"), "dear").expect("write");
        let error = Draft::begin(dir.path()).err().expect("refused").to_string();
        assert!(error.contains("letters.txt"), "{error}");
        std::fs::remove_file(dir.path().join("letters.txt")).expect("remove");
        let installation = Installation {
            cluster_id: "c1".into(),
            epoch: 1,
            name: "m".into(),
            master: None,
            node: None,
            settings: BTreeMap::new(),
        };
        installation.save(dir.path()).expect("save");
        let error = Draft::begin(dir.path()).err().expect("refused").to_string();
        assert!(error.contains("belongs to cluster c1"), "{error}");
    }
}
