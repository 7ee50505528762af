//! `hactl expose`: a service in front of what a deployment, a pod or another service selects.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::discovery::Catalog;
use super::making::Making;
use super::{Scope, read};

/// Make a service for the pods of a deployment, a pod or another service
#[derive(Debug, clap::Args)]
pub struct Expose {
    /// What to expose: `deployment/web`, `deployment web`
    #[arg(required = true, value_name = "RESOURCE NAME")]
    what: Vec<String>,
    /// The port of the service [default: those of the containers]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The port of the containers, by number or name [default: that of the service]
    #[arg(long, value_name = "PORT")]
    target_port: Option<String>,
    #[arg(long, value_parser = ["TCP", "UDP", "SCTP"], ignore_case = true, default_value = "TCP")]
    protocol: String,
    /// The service's name [default: that of what is exposed]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[arg(long = "type", value_name = "TYPE", value_parser = ["ClusterIP", "NodePort", "LoadBalancer"])]
    kind: Option<String>,
    /// The service's address; `None` makes it headless
    #[arg(long, value_name = "ADDRESS")]
    cluster_ip: Option<String>,
    /// Which pods [default: those of what is exposed]
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// The service's labels [default: those of what is exposed]
    #[arg(short, long, value_name = "LABELS")]
    labels: Option<String>,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    scope: Scope,
}

impl Expose {
    pub async fn run(self) -> Result<()> {
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let namespace = self.scope.namespace(&client).to_owned();
        let (resource, name) = catalog.object(&self.what)?;
        let label = resource.label(name);
        let object = read(&client, &resource.object(&namespace, name)).await;
        let object = object.with_context(|| format!("cannot expose {label}"))?;
        let service = self.service(&resource.plural, &object, &namespace);
        let service = service.with_context(|| format!("cannot expose {label}"))?;
        let made = self.making.make(&client, catalog.named("services")?, &namespace, service, "exposed").await;
        made.with_context(|| format!("cannot expose {label}"))
    }

    fn service(&self, plural: &str, object: &Value, namespace: &str) -> Result<Value> {
        let selector = match &self.selector {
            Some(text) => pairs(text)?,
            None => selector(plural, object)?,
        };
        let labels = match &self.labels {
            Some(text) => pairs(text)?,
            None => object["metadata"]["labels"].as_object().cloned().unwrap_or_default(),
        };
        let ports = match self.port {
            Some(port) => vec![json!({"protocol": self.protocol.to_uppercase(), "port": port})],
            None => ports(plural, object)?,
        };
        let several = ports.len() > 1;
        let ports = ports.into_iter().enumerate().map(|(at, mut port)| {
            port["targetPort"] = match &self.target_port {
                Some(target) => target.parse::<u16>().map_or_else(|_| json!(target), |number| json!(number)),
                None => port["port"].clone(),
            };
            if several {
                port["name"] = json!(format!("port-{}", at + 1));
            }
            port
        });
        let name = self.name.as_deref().or_else(|| object["metadata"]["name"].as_str()).unwrap_or_default();
        let mut spec = json!({"ports": ports.collect::<Vec<_>>(), "selector": selector});
        if let Some(kind) = &self.kind {
            spec["type"] = json!(kind);
        }
        if let Some(address) = &self.cluster_ip {
            spec["clusterIP"] = json!(address);
        }
        let mut metadata = json!({"name": name, "namespace": namespace});
        if !labels.is_empty() {
            metadata["labels"] = labels.into();
        }
        Ok(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
    }
}

fn pairs(text: &str) -> Result<Map<String, Value>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').with_context(|| format!("`{pair}` is not key=value"))?;
        Ok((key.trim().to_owned(), json!(value.trim())))
    };
    text.split(',').map(pair).collect()
}

/// The labels by which the object's pods are found.
fn selector(plural: &str, object: &Value) -> Result<Map<String, Value>> {
    let found = match plural {
        "pods" => &object["metadata"]["labels"],
        "services" | "replicationcontrollers" => &object["spec"]["selector"],
        _ if object["spec"]["selector"]["matchExpressions"].as_array().is_some_and(|some| !some.is_empty()) => {
            bail!("a service selects by labels that are equal, and this selects by expressions; give --selector")
        }
        _ => &object["spec"]["selector"]["matchLabels"],
    };
    match found.as_object().filter(|labels| !labels.is_empty()) {
        Some(labels) => Ok(labels.clone()),
        None => bail!("it selects no pods by labels; give --selector"),
    }
}

fn ports(plural: &str, object: &Value) -> Result<Vec<Value>> {
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_owned();
    let found: Vec<Value> = if plural == "services" {
        let ports = object["spec"]["ports"].as_array().into_iter().flatten();
        ports.map(|port| json!({"protocol": protocol(port), "port": port["port"]})).collect()
    } else {
        let spec = if plural == "pods" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
        let containers = spec["containers"].as_array().into_iter().flatten();
        let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
        ports.map(|port| json!({"protocol": protocol(port), "port": port["containerPort"]})).collect()
    };
    anyhow::ensure!(!found.is_empty(), "its containers name no port; give --port");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        expose: Expose,
    }

    fn service(line: &str, plural: &str, object: &Value) -> Result<Value, String> {
        let words = ["expose", "deploy/web"].into_iter().chain(line.split_whitespace());
        let expose = Line::try_parse_from(words).map_err(|error| error.to_string())?.expose;
        expose.service(plural, object, "default").map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_service_is_made_of() {
        let container = |ports: Value| json!({"containers": [{"name": "c", "ports": ports}]});
        let deployment = |ports: Value| {
            json!({
                "metadata": {"name": "web", "labels": {"tier": "front"}},
                "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": container(ports)}},
            })
        };
        let plain = deployment(json!([]));
        let made = service("--port 80 --target-port http --type NodePort", "deployments", &plain).expect("a service");
        assert_eq!(made["metadata"], json!({"name": "web", "namespace": "default", "labels": {"tier": "front"}}));
        assert_eq!(
            made["spec"],
            json!({
                "ports": [{"protocol": "TCP", "port": 80, "targetPort": "http"}],
                "selector": {"app": "web"}, "type": "NodePort",
            })
        );
        assert!(service("", "deployments", &plain).expect_err("no port").contains("--port"));
        let two = deployment(json!([{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]));
        let made = service("--name other --selector a=b -l c=d", "deployments", &two).expect("a service");
        assert_eq!(made["metadata"], json!({"name": "other", "namespace": "default", "labels": {"c": "d"}}));
        assert_eq!(made["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(
            made["spec"]["ports"],
            json!([
                {"protocol": "TCP", "port": 80, "targetPort": 80, "name": "port-1"},
                {"protocol": "UDP", "port": 53, "targetPort": 53, "name": "port-2"},
            ])
        );
        let pod = json!({"metadata": {"name": "p"}, "spec": container(json!([]))});
        assert!(service("--port 80", "pods", &pod).expect_err("no labels").contains("--selector"));
    }
}
