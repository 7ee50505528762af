//! Makes sure that an image is there as its pull policy asks, and says so in events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio::time::Instant;

use crate::env::Source;
use crate::images::{self, Policy};
use crate::plan::ImageState;
use crate::podspec;
use crate::runtime::{Credentials, Error};
use crate::shared::Shared;

pub async fn ensure(shared: &Shared, pod: &core::Pod, container: &core::Container, tries: u32) -> ImageState {
    let image = container.image.as_deref().unwrap_or_default();
    let event =
        |kind: &str, reason: &str, text: &str| shared.recorder.pod(pod, Some(&container.name), kind, reason, text);
    let failed = |reason: &'static str, message: String| {
        event("Warning", "Failed", &format!("Error: {reason}"));
        ImageState::Failed { reason, message, at: Timestamp::now(), tries: tries + 1 }
    };
    if images::embedded(image) {
        let _slot = shared.operations.acquire().await;
        return match images::load(shared.runtime.as_ref(), image).await {
            Ok(()) => {
                event("Normal", "Pulled", &format!("Container image \"{image}\" already present on machine"));
                ImageState::Ready
            }
            Err(error) => failed("ErrImagePull", error.to_string()),
        };
    }
    let present = match shared.runtime.image(image).await {
        Ok(present) => present.is_some(),
        Err(Error::Refused(message)) => return failed("InvalidImageName", message),
        Err(error) => return failed("ImageInspectError", error.to_string()),
    };
    match images::policy(container.image_pull_policy.as_deref(), image) {
        Policy::Never if present => {}
        Policy::Never => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            event("Warning", "ErrImageNeverPull", &message);
            return failed("ErrImageNeverPull", message);
        }
        Policy::IfNotPresent if present => {}
        _ => return pull(shared, pod, container, image, &failed).await,
    }
    event("Normal", "Pulled", &format!("Container image \"{image}\" already present on machine"));
    ImageState::Ready
}

async fn pull(
    shared: &Shared,
    pod: &core::Pod,
    container: &core::Container,
    image: &str,
    failed: &(impl Fn(&'static str, String) -> ImageState + Sync),
) -> ImageState {
    let event =
        |kind: &str, reason: &str, text: &str| shared.recorder.pod(pod, Some(&container.name), kind, reason, text);
    event("Normal", "Pulling", &format!("Pulling image \"{image}\""));
    let asked = Instant::now();
    let _slot = shared.pulls.acquire().await;
    let began = Instant::now();
    let mut result = Err(Error::NotFound(String::new()));
    let mut candidates: Vec<Option<Credentials>> = credentials(shared, pod, image).into_iter().map(Some).collect();
    candidates.push(None);
    for credentials in candidates {
        result = shared.runtime.pull(image, credentials).await;
        if result.is_ok() {
            break;
        }
    }
    let outcome = if result.is_ok() { "pulled" } else { "failed" };
    metrics::counter!("hactl_kubelet_image_pulls_total", "outcome" => outcome).increment(1);
    match result {
        Ok(()) => {
            let size = shared.runtime.image(image).await.ok().flatten().map_or(0, |image| image.size);
            let (took, whole) = (began.elapsed().as_millis(), asked.elapsed().as_millis());
            let text = format!(
                "Successfully pulled image \"{image}\" in {took}ms ({whole}ms including waiting). Image size: {size} bytes."
            );
            event("Normal", "Pulled", &text);
            ImageState::Ready
        }
        Err(error) => {
            event("Warning", "Failed", &format!("Failed to pull image \"{image}\": {error}"));
            failed("ErrImagePull", error.to_string())
        }
    }
}

/// What the pod's imagePullSecrets know about the image's registry.
fn credentials(shared: &Shared, pod: &core::Pod, image: &str) -> Vec<Credentials> {
    let registry = match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "index.docker.io",
    };
    let source = shared.source(podspec::namespace(pod));
    let names = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref()).into_iter().flatten();
    let secrets = names.filter_map(|reference| source.secret(&reference.name));
    let mut found = Vec::new();
    for data in secrets.filter_map(|secret| secret.data) {
        let auths = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
            (Some(config), _) => {
                serde_json::from_slice::<serde_json::Value>(&config.0).ok().map(|mut config| config["auths"].take())
            }
            (_, Some(config)) => serde_json::from_slice(&config.0).ok(),
            _ => None,
        };
        for (server, entry) in auths.as_ref().and_then(|auths| auths.as_object()).into_iter().flatten() {
            let host = server
                .trim_start_matches("https://")
                .trim_start_matches("http://")
                .split('/')
                .next()
                .unwrap_or_default();
            let same = host == registry || (registry == "index.docker.io" && host == "docker.io");
            if let Some((username, password)) = same.then(|| user_of(entry)).flatten() {
                found.push(Credentials { username, password, server: server.clone() });
            }
        }
    }
    found
}

fn user_of(entry: &serde_json::Value) -> Option<(String, String)> {
    use base64::Engine as _;
    if let (Some(username), Some(password)) = (entry["username"].as_str(), entry["password"].as_str()) {
        return Some((username.to_owned(), password.to_owned()));
    }
    let both = base64::engine::general_purpose::STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let both = String::from_utf8(both).ok()?;
    let (username, password) = both.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}
