//! `hactl create deployment`: from an image to what runs it.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Scope;
use super::discovery::Catalog;
use super::making::Making;

#[derive(Debug, clap::Subcommand)]
pub enum Create {
    Deployment(Deployment),
}

/// Create a deployment that runs an image
#[derive(Debug, clap::Args)]
#[command(visible_alias = "deploy")]
pub struct Deployment {
    #[arg(value_name = "NAME")]
    name: String,
    /// The image to run; several make a container each
    #[arg(long, value_name = "IMAGE", required = true, value_delimiter = ',')]
    image: Vec<String>,
    /// How many pods
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    replicas: u32,
    /// The port that the container listens on
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// What the container runs instead of the image's own command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    scope: Scope,
}

impl Create {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Deployment(verb) => verb.run().await,
        }
    }
}

impl Deployment {
    async fn run(self) -> Result<()> {
        anyhow::ensure!(
            self.image.len() == 1 || (self.command.is_empty() && self.port.is_none()),
            "--port and a command are of one container; give one --image"
        );
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let resource = catalog.named("deployments.apps")?;
        let namespace = self.scope.namespace(&client).to_owned();
        let object = self.object(&namespace);
        let made = self.making.make(&client, resource, &namespace, object, "created").await;
        made.with_context(|| format!("cannot create {}", resource.label(&self.name)))
    }

    fn object(&self, namespace: &str) -> Value {
        let mut containers: Vec<Value> = Vec::new();
        for (at, image) in self.image.iter().enumerate() {
            let mut name = container_name(image);
            let same = self.image[..at].iter().filter(|other| container_name(other) == name).count();
            if same > 0 {
                name.push_str(&format!("-{}", same + 1));
            }
            containers.push(json!({"name": name, "image": image, "resources": {}}));
        }
        if let Some(port) = self.port {
            containers[0]["ports"] = json!([{"containerPort": port}]);
        }
        if !self.command.is_empty() {
            containers[0]["command"] = json!(self.command);
        }
        let labels = json!({"app": self.name});
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": namespace, "labels": labels},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "strategy": {},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
        })
    }
}

/// `nginx` of `docker.io/library/nginx:1.27@sha256:…`, as a container may be called.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split(['@', ':']).next().unwrap_or(last).to_lowercase();
    let name: String = bare.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    match name.trim_matches('-') {
        "" => "container".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_called_like_its_image() {
        for (image, name) in [
            ("nginx", "nginx"),
            ("nginx:1.27", "nginx"),
            ("registry:5000/team/web_app:2@sha256:0123", "web-app"),
            ("hactl.local/sample:1", "sample"),
            ("_", "container"),
        ] {
            assert_eq!(container_name(image), name);
        }
    }
}
