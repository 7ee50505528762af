//! The environment, command and arguments of a container as Kubernetes defines them. Pure.
//!
//! Not here: where ConfigMaps and Secrets come from (`Source`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use objects::quantity::Quantity;

/// What environment variables may refer to.
pub trait Source {
    fn config_map(&self, name: &str) -> Option<core::ConfigMap>;
    fn secret(&self, name: &str) -> Option<core::Secret>;
    /// Services whose addresses the pod gets as variables.
    fn services(&self) -> Vec<core::Service>;
}

/// Facts of the pod that are only known on its node.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub pod_ip: String,
    pub host_ip: String,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
}

/// Replaces `$(NAME)` by the variable; `$$` stands for `$`; an unknown name stays as it is.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("$(") {
            let Some(end) = after.find(')') else {
                out.push_str("$(");
                rest = after;
                continue;
            };
            match variables.get(&after[..end]) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[..end + 3]),
            }
            rest = &after[end + 1..];
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// All variables of a container, in the order they were given; an error is the message of CreateContainerConfigError.
pub fn variables(
    pod: &core::Pod,
    container: &core::Container,
    facts: &Facts,
    source: &dyn Source,
) -> Result<Vec<(String, String)>, String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |values: &mut BTreeMap<String, String>, name: String, value: String| {
        if values.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    for service in source.services() {
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        let api = service.metadata.namespace.as_deref() == Some("default")
            && service.metadata.name.as_deref() == Some("kubernetes");
        if api || (own && links) {
            for (name, value) in service_variables(&service) {
                set(&mut values, name, value);
            }
        }
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in whole_source(from, source)? {
            set(&mut values, format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &values)),
            (_, Some(from)) => one_source(pod, container, from, facts, source)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            set(&mut values, variable.name.clone(), value);
        }
    }
    Ok(order.into_iter().filter_map(|name| values.remove(&name).map(|value| (name, value))).collect())
}

fn text(bytes: &k8s_openapi::ByteString) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

fn whole_source(from: &core::EnvFromSource, source: &dyn Source) -> Result<Vec<(String, String)>, String> {
    if let Some(reference) = &from.config_map_ref {
        return match source.config_map(&reference.name) {
            Some(map) => Ok(map.data.unwrap_or_default().into_iter().collect()),
            None if reference.optional == Some(true) => Ok(Vec::new()),
            None => Err(format!("configmap {:?} not found", reference.name)),
        };
    }
    if let Some(reference) = &from.secret_ref {
        return match source.secret(&reference.name) {
            Some(secret) => {
                Ok(secret.data.unwrap_or_default().iter().map(|(key, value)| (key.clone(), text(value))).collect())
            }
            None if reference.optional == Some(true) => Ok(Vec::new()),
            None => Err(format!("secret {:?} not found", reference.name)),
        };
    }
    Ok(Vec::new())
}

fn one_source(
    pod: &core::Pod,
    container: &core::Container,
    from: &core::EnvVarSource,
    facts: &Facts,
    source: &dyn Source,
) -> Result<Option<String>, String> {
    if let Some(reference) = &from.field_ref {
        return field(pod, &reference.field_path, facts).map(Some);
    }
    if let Some(reference) = &from.resource_field_ref {
        return resource(container, reference, facts).map(Some);
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = source.config_map(&reference.name) else {
            return if optional { Ok(None) } else { Err(format!("configmap {:?} not found", reference.name)) };
        };
        return match map.data.unwrap_or_default().remove(&reference.key) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name)),
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = source.secret(&reference.name) else {
            return if optional { Ok(None) } else { Err(format!("secret {:?} not found", reference.name)) };
        };
        return match secret.data.unwrap_or_default().get(&reference.key) {
            Some(value) => Ok(Some(text(value))),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name)),
        };
    }
    Ok(Some(String::new()))
}

