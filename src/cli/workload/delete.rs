//! `hactl delete`: asks for deletion and waits until the objects are gone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::super::progress::{Progress, note};
use super::super::sentence;
use super::discovery::Catalog;
use super::{Files, Scope, ask, explain, is_code, json as told, request};

/// The pause between two looks at whether an object is gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Delete objects and wait until they are gone
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// What to delete: `deploy web`, `pod/web-1`
    #[arg(value_name = "RESOURCE NAME", required_unless_present = "filename", conflicts_with = "filename")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
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
        let mut failed = 0;
        for object in self.files.objects()? {
            let resource = catalog.of(&object)?;
            let name = object["metadata"]["name"].as_str().context("a manifest needs `metadata.name`")?;
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&namespace);
            paths.push((resource.label(name), resource.object(namespace, name)));
        }
        for (resource, name) in catalog.objects(&self.what)? {
            paths.push((resource.label(name), resource.object(&namespace, name)));
        }
        let body = serde_json::to_vec(
            &json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}),
        )?;
        for (label, path) in &paths {
            let content = Some(("application/json", body.clone()));
            match told(&client, request("DELETE", path, "application/json", content)?).await {
                Ok(_) => {}
                // Of several, those that are there are deleted, as with kubectl.
                Err(error) if paths.len() > 1 => {
                    note(format!("error: {}", sentence(&error)));
                    failed += 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if !self.no_wait {
                self.wait(&client, label, path).await?;
            }
            println!("{label} deleted");
        }
        anyhow::ensure!(failed == 0, "{failed} of {} objects could not be deleted", paths.len());
        Ok(())
    }

    async fn wait(&self, client: &kube::Client, label: &str, path: &str) -> Result<()> {
        let since = Instant::now();
        let mut progress = None;
        loop {
            match ask(client, request("GET", path, "application/json", None)?).await? {
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
