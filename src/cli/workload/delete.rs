//! `hactl delete`: asks for deletion and waits until the objects are gone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::super::progress::Progress;
use super::discovery::Catalog;
use super::{Scope, documents, explain, is_code, json as ask, request};

/// The pause between two looks at whether an object is gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Delete objects and wait until they are gone
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// What to delete: `deploy web`, `pod/web-1`
    #[arg(value_name = "RESOURCE NAME", required_unless_present = "filename")]
    what: Vec<String>,
    /// What a file describes
    #[arg(short, long, value_name = "FILE", conflicts_with = "what")]
    filename: Vec<String>,
    /// Do not wait until they are gone
    #[arg(long)]
    no_wait: bool,
    /// The longest wait in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    #[command(flatten)]
    scope: Scope,
}

impl Delete {
    pub async fn run(self) -> Result<()> {
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let namespace = self.scope.namespace(&client).to_owned();
        let mut paths = Vec::new();
        for file in &self.filename {
            for object in documents(file)? {
                let resource = catalog.of(&object)?;
                let name = object["metadata"]["name"].as_str().context("a manifest needs `metadata.name`")?;
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&namespace);
                paths.push((resource.label(name), resource.object(namespace, name)));
            }
        }
        for (resource, name) in names(&self.what)? {
            let resource = catalog.named(resource)?;
            paths.push((resource.label(name), resource.object(&namespace, name)));
        }
        let body = serde_json::to_vec(
            &json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}),
        )?;
        for (label, path) in &paths {
            let content = Some(("application/json", body.clone()));
            ask(&client, request("DELETE", path, "application/json", content)?).await?;
            if !self.no_wait {
                self.wait(&client, label, path).await?;
            }
            println!("{label} deleted");
        }
        Ok(())
    }

    async fn wait(&self, client: &kube::Client, label: &str, path: &str) -> Result<()> {
        let since = Instant::now();
        let mut progress = None;
        loop {
            match client.request::<Value>(request("GET", path, "application/json", None)?).await {
                Err(error) if is_code(&error, 404) => return Ok(()),
                Err(error) => return Err(explain(error)),
                Ok(_) => {}
            }
            if since.elapsed() > Duration::from_secs(self.timeout) {
                bail!("{label} still exists after {} s; a finalizer or a node that is away may hold it", self.timeout);
            }
            if since.elapsed() > Duration::from_secs(1) {
                progress.get_or_insert_with(|| Progress::start(format!("waiting until {label} is gone"))).detail("");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// `RESOURCE NAME…` or `RESOURCE/NAME…`.
fn names(what: &[String]) -> Result<Vec<(&str, &str)>> {
    let Some((first, rest)) = what.split_first() else { return Ok(Vec::new()) };
    if first.contains('/') {
        let pairs: Option<Vec<_>> = what.iter().map(|word| word.split_once('/')).collect();
        return pairs.context("either every word is RESOURCE/NAME or only the first is a resource");
    }
    if rest.is_empty() {
        bail!("name what to delete: `hactl delete {first} NAME`");
    }
    Ok(rest.iter().map(|name| (first.as_str(), name.as_str())).collect())
}