/// The value of a field reference.
pub fn field(pod: &core::Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let keyed = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
    if let Some(key) = keyed("metadata.labels['") {
        return Ok(pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations['") {
        return Ok(pod.metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => pod.metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => pod.metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => pod.metadata.uid.clone().unwrap_or_default(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// The value of a resource field reference, in units of its divisor, rounded up.
fn resource(
    container: &core::Container,
    reference: &core::ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let resources = container.resources.clone().unwrap_or_default();
    let (kind, name) =
        reference.resource.split_once('.').ok_or_else(|| format!("unsupported resource {}", reference.resource))?;
    let stated = if kind == "limits" { resources.limits } else { resources.requests };
    let milli = match stated.and_then(|all| all.get(name).map(|q| Quantity::parse(&q.0))) {
        Some(parsed) => parsed?.milli(),
        None if kind == "limits" && name == "cpu" => i128::from(facts.cpu_millis),
        None if kind == "limits" && name == "memory" => i128::from(facts.memory_bytes) * 1000,
        None => 0,
    };
    let divisor = match reference.divisor.as_ref().map(|q| Quantity::parse(&q.0)) {
        Some(Ok(divisor)) if divisor.milli() > 0 => divisor.milli(),
        _ => 1000,
    };
    Ok(((milli + divisor - 1) / divisor).to_string())
}

/// `NAME_SERVICE_HOST` and its older relatives; nothing for a headless Service.
fn service_variables(service: &core::Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return Vec::new(),
        Some(ip) => ip,
    };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let mut out = vec![(format!("{name}_SERVICE_HOST"), ip.to_owned())];
    let ports = spec.ports.as_deref().unwrap_or_default();
    for (at, port) in ports.iter().enumerate() {
        if at == 0 {
            out.push((format!("{name}_SERVICE_PORT"), port.port.to_string()));
        }
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            out.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    for (at, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if at == 0 {
            out.push((format!("{name}_PORT"), url.clone()));
        }
        let base = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.push((base.clone(), url));
        out.push((format!("{base}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{base}_PORT"), port.port.to_string()));
        out.push((format!("{base}_ADDR"), ip.to_owned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (given, expect) in [
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(B)", "$(A)"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(given, &variables), expect, "{given}");
        }
    }

    struct Fixed;
    impl Source for Fixed {
        fn config_map(&self, name: &str) -> Option<core::ConfigMap> {
            (name == "settings").then(|| core::ConfigMap {
                data: Some(BTreeMap::from([("colour".to_owned(), "blue".to_owned())])),
                ..Default::default()
            })
        }
        fn secret(&self, name: &str) -> Option<core::Secret> {
            (name == "keys").then(|| core::Secret {
                data: Some(BTreeMap::from([("key".to_owned(), k8s_openapi::ByteString(b"s3".to_vec()))])),
                ..Default::default()
            })
        }
        fn services(&self) -> Vec<core::Service> {
            serde_json::from_value(serde_json::json!([{
                "metadata": {"name": "my-db", "namespace": "shop"},
                "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 5432, "name": "sql"}]}
            }]))
            .expect("a service")
        }
    }

    fn check(env: serde_json::Value, env_from: serde_json::Value, expect: Result<&[(&str, &str)], &str>) {
        let pod: core::Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"enableServiceLinks": false, "nodeName": "n1", "containers": [{"name": "c", "image": "i",
                "resources": {"limits": {"memory": "64Mi"}}, "env": env, "envFrom": env_from}]}
        }))
        .expect("a pod");
        let facts = Facts {
            pod_ip: "10.1.0.5".to_owned(),
            host_ip: "192.0.2.1".to_owned(),
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
        };
        let container = &pod.spec.as_ref().expect("spec").containers[0];
        let got = variables(&pod, container, &facts, &Fixed);
        let got = got
            .as_ref()
            .map(|all| all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>())
            .map_err(String::as_str);
        assert_eq!(got, expect.map(<[_]>::to_vec));
    }

    #[test]
    fn sources() {
        use serde_json::json;
        check(
            json!([{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}]),
            json!([]),
            Ok(&[("A", "1"), ("B", "12")]),
        );
        check(
            json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                   {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]),
            json!([]),
            Ok(&[("IP", "10.1.0.5"), ("APP", "web")]),
        );
        check(
            json!([{"name": "K", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}}]),
            json!([{"prefix": "X_", "configMapRef": {"name": "settings"}}]),
            Ok(&[("X_colour", "blue"), ("K", "s3")]),
        );
        check(
            json!([{"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                   {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]),
            json!([]),
            Ok(&[("M", "64"), ("C", "2")]),
        );
        check(
            json!([{"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}}]),
            json!([]),
            Ok(&[]),
        );
        check(json!([]), json!([{"secretRef": {"name": "none"}}]), Err("secret \"none\" not found"));
        check(
            json!([{"name": "O", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}]),
            json!([]),
            Err("couldn't find key k in ConfigMap shop/settings"),
        );
    }

    #[test]
    fn services_become_variables() {
        let variables = service_variables(&Fixed.services()[0]);
        let find = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(find("MY_DB_SERVICE_HOST"), Some("10.96.0.7"));
        assert_eq!(find("MY_DB_SERVICE_PORT_SQL"), Some("5432"));
        assert_eq!(find("MY_DB_PORT_5432_TCP"), Some("tcp://10.96.0.7:5432"));
    }
}
