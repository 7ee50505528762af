//! Where automatic snapshots go: a directory, or S3-compatible storage (`s3://bucket/folder`).
//!
//! **Invariant:** under its final name a snapshot is complete; nothing is touched whose name is not asked for.

use std::fs::{DirBuilder, File};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};

use super::content;
use super::s3;
use crate::Error;
use crate::service::snapshots::Material;

const S3: &str = "s3://";
/// Bytes of one part of an upload, and how many are under way at a time.
const PART_BYTES: usize = 8 << 20;
const PARTS_UNDER_WAY: usize = 2;

#[derive(Clone, Debug)]
pub enum Target {
    Directory(PathBuf),
    Store { store: Arc<dyn ObjectStore>, folder: object_store::path::Path, url: String },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Store { url, .. } => f.write_str(url),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Refused(error.to_string())
}

impl Target {
    /// # Errors
    /// When it is neither an absolute path nor `s3://bucket`, or the AWS settings in the environment make no sense.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(rest) = text.strip_prefix(S3) {
            let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Error::Invalid(format!("{text} names no bucket; write s3://bucket/folder")));
            }
            let folder = object_store::path::Path::parse(folder.trim_end_matches('/'))
                .map_err(|error| Error::Invalid(error.to_string()))?;
            return Ok(Self::Store { store: Arc::new(s3::bucket(bucket)?), folder, url: text.to_owned() });
        }
        let dir = PathBuf::from(text);
        if !dir.is_absolute() || text.contains("://") {
            return Err(Error::Invalid(format!("{text} is neither an absolute path nor s3://bucket/folder")));
        }
        Ok(Self::Directory(dir))
    }

    /// The names that are there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        match self {
            Self::Directory(dir) => match std::fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(failed(error)),
                Ok(entries) => {
                    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
                }
            },
            Self::Store { store, folder, .. } => {
                let objects: Vec<_> = store.list(Some(folder)).try_collect().await.map_err(failed)?;
                let direct = |path: &object_store::path::Path| {
                    path.prefix_match(folder).map(|rest| rest.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>())
                };
                Ok(objects
                    .iter()
                    .filter_map(|object| match direct(&object.location)?.as_slice() {
                        [name] => Some(name.clone()),
                        _ => None,
                    })
                    .collect())
            }
        }
    }

    /// # Errors
    /// When it cannot be removed.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        match self {
            Self::Directory(dir) => std::fs::remove_file(dir.join(name)).map_err(failed),
            Self::Store { store, folder, .. } => store.delete(&folder.clone().join(name)).await.map_err(failed),
        }
    }

    /// Writes a snapshot under a name that is not there.
    ///
    /// # Errors
    /// When it cannot be written whole; nothing of it stays.
    pub async fn put(&self, name: &str, material: Material) -> Result<(), Error> {
        match self {
            Self::Directory(dir) => {
                let (dir, name) = (dir.clone(), name.to_owned());
                let written = tokio::task::spawn_blocking(move || to_directory(&dir, &name, material));
                written.await.map_err(failed)?
            }
            Self::Store { store, folder, .. } => upload(store.as_ref(), &folder.clone().join(name), material).await,
        }
    }
}

fn to_directory(dir: &Path, name: &str, material: Material) -> Result<(), Error> {
    let refused = |source| Error::File { path: dir.join(name), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refused)?;
    let draft = dir.join(format!(".{name}.partial"));
    let written = (|| {
        let _ = std::fs::remove_file(&draft);
        let file = File::options().create_new(true).write(true).mode(0o600).open(&draft).map_err(refused)?;
        let out = material.write(BufWriter::with_capacity(1 << 20, file)).map_err(refused)?;
        let file = out.into_inner().map_err(|error| refused(error.into_error()))?;
        file.sync_all().map_err(refused)?;
        content::check(BufReader::with_capacity(1 << 20, File::open(&draft).map_err(refused)?))?;
        std::fs::rename(&draft, dir.join(name)).and_then(|()| File::open(dir)?.sync_all()).map_err(refused)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

/// An object appears when its upload is complete.
async fn upload(store: &dyn ObjectStore, path: &object_store::path::Path, material: Material) -> Result<(), Error> {
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(path).await.map_err(failed)?, PART_BYTES);
    let mut parts = material.stream();
    while let Some(part) = parts.next().await {
        let taken = match part {
            Ok(part) => upload.wait_for_capacity(PARTS_UNDER_WAY).await.map(|()| part).map_err(failed),
            Err(status) => Err(failed(status.message())),
        };
        match taken {
            Ok(part) => upload.put(part.data),
            Err(error) => {
                // What is left of an upload that cannot be given up the bucket's own rules remove.
                let _ = upload.abort().await;
                return Err(error);
            }
        }
    }
    upload.finish().await.map(drop).map_err(failed)
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
