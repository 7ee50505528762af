//! The images inside the binary, and what a pull policy asks for.
//!
//! Not here: pulling and loading (sync does). Invariant: an embedded image is named by its content, is loaded on demand and never
//! pulled, so that a cluster needs no registry to start.

use bytes::Bytes;

use crate::runtime::{Error, Result, Runtime};

const PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
const SAMPLE_1: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sample-1"));
const SAMPLE_2: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sample-2"));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The stated policy, or Kubernetes' default: `Always` for `latest` and for no tag.
pub fn policy(stated: Option<&str>, image: &str) -> Policy {
    match stated {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some("IfNotPresent") => Policy::IfNotPresent,
        _ => {
            let last = image.rsplit('/').next().unwrap_or(image);
            if image.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest") {
                Policy::IfNotPresent
            } else {
                Policy::Always
            }
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// `hactl.local/sandbox:<hash of the program>`.
pub fn sandbox() -> String {
    format!("hactl.local/sandbox:{}", &digest(PAUSE)[..12])
}

/// The program of an embedded image; `None` for every other name.
fn program(image: &str) -> Option<(&'static str, &'static [u8], bool)> {
    match image {
        "hactl.local/sample:1" => Some(("sample", SAMPLE_1, true)),
        "hactl.local/sample:2" => Some(("sample", SAMPLE_2, true)),
        name if name == sandbox() => Some(("pause", PAUSE, false)),
        _ => None,
    }
}

/// Says whether the image comes with the binary. The whole `hactl.local/` registry is ours: nothing there can be pulled.
pub fn embedded(image: &str) -> bool {
    program(image).is_some()
}

/// Makes an embedded image present as this binary has it.
pub async fn load(runtime: &dyn Runtime, image: &str) -> Result<()> {
    let Some((name, bytes, serves)) = program(image) else {
        return Err(Error::NotFound(format!("no image {image} in this binary")));
    };
    let (tar, id) = archive(image, name, bytes, serves).map_err(|e| Error::Refused(format!("packing {image}: {e}")))?;
    if runtime.image(image).await?.is_some_and(|present| present.id == id) {
        return Ok(());
    }
    runtime.load(tar).await
}

/// A `docker save` archive of one layer with one file, and the image's id.
fn archive(image: &str, name: &str, bytes: &[u8], serves: bool) -> std::io::Result<(Bytes, String)> {
    let layer = tar_of(&[(name, bytes, 0o755)])?;
    let mut config = serde_json::json!({
        "Entrypoint": [format!("/{name}")],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "WorkingDir": "/",
    });
    if serves {
        config["ExposedPorts"] = serde_json::json!({ "8080/tcp": {} });
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "hactl" }],
    })
    .to_string();
    let id = digest(config.as_bytes());
    let config_name = format!("{id}.json");
    let manifest =
        serde_json::json!([{ "Config": config_name, "RepoTags": [image], "Layers": ["layer.tar"] }]).to_string();
    let whole = tar_of(&[
        (config_name.as_str(), config.as_bytes(), 0o644),
        ("layer.tar", &layer, 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])?;
    Ok((Bytes::from(whole), format!("sha256:{id}")))
}

fn tar_of(files: &[(&str, &[u8], u32)]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        tar.append_data(&mut header, name, *bytes)?;
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (stated, image, expect) in [
            (None, "nginx", Policy::Always),
            (None, "nginx:latest", Policy::Always),
            (None, "nginx:1.29", Policy::IfNotPresent),
            (None, "localhost:5000/nginx", Policy::Always),
            (None, "localhost:5000/nginx:1", Policy::IfNotPresent),
            (None, "nginx@sha256:00", Policy::IfNotPresent),
            (Some("Never"), "nginx", Policy::Never),
            (Some("Always"), "nginx:1", Policy::Always),
        ] {
            assert_eq!(policy(stated, image), expect, "{stated:?} {image}");
        }
    }

    #[test]
    fn programs_are_small_and_versions_differ() {
        assert!(PAUSE.len() < 16 * 1024 && SAMPLE_1.len() < 32 * 1024);
        assert_ne!(SAMPLE_1, SAMPLE_2);
        assert!(embedded("hactl.local/sample:2") && embedded(&sandbox()) && !embedded("hactl.local/sample:3"));
    }
}
