//! What a pod spec must say, field by field, with Kubernetes' messages. The same for a pod and for a template.

use serde_json::Value;

use super::unsupported;
use crate::quantity::Quantity;
use crate::{At, Errors, Reason, names};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const FILE_MODE_MAX: i64 = 0o777;

fn each(at: &At<'_>, messages: Vec<String>, errors: &mut Errors) {
    errors.extend(messages.into_iter().map(|message| at.invalid(message)));
}

/// Validates a pod's or template's spec, and refuses what the kubelet does not honour.
pub(in crate::kinds) fn validate_spec(spec: &At<'_>, errors: &mut Errors) {
    volumes(&spec.field("volumes"), errors);
    containers(spec, errors);
    spec.field("restartPolicy").one_of(&["Always", "OnFailure", "Never"], true, errors);
    spec.field("dnsPolicy").one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], true, errors);
    spec.field("preemptionPolicy").one_of(&["Never", "PreemptLowerPriority"], false, errors);
    spec.field("terminationGracePeriodSeconds").non_negative(errors);
    names::check_labels(&spec.field("nodeSelector"), errors);
    for (field, check) in [
        ("nodeName", names::subdomain as fn(&str) -> Vec<String>),
        ("serviceAccountName", names::subdomain),
        ("hostname", names::label),
        ("priorityClassName", names::subdomain),
    ] {
        let at = spec.field(field);
        if !at.is_empty() {
            each(&at, check(at.text()), errors);
        }
    }
    for toleration in spec.field("tolerations").items() {
        validate_toleration(&toleration, errors);
    }
    unsupported::validate(spec, errors);
}

fn validate_toleration(toleration: &At<'_>, errors: &mut Errors) {
    let (key, operator, effect) = (toleration.field("key"), toleration.field("operator"), toleration.field("effect"));
    if !key.is_empty() {
        each(&key, names::qualified_name(key.text()), errors);
    } else if operator.text() != "Exists" {
        errors.push(
            operator
                .invalid("operator must be Exists when `key` is empty, which means \"match all values and all keys\""),
        );
    }
    let value = toleration.field("value");
    match operator.text() {
        "" | "Equal" => each(&value, names::label_value(value.text()), errors),
        "Exists" if !value.is_empty() => {
            errors.push(operator.invalid("value must be empty when `operator` is 'Exists'"))
        }
        "Exists" => {}
        _ => errors.push(operator.unsupported(&["Equal", "Exists"])),
    }
    effect.one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], false, errors);
    if toleration.field("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
        errors.push(effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set"));
    }
}

/// A name that is a label, and no other item's of the same list.
fn unique_name<'a>(item: &At<'a>, seen: &mut Vec<&'a str>, errors: &mut Errors) {
    let name = item.field("name");
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    each(&name, names::label(name.text()), errors);
    if seen.contains(&name.text()) {
        errors.push(name.duplicate(name.text()));
    }
    seen.push(name.text());
}

fn volumes(volumes: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for volume in volumes.items() {
        unique_name(&volume, &mut seen, errors);
        let sources: Vec<At<'_>> = volume
            .value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != "name")
            .map(|(key, _)| volume.field(key))
            .collect();
        for extra in sources.iter().skip(1) {
            errors.push(extra.forbidden("may not specify more than 1 volume type"));
        }
        if let Some(source) = sources.first() {
            validate_source(source, errors);
        }
    }
}

fn validate_source(source: &At<'_>, errors: &mut Errors) {
    let kind = source.path.rsplit('.').next().unwrap_or("").to_owned();
    match kind.as_str() {
        "hostPath" => {
            let path = source.field("path");
            if path.is_empty() {
                errors.push(path.required(""));
            }
            no_backsteps(&path, errors);
            let kind = source.field("type");
            if !HOST_PATH_TYPES.contains(&kind.text()) {
                errors.push(kind.unsupported(HOST_PATH_TYPES));
            }
        }
        "emptyDir" => {
            source.field("medium").one_of(&["Memory"], false, errors);
            let limit = source.field("sizeLimit");
            if limit.is_set() {
                quantity(&limit, errors);
            }
        }
        "configMap" | "secret" => {
            let name = source.field(if kind == "secret" { "secretName" } else { "name" });
            if name.is_empty() {
                errors.push(name.required(""));
            }
            file_mode(&source.field("defaultMode"), errors);
            for item in source.field("items").items() {
                let (key, path) = (item.field("key"), item.field("path"));
                if key.is_empty() {
                    errors.push(key.required(""));
                }
                if path.is_empty() {
                    errors.push(path.required(""));
                } else if path.text().starts_with('/') {
                    errors.push(path.invalid("must be a relative path"));
                }
                no_backsteps(&path, errors);
                file_mode(&item.field("mode"), errors);
            }
        }
        _ => {}
    }
}

