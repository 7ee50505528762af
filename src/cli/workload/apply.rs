//! `hactl apply -f`: makes what a file describes exist as described.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::discovery::{Catalog, Resource};
use super::merge::{self, LAST_APPLIED};
use super::{Scope, documents, explain, is_code, json as ask, request};

/// Create or change what a file describes
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// A YAML or JSON file; `-` reads standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

impl Apply {
    pub async fn run(self) -> Result<()> {
        let mut objects = Vec::new();
        for file in &self.filename {
            objects.extend(documents(file)?);
        }
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        for object in objects {
            let resource = catalog.of(&object)?;
            let name = object["metadata"]["name"]
                .as_str()
                .with_context(|| format!("a {} needs `metadata.name`", resource.kind))?
                .to_owned();
            let done = self.one(&client, resource, &name, object).await;
            let done = done.with_context(|| format!("cannot apply {}", resource.label(&name)))?;
            println!("{} {done}", resource.label(&name));
        }
        Ok(())
    }

    async fn one(
        &self,
        client: &kube::Client,
        resource: &Resource,
        name: &str,
        mut object: Value,
    ) -> Result<&'static str> {
        let own = object["metadata"]["namespace"].as_str().map(str::to_owned);
        let namespace = own.unwrap_or_else(|| self.scope.namespace(client).to_owned());
        if let Some(annotations) = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove(LAST_APPLIED);
        }
        let record = format!("{object}\n");
        object["metadata"]["annotations"][LAST_APPLIED] = json!(record);
        let path = resource.object(&namespace, name);
        let live = match client.request::<Value>(request("GET", &path, "application/json", None)?).await {
            Ok(live) => live,
            Err(error) if is_code(&error, 404) => {
                let path = format!(
                    "{}?fieldManager=hactl-apply&fieldValidation=Strict",
                    resource.collection(Some(&namespace))
                );
                let body = serde_json::to_vec(&object)?;
                ask(client, request("POST", &path, "application/json", Some(("application/json", body)))?).await?;
                return Ok("created");
            }
            Err(error) => return Err(explain(error)),
        };
        let last = live["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(patch) = merge::patch(last.as_ref(), &object, &live) else { return Ok("unchanged") };
        let path = format!("{path}?fieldManager=hactl-apply&fieldValidation=Strict");
        let body = serde_json::to_vec(&patch)?;
        let content = Some(("application/merge-patch+json", body));
        ask(client, request("PATCH", &path, "application/json", content)?).await?;
        Ok("configured")
    }
}
