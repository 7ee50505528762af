//! What Kubernetes fills into a pod. 0, "" and the like count as unset where the field is no pointer upstream.

use serde_json::{Value, json};

use crate::{meta, quantity};

const FILE_MODE: i64 = 0o644;

/// Sets a member where it is absent.
fn absent(object: &mut Value, field: &str, value: Value) {
    if meta::at(object, &[field]).is_none() {
        meta::set(object, &[field], value);
    }
}

/// Sets a member where it is absent or empty.
fn empty(object: &mut Value, field: &str, value: Value) {
    if meta::at(object, &[field]).is_none_or(meta::is_empty) {
        meta::set(object, &[field], value);
    }
}

fn items<'a>(object: &'a mut Value, field: &str) -> &'a mut [Value] {
    match object.get_mut(field) {
        Some(Value::Array(list)) => list,
        _ => &mut [],
    }
}

/// What a pod gets beyond what a template gets.
pub(super) fn default_pod(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec") else { return };
    default_spec(spec);
    absent(spec, "enableServiceLinks", json!(true));
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
        }
    }
}

/// Who limits but asks for nothing asks for the limit.
fn requests_from_limits(container: &mut Value) {
    for (resource, limit) in meta::strings(container, &["resources", "limits"]) {
        let path = ["resources", "requests", resource.as_str()];
        if meta::at(container, &path).is_none() {
            meta::set(container, &path, limit.into());
        }
    }
}

/// The spec of a pod or of a template.
pub(in crate::kinds) fn default_spec(spec: &mut Value) {
    empty(spec, "restartPolicy", json!("Always"));
    empty(spec, "dnsPolicy", json!("ClusterFirst"));
    empty(spec, "schedulerName", json!("default-scheduler"));
    absent(spec, "terminationGracePeriodSeconds", json!(30));
    absent(spec, "securityContext", json!({}));
    // Two names of one field.
    let (account, alias) = (meta::text(spec, &["serviceAccountName"]), meta::text(spec, &["serviceAccount"]));
    match (account.is_empty(), alias.is_empty()) {
        (true, false) => meta::set(spec, &["serviceAccountName"], alias.to_owned().into()),
        (false, _) => meta::set(spec, &["serviceAccount"], account.to_owned().into()),
        (true, true) => {}
    }
    for volume in items(spec, "volumes") {
        default_volume(volume);
    }
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            default_container(container);
        }
    }
}

fn default_volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|map| map.keys().all(|key| key == "name")) {
        meta::set(volume, &["emptyDir"], json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            absent(source, "defaultMode", json!(FILE_MODE));
        }
    }
    if let Some(source) = volume.get_mut("hostPath") {
        absent(source, "type", json!(""));
    }
    canonical(volume, &["emptyDir", "sizeLimit"]);
}

fn canonical(object: &mut Value, path: &[&str]) {
    let text = meta::text(object, path);
    let better = quantity::canonical(text);
    if better != text {
        meta::set(object, path, better.into());
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(meta::text(container, &["image"]));
    empty(container, "imagePullPolicy", json!(policy));
    empty(container, "terminationMessagePath", json!("/dev/termination-log"));
    empty(container, "terminationMessagePolicy", json!("File"));
    absent(container, "resources", json!({}));
    for list in ["limits", "requests"] {
        for resource in meta::strings(container, &["resources", list]).keys() {
            canonical(container, &["resources", list, resource]);
        }
    }
    for port in items(container, "ports") {
        empty(port, "protocol", json!("TCP"));
    }
    for variable in items(container, "env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            empty(reference, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            default_probe(probe);
        }
    }
}

fn default_probe(probe: &mut Value) {
    empty(probe, "timeoutSeconds", json!(1));
    empty(probe, "periodSeconds", json!(10));
    empty(probe, "successThreshold", json!(1));
    empty(probe, "failureThreshold", json!(3));
    if let Some(get) = probe.get_mut("httpGet") {
        empty(get, "path", json!("/"));
        empty(get, "scheme", json!("HTTP"));
    }
}

/// An image of no tag, or of `latest`, is pulled each time.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if digest => "IfNotPresent",
        None => "Always",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        for (image, expected) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:aa", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), expected, "{image}");
        }
    }
}
