//! `hactl scale`: how many pods a deployment, or anything else with a number of replicas, has.

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::discovery::Catalog;
use super::{Scope, read, send};

/// Change how many pods a deployment has
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// What to scale: `deployment/web`, `deployment web`
    #[arg(required = true, value_name = "RESOURCE NAME")]
    what: Vec<String>,
    /// How many pods
    #[arg(long, value_name = "N")]
    replicas: u32,
    /// Only if it has so many now
    #[arg(long, value_name = "N")]
    current_replicas: Option<u32>,
    #[command(flatten)]
    scope: Scope,
}

impl Scale {
    pub async fn run(self) -> Result<()> {
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let namespace = self.scope.namespace(&client).to_owned();
        for (resource, name) in catalog.objects(&self.what)? {
            let path = format!("{}/scale", resource.object(&namespace, name));
            let label = resource.label(name);
            let mut patch = json!({"spec": {"replicas": self.replicas}});
            if let Some(expected) = self.current_replicas {
                let scale = read(&client, &path).await.with_context(|| format!("cannot scale {label}"))?;
                let present = scale["spec"]["replicas"].as_u64().unwrap_or(0);
                if present != u64::from(expected) {
                    bail!("{label} is not scaled: it has {present} replicas, not {expected}");
                }
                // Nobody else has changed it meanwhile.
                patch["metadata"] = json!({"resourceVersion": scale["metadata"]["resourceVersion"]});
            }
            let path = format!("{path}?fieldManager=hactl-scale");
            let scaled = send(&client, "PATCH", &path, "application/merge-patch+json", &patch).await;
            scaled.with_context(|| format!("cannot scale {label}"))?;
            println!("{label} scaled");
        }
        Ok(())
    }
}
