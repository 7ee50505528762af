//! How a verb that makes an object says what it made, or would make.

use anyhow::Result;
use serde_json::Value;

use super::discovery::Resource;
use super::get::print_objects;
use super::send;

#[derive(Debug, clap::Args)]
pub struct Making {
    /// `client` only prints what would be sent, `server` lets the server check it and keeps nothing
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "none",
        num_args = 0..=1,
        default_missing_value = "client",
        require_equals = true,
        value_parser = ["none", "client", "server"]
    )]
    dry_run: String,
    /// Print the object instead
    #[arg(short, long, value_parser = ["json", "yaml", "name"])]
    output: Option<String>,
}

impl Making {
    /// Makes the object and says so.
    pub async fn make(
        &self,
        client: &kube::Client,
        resource: &Resource,
        namespace: &str,
        object: Value,
        done: &str,
    ) -> Result<()> {
        let label = resource.label(object["metadata"]["name"].as_str().unwrap_or_default());
        let made = if self.dry_run == "client" {
            object
        } else {
            let mut path = format!("{}?fieldManager=hactl-create", resource.collection(Some(namespace)));
            if self.dry_run == "server" {
                path.push_str("&dryRun=All");
            }
            send(client, "POST", &path, "application/json", &object).await?
        };
        let suffix = match self.dry_run.as_str() {
            "client" => " (dry run)",
            "server" => " (server dry run)",
            _ => "",
        };
        match self.output.as_deref() {
            Some("name") => println!("{label}"),
            Some(format) => print_objects(format, vec![made], false)?,
            None => println!("{label} {done}{suffix}"),
        }
        Ok(())
    }
}
