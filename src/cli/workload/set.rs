//! `hactl set image`: other images for the containers of a pod template.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::discovery::Catalog;
use super::{Scope, read, send};

#[derive(Debug, clap::Subcommand)]
pub enum Set {
    Image(Image),
}

/// Change the images of a deployment, or of anything else with pods
#[derive(Debug, clap::Args)]
pub struct Image {
    /// What to change, and each container's image: `deployment/web web=nginx:1.28`; `*=…` means all containers
    #[arg(required = true, value_name = "RESOURCE NAME CONTAINER=IMAGE")]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

impl Set {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Image(verb) => verb.run().await,
        }
    }
}

impl Image {
    async fn run(self) -> Result<()> {
        let (images, words): (Vec<String>, Vec<String>) =
            self.what.iter().cloned().partition(|word| word.contains('='));
        let images: Vec<(&str, &str)> = images.iter().filter_map(|word| word.split_once('=')).collect();
        anyhow::ensure!(!images.is_empty(), "say which image: `hactl set image deployment/web CONTAINER=IMAGE`");
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let namespace = self.scope.namespace(&client).to_owned();
        for (resource, name) in catalog.objects(&words)? {
            let (path, label) = (resource.object(&namespace, name), resource.label(name));
            let object = read(&client, &path).await.with_context(|| format!("cannot change {label}"))?;
            let at = template_path(&resource.plural);
            let patch = patch(&object, at, &images).with_context(|| format!("cannot change {label}"))?;
            let Some(patch) = patch else { continue };
            let path = format!("{path}?fieldManager=hactl-set");
            let changed = send(&client, "PATCH", &path, "application/strategic-merge-patch+json", &patch).await;
            changed.with_context(|| format!("cannot change {label}"))?;
            println!("{label} image updated");
        }
        Ok(())
    }
}

/// Where an object of this kind has the spec of its pods.
fn template_path(plural: &str) -> &'static [&'static str] {
    match plural {
        "pods" => &["spec"],
        "cronjobs" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => &["spec", "template", "spec"],
    }
}

/// What changes; `None` where all images are so already.
fn patch(object: &Value, at: &[&str], images: &[(&str, &str)]) -> Result<Option<Value>> {
    let pointer = format!("/{}", at.join("/"));
    let spec = object.pointer(&pointer).context("it has no containers")?;
    let mut changes = serde_json::Map::new();
    let mut found = vec![false; images.len()];
    for list in ["containers", "initContainers"] {
        let mut changed = Vec::new();
        for container in spec[list].as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            for (at, (wanted, image)) in images.iter().enumerate() {
                if *wanted != "*" && *wanted != name {
                    continue;
                }
                found[at] = true;
                if container["image"] != *image {
                    changed.push(json!({"name": name, "image": image}));
                }
            }
        }
        if !changed.is_empty() {
            changes.insert(list.to_owned(), changed.into());
        }
    }
    if let Some(at) = found.iter().position(|found| !found) {
        bail!("it has no container {}", images[at].0);
    }
    if changes.is_empty() {
        return Ok(None);
    }
    Ok(Some(at.iter().rev().fold(Value::Object(changes), |inner, field| json!({ *field: inner }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent() {
        let object = json!({"spec": {"template": {"spec": {
            "containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}],
            "initContainers": [{"name": "i", "image": "x:1"}],
        }}}});
        let at = template_path("deployments");
        let of = |images: &[(&str, &str)]| patch(&object, at, images).map_err(|error| error.to_string());
        assert_eq!(of(&[("a", "x:1")]), Ok(None));
        let one = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "y:2"}]}}}});
        assert_eq!(of(&[("a", "x:1"), ("b", "y:2")]), Ok(Some(one)));
        let all = json!({"spec": {"template": {"spec": {
            "containers": [{"name": "b", "image": "x:1"}],
        }}}});
        assert_eq!(of(&[("*", "x:1")]), Ok(Some(all)));
        assert_eq!(of(&[("c", "x:1")]), Err("it has no container c".to_owned()));
    }
}
