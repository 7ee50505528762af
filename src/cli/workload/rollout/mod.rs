//! `hactl rollout …`: a deployment from one template to the next, and back.
//!
//! ```text
//!   status   follow it to its end          history, undo   (history)   the replica sets that earlier templates left
//!   restart, pause, resume   one field each
//! ```

mod history;
mod status;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::discovery::{Catalog, Resource};
use super::{Scope, read, send};

const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

#[derive(Debug, clap::Subcommand)]
pub enum Rollout {
    Status(status::Status),
    History(history::History),
    Undo(history::Undo),
    /// Replace all pods by new ones of the same template
    Restart(Plain),
    /// Let changes of the template wait
    Pause(Plain),
    /// Let changes of the template take effect again
    Resume(Plain),
}

/// What a step is of.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// `deployment/web`, `deployment web`
    #[arg(required = true, value_name = "RESOURCE NAME")]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Debug, clap::Args)]
pub struct Plain {
    #[command(flatten)]
    target: Target,
}

/// Objects on the server.
struct Found {
    client: kube::Client,
    namespace: String,
    catalog: Catalog,
}

impl Rollout {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Status(verb) => verb.run().await,
            Self::History(verb) => verb.run().await,
            Self::Undo(verb) => verb.run().await,
            Self::Restart(plain) => plain.each("restarted", restart).await,
            Self::Pause(plain) => plain.each("paused", |object| pause(object, true)).await,
            Self::Resume(plain) => plain.each("resumed", |object| pause(object, false)).await,
        }
    }
}

impl Target {
    async fn find(&self) -> Result<Found> {
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let namespace = self.scope.namespace(&client).to_owned();
        Ok(Found { client, namespace, catalog })
    }
}

impl Found {
    fn deployment<'a>(&self, what: &'a [String]) -> Result<(&Resource, &'a str)> {
        let (resource, name) = self.catalog.object(what)?;
        if (resource.group.as_str(), resource.plural.as_str()) != ("apps", "deployments") {
            bail!("{}: that is there for deployments only", resource.label(name));
        }
        Ok((resource, name))
    }

    async fn get(&self, resource: &Resource, name: &str) -> Result<Value> {
        read(&self.client, &resource.object(&self.namespace, name)).await
    }

    async fn patch(&self, resource: &Resource, name: &str, kind: &str, patch: &Value) -> Result<Value> {
        let path = format!("{}?fieldManager=hactl-rollout", resource.object(&self.namespace, name));
        send(&self.client, "PATCH", &path, &format!("application/{kind}"), patch).await
    }
}

impl Plain {
    /// Changes each object by the patch that fits it.
    async fn each(self, done: &str, patch: impl Fn(&Value) -> Result<Value>) -> Result<()> {
        let found = self.target.find().await?;
        for (resource, name) in found.catalog.objects(&self.target.what)? {
            let label = resource.label(name);
            if !["deployments", "daemonsets", "statefulsets"].contains(&resource.plural.as_str()) {
                bail!("{label} has no rollout");
            }
            let changed = async {
                let patch = patch(&found.get(resource, name).await?)?;
                found.patch(resource, name, "strategic-merge-patch+json", &patch).await
            };
            changed.await.with_context(|| format!("{label} is not {done}"))?;
            println!("{label} {done}");
        }
        Ok(())
    }
}

fn is_paused(object: &Value) -> bool {
    object["spec"]["paused"].as_bool().unwrap_or(false)
}

fn restart(object: &Value) -> Result<Value> {
    anyhow::ensure!(!is_paused(object), "it is paused; `hactl rollout resume` it first");
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())?.to_string();
    Ok(json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED: now}}}}}))
}

fn pause(object: &Value, pause: bool) -> Result<Value> {
    anyhow::ensure!(object["kind"] == "Deployment", "only a deployment can be paused");
    anyhow::ensure!(is_paused(object) != pause, if pause { "it is paused already" } else { "it is not paused" });
    Ok(json!({"spec": {"paused": pause}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_said() {
        let paused = json!({"kind": "Deployment", "spec": {"paused": true}});
        let running = json!({"kind": "Deployment", "spec": {}});
        let said = |result: Result<Value>| result.map_err(|error| error.to_string());
        assert_eq!(said(pause(&paused, true)), Err("it is paused already".to_owned()));
        assert_eq!(said(pause(&running, false)), Err("it is not paused".to_owned()));
        assert_eq!(said(pause(&running, true)), Ok(json!({"spec": {"paused": true}})));
        assert!(restart(&paused).is_err());
        let time =
            restart(&running).expect("a patch")["spec"]["template"]["metadata"]["annotations"][RESTARTED].clone();
        assert!(time.as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()), "{time}");
    }
}
