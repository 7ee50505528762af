//! What the node keeps on disk: the assignment it follows and what it cannot find out again about its pods.
//!
//! One sealed file, written whole. Invariant: a file that was written is complete; one that does not open (other key, damage) is
//! put aside with a message, and the node starts without it: containers are adopted from the engine all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodStatus;
use rpc::pki::files::write_private;
use rpc::pki::seal::SealKey;
use serde::{Deserialize, Serialize};

use crate::Error;

/// One assigned object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Object {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub revision: u64,
    /// Shared with every snapshot of the state, which is taken at each change.
    pub json: Arc<serde_json::value::RawValue>,
}

/// What the node must remember of one pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    pub address: Option<std::net::Ipv4Addr>,
    /// It has ended for good and never starts again.
    pub finished: bool,
    /// The last status computed.
    pub status: Option<PodStatus>,
    /// How often each container was started again, should the containers that say so be removed by hand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Saved {
    pub epoch: u64,
    /// As a master of that epoch gave it, for masters of earlier ones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch_proof: String,
    pub revision: u64,
    pub pod_cidr: String,
    pub boot_id: String,
    pub masters: Vec<String>,
    pub objects: Vec<Object>,
    pub pods: BTreeMap<String, PodRecord>,
}

pub struct Store {
    path: PathBuf,
    key: SealKey,
}

impl Store {
    pub fn open(data_dir: &Path) -> Result<Store, Error> {
        let dir = data_dir.join("kubelet");
        let key_path = dir.join("key");
        let key = match std::fs::read_to_string(&key_path) {
            Ok(text) => SealKey::parse(&text).map_err(|e| Error::Invalid(format!("{}: {e}", key_path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = SealKey::generate().map_err(|e| Error::Invalid(e.to_string()))?;
                write_private(&key_path, key.to_hex().as_bytes()).map_err(|e| Error::Invalid(e.to_string()))?;
                key
            }
            Err(source) => return Err(Error::Io { path: key_path, source }),
        };
        Ok(Store { path: dir.join("saved"), key })
    }

    /// What was saved last; nothing on a new node.
    pub fn load(&self) -> Saved {
        let Ok(sealed) = std::fs::read(&self.path) else {
            return Saved::default();
        };
        let opened = self.key.open(&sealed, &self.path.display().to_string()).map_err(|e| e.to_string());
        match opened.and_then(|plain| serde_json::from_slice(&plain).map_err(|e| e.to_string())) {
            Ok(saved) => saved,
            Err(error) => {
                let aside = self.path.with_extension("damaged");
                tracing::error!(%error, aside = %aside.display(), "the saved assignment cannot be read and was put aside; waiting for the masters");
                // Without it the file would only be overwritten later.
                let _ = std::fs::rename(&self.path, &aside);
                Saved::default()
            }
        }
    }

    pub fn save(&self, saved: &Saved) -> Result<(), Error> {
        let plain = serde_json::to_vec(saved).map_err(|e| Error::Invalid(e.to_string()))?;
        let sealed = self.key.seal(&plain).map_err(|e| Error::Invalid(e.to_string()))?;
        write_private(&self.path, &sealed).map_err(|e| Error::Invalid(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_and_hides() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        assert_eq!(store.load().revision, 0);
        let json = serde_json::value::RawValue::from_string("{\"password\":\"hunter2\"}".to_owned()).expect("json");
        let object = Object {
            resource: "secrets".to_owned(),
            namespace: "default".to_owned(),
            name: "s".to_owned(),
            uid: "u".to_owned(),
            revision: 3,
            json: Arc::from(json),
        };
        let saved = Saved { revision: 7, objects: vec![object], ..Saved::default() };
        store.save(&saved).expect("saved");
        let path = dir.path().join("kubelet/saved");
        let bytes = std::fs::read(&path).expect("a file");
        assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
        let again = Store::open(dir.path()).expect("a store").load();
        assert_eq!((again.revision, again.objects.len()), (7, 1));
        let mut damaged = bytes;
        damaged[40] ^= 1;
        std::fs::write(&path, damaged).expect("written");
        assert_eq!(store.load().revision, 0);
        assert!(dir.path().join("kubelet/saved.damaged").exists());
    }
}
