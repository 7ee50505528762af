//! `hactl apply -f`: makes what files describe exist as described.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::super::progress::note;
use super::super::sentence;
use super::discovery::{Catalog, Resource};
use super::merge::{self, LAST_APPLIED};
use super::{Files, Scope, ask, explain, is_code, json as told, request};

/// Create or change what files describe
#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    scope: Scope,
}

impl Apply {
    pub async fn run(self) -> Result<()> {
        anyhow::ensure!(!self.files.filename.is_empty(), "say what to apply: `hactl apply -f FILE`");
        let objects = self.files.objects()?;
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let all = objects.len();
        let mut failed = Vec::new();
        for object in objects {
            match self.any(&client, &catalog, object).await {
                Ok(done) => println!("{done}"),
                Err(error) => failed.push(error),
            }
        }
        // One that cannot be applied keeps no other from it, as with kubectl.
        if all > 1 && !failed.is_empty() {
            failed.iter().for_each(|error| note(format!("error: {}", sentence(error))));
            bail!("{} of {all} objects could not be applied", failed.len());
        }
        failed.pop().map_or(Ok(()), Err)
    }

    async fn any(&self, client: &kube::Client, catalog: &Catalog, object: Value) -> Result<String> {
        let resource = catalog.of(&object)?;
        let name = object["metadata"]["name"].as_str();
        let name = name.with_context(|| format!("a {} needs `metadata.name`", resource.kind))?.to_owned();
        let done = self.one(client, resource, &name, object).await;
        let done = done.with_context(|| format!("cannot apply {}", resource.label(&name)))?;
        Ok(format!("{} {done}", resource.label(&name)))
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
        if resource.namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let record = merge::record(&mut object);
        object["metadata"]["annotations"][LAST_APPLIED] = json!(record);
        let path = resource.object(&namespace, name);
        let live = match ask(client, request("GET", &path, "application/json", None)?).await? {
            Ok(live) => live,
            Err(error) if is_code(&error, 404) => {
                let path = format!(
                    "{}?fieldManager=hactl-apply&fieldValidation=Strict",
                    resource.collection(Some(&namespace))
                );
                let body = serde_json::to_vec(&object)?;
                told(client, request("POST", &path, "application/json", Some(("application/json", body)))?).await?;
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
        told(client, request("PATCH", &path, "application/json", content)?).await?;
        Ok("configured")
    }
}
