//! The laws that hold after every scenario, read over the API of each master.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};

use crate::writers::LABEL;

/// Broken laws, in words.
pub async fn judge(clients: &[kube::Client], acknowledged: &[String]) -> Result<Vec<String>> {
    let mut views = Vec::new();
    for client in clients {
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let list = api.list(&ListParams::default().labels(LABEL)).await.context("cannot list what was written")?;
        let view: BTreeMap<String, String> = list
            .items
            .into_iter()
            .map(|object| {
                let meta = object.metadata;
                let version = format!("{}@{}", meta.uid.unwrap_or_default(), meta.resource_version.unwrap_or_default());
                (meta.name.unwrap_or_default(), version)
            })
            .collect();
        views.push(view);
    }
    Ok(violations(&views, acknowledged))
}

fn violations(views: &[BTreeMap<String, String>], acknowledged: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, view) in views.iter().enumerate() {
        for name in acknowledged.iter().filter(|name| !view.contains_key(*name)) {
            found.push(format!("{name} was acknowledged and is missing on master {}", index + 1));
        }
        if view != &views[0] {
            found.push(format!("masters 1 and {} hold different objects", index + 1));
        }
    }
    let distinct: BTreeSet<&String> = acknowledged.iter().collect();
    if distinct.len() != acknowledged.len() {
        found.push("one creation was acknowledged twice".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_laws_are_found() {
        let view = |entries: &[(&str, &str)]| {
            entries
                .iter()
                .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let good = view(&[("a", "1"), ("b", "2")]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cases = [
            (vec![good.clone(), good.clone()], names(&["a", "b"]), 0),
            (vec![good.clone()], names(&["a", "c"]), 1),
            (vec![good.clone(), view(&[("a", "1"), ("b", "3")])], names(&["a"]), 1),
            (vec![good], names(&["a", "a"]), 1),
        ];
        for (views, acknowledged, count) in cases {
            assert_eq!(violations(&views, &acknowledged).len(), count, "{views:?}");
        }
    }
}