fn no_backsteps(path: &At<'_>, errors: &mut Errors) {
    if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

fn file_mode(mode: &At<'_>, errors: &mut Errors) {
    if mode.int().is_some_and(|mode| !(0..=FILE_MODE_MAX).contains(&mode)) {
        errors.push(mode.invalid("must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

fn quantity(at: &At<'_>, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::parse(at.text()) {
        Ok(quantity) if quantity.is_negative() => {
            errors.push(at.invalid("must be greater than or equal to 0"));
            None
        }
        Ok(quantity) => Some(quantity),
        Err(message) => {
            errors.push(at.invalid(message));
            None
        }
    }
}

fn containers(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.field("containers");
    if list.is_empty() {
        errors.push(list.required(""));
    }
    let volumes = spec.field("volumes");
    let known: Vec<&str> = volumes.items().map(|volume| volume.field("name").value.as_str().unwrap_or("")).collect();
    let mut seen: Vec<&str> = Vec::new();
    let mut host_ports: Vec<String> = Vec::new();
    for container in list.items() {
        unique_name(&container, &mut seen, errors);
        validate_container(&container, &known, errors);
        unique_host_ports(&container.field("ports"), &mut host_ports, errors);
    }
}

fn validate_container(container: &At<'_>, volumes: &[&str], errors: &mut Errors) {
    let image = container.field("image");
    if image.is_empty() {
        errors.push(image.required(""));
    } else if image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
    container.field("imagePullPolicy").one_of(&["Always", "IfNotPresent", "Never"], true, errors);
    container.field("terminationMessagePolicy").one_of(&["FallbackToLogsOnError", "File"], true, errors);
    ports(&container.field("ports"), errors);
    environment(container, errors);
    mounts(&container.field("volumeMounts"), volumes, errors);
    resources(&container.field("resources"), errors);
    for field in ["livenessProbe", "readinessProbe"] {
        let probe = container.field(field);
        if probe.is_set() {
            validate_probe(&probe, errors);
        }
    }
    let threshold = container.fields(&["livenessProbe", "successThreshold"]);
    if threshold.int().is_some_and(|n| n != 1) {
        errors.push(threshold.invalid("must be 1"));
    }
}

fn ports(ports: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            each(&name, names::port_name(name.text()), errors);
            if seen.contains(&name.text()) {
                errors.push(name.duplicate(name.text()));
            }
            seen.push(name.text());
        }
        let number = port.field("containerPort");
        match number.int().unwrap_or(0) {
            0 => errors.push(number.required("")),
            n => each(&number, names::port(n), errors),
        }
        let host = port.field("hostPort");
        if let Some(n) = host.int().filter(|n| *n != 0) {
            each(&host, names::port(n), errors);
        }
        port.field("protocol").one_of(PROTOCOLS, true, errors);
    }
}

fn unique_host_ports(ports: &At<'_>, seen: &mut Vec<String>, errors: &mut Errors) {
    for port in ports.items() {
        let host = port.field("hostPort");
        let Some(number) = host.int().filter(|n| *n != 0) else { continue };
        let key = format!("{}/{}/{number}", port.field("protocol").text(), port.field("hostIP").text());
        if seen.contains(&key) {
            errors.push(host.duplicate(key.as_str()));
        }
        seen.push(key);
    }
}

fn environment(container: &At<'_>, errors: &mut Errors) {
    for variable in container.field("env").items() {
        let name = variable.field("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            each(&name, names::env_name(name.text()), errors);
        }
        let source = variable.field("valueFrom");
        if !source.is_set() {
            continue;
        }
        if !variable.field("value").is_empty() {
            errors.push(source.invalid_value("", "may not be specified when `value` is not empty"));
        }
        match source.len() {
            0 => errors.push(source.invalid_value(
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            )),
            1 => {}
            _ => errors.push(source.invalid_value("", "may not have more than one field specified at a time")),
        }
        field_reference(&source.field("fieldRef"), errors);
        for field in ["configMapKeyRef", "secretKeyRef"] {
            let reference = source.field(field);
            if reference.is_set() {
                key_reference(&reference, errors);
            }
        }
    }
    for source in container.field("envFrom").items() {
        let given: Vec<At<'_>> =
            ["configMapRef", "secretRef"].into_iter().map(|f| source.field(f)).filter(At::is_set).collect();
        match given.as_slice() {
            [] => errors.push(source.invalid_value("", "must specify one of: `configMapRef` or `secretRef`")),
            [one] => {
                if one.field("name").is_empty() {
                    errors.push(one.field("name").required(""));
                }
            }
            _ => errors.push(source.invalid_value("", "may not have more than one field specified at a time")),
        }
        let prefix = source.field("prefix");
        if !prefix.is_empty() {
            each(&prefix, names::env_name(prefix.text()), errors);
        }
    }
}

fn field_reference(reference: &At<'_>, errors: &mut Errors) {
    if !reference.is_set() {
        return;
    }
    let path = reference.field("fieldPath");
    let text = path.text();
    let keyed = |map: &str| {
        text.strip_prefix(map).and_then(|rest| rest.strip_prefix("['")).and_then(|rest| rest.strip_suffix("']"))
    };
    if text.is_empty() {
        errors.push(path.required(""));
    } else if let Some(key) = keyed("metadata.labels").or_else(|| keyed("metadata.annotations")) {
        each(&path, names::qualified_name(&key.to_ascii_lowercase()), errors);
    } else if text == "metadata.labels" || text == "metadata.annotations" {
        errors.push(path.unsupported(ENV_FIELDS));
    } else if !ENV_FIELDS.contains(&text) {
        errors.push(path.invalid(format!("error converting fieldPath: field label not supported: {text}")));
    }
}

fn key_reference(reference: &At<'_>, errors: &mut Errors) {
    let (name, key) = (reference.field("name"), reference.field("key"));
    if name.is_empty() {
        errors.push(name.required(""));
    }
    if key.is_empty() {
        errors.push(key.required(""));
    } else {
        each(&key, names::config_key(key.text()), errors);
    }
}

fn mounts(mounts: &At<'_>, volumes: &[&str], errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for mount in mounts.items() {
        let name = mount.field("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !volumes.contains(&name.text()) {
            errors.push(name.error(Reason::NotFound, "").with_value(name.text().into()));
        }
        let path = mount.field("mountPath");
        if path.is_empty() {
            errors.push(path.required(""));
        }
        if seen.contains(&path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        seen.push(path.text());
    }
}

fn resources(resources: &At<'_>, errors: &mut Errors) {
    let limits = resources.field("limits");
    for (name, limit) in limits.entries() {
        resource_name(&limits, name, errors);
        quantity(&limit, errors);
    }
    let requests = resources.field("requests");
    for (name, request) in requests.entries() {
        resource_name(&requests, name, errors);
        let amount = quantity(&request, errors);
        let limit = limits.value.get(name).and_then(Value::as_str).unwrap_or("");
        if let (Some(amount), Ok(limit_amount)) = (amount, Quantity::parse(limit))
            && amount > limit_amount
        {
            let at = At::new(requests.path.clone(), request.value);
            errors.push(at.invalid(format!("must be less than or equal to {name} limit of {limit}")));
        }
    }
}

fn resource_name(at: &At<'_>, name: &str, errors: &mut Errors) {
    let key = at.key(name);
    for message in names::qualified_name(name) {
        errors.push(key.invalid_value(name, message));
    }
    let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.push(key.invalid_value(name, "must be a standard resource for containers"));
    }
}

fn validate_probe(probe: &At<'_>, errors: &mut Errors) {
    let handlers: Vec<At<'_>> =
        ["exec", "httpGet", "tcpSocket", "grpc"].into_iter().map(|h| probe.field(h)).filter(At::is_set).collect();
    if handlers.is_empty() {
        errors.push(probe.required("must specify a handler type"));
    }
    for extra in handlers.iter().skip(1) {
        errors.push(extra.forbidden("may not specify more than 1 handler type"));
    }
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.field(field).non_negative(errors);
    }
    let (exec, get, socket) = (probe.field("exec"), probe.field("httpGet"), probe.field("tcpSocket"));
    if exec.is_set() && exec.field("command").is_empty() {
        errors.push(exec.field("command").required(""));
    }
    if get.is_set() {
        if get.field("path").is_empty() {
            errors.push(get.field("path").required(""));
        }
        probe_port(&get.field("port"), errors);
        get.field("scheme").one_of(&["HTTP", "HTTPS"], true, errors);
        for header in get.field("httpHeaders").items() {
            let name = header.field("name");
            let text = name.text();
            if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)) {
                errors.push(name.invalid(
                    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
                ));
            }
        }
    }
    if socket.is_set() {
        probe_port(&socket.field("port"), errors);
    }
}

fn probe_port(port: &At<'_>, errors: &mut Errors) {
    match port.value {
        Value::String(name) => each(port, names::port_name(name), errors),
        Value::Number(_) => each(port, names::port(port.int().unwrap_or(0)), errors),
        _ => errors.push(port.invalid_value(0, "must be between 1 and 65535, inclusive")),
    }
}
