//! What a pod names in its namespace: what its node may read, and what must reach the node with it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::At;

/// The names of the Secrets and ConfigMaps a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub secrets: BTreeSet<String>,
    pub config_maps: BTreeSet<String>,
}

/// Collects them from volumes, environments and pull secrets.
pub fn pod_references(pod: &Value) -> References {
    let mut found = References::default();
    let spec = At::root(pod).field("spec");
    for volume in spec.field("volumes").items() {
        found.secret(&volume.fields(&["secret", "secretName"]));
        found.config_map(&volume.fields(&["configMap", "name"]));
        for source in volume.fields(&["projected", "sources"]).items() {
            found.secret(&source.fields(&["secret", "name"]));
            found.config_map(&source.fields(&["configMap", "name"]));
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.field(list).items() {
            for source in container.field("envFrom").items() {
                found.secret(&source.fields(&["secretRef", "name"]));
                found.config_map(&source.fields(&["configMapRef", "name"]));
            }
            for variable in container.field("env").items() {
                found.secret(&variable.fields(&["valueFrom", "secretKeyRef", "name"]));
                found.config_map(&variable.fields(&["valueFrom", "configMapKeyRef", "name"]));
            }
        }
    }
    for secret in spec.field("imagePullSecrets").items() {
        found.secret(&secret.field("name"));
    }
    found
}

impl References {
    fn secret(&mut self, name: &At<'_>) {
        if !name.text().is_empty() {
            self.secrets.insert(name.text().to_owned());
        }
    }

    fn config_map(&mut self, name: &At<'_>) {
        if !name.text().is_empty() {
            self.config_maps.insert(name.text().to_owned());
        }
    }
}
