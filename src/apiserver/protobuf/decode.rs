//! The decoder: wire-level protobuf in, `serde_json::Value` out.

use base64::Engine as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Map, Value};

use super::scalar::scalar;
use super::schema::{Field, Message, Schema, Shape, Type};
use super::{DEPTH_MAX, MAGIC};

/// Why a body could not be decoded; the message is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the protobuf body is malformed: {0}")]
    Malformed(String),
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
}

impl Error {
    pub fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(why.into())
    }
}

/// A decoded body. `object` carries `apiVersion` and `kind` of its own.
#[derive(Debug)]
pub struct Decoded {
    pub object: Value,
}

/// Decodes a whole body, envelope included.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    envelope(body, 0).map(|decoded| decoded.object)
}

pub fn envelope(body: &[u8], depth: u32) -> Result<Decoded, Error> {
    let rest =
        body.strip_prefix(MAGIC).ok_or_else(|| Error::malformed("it does not begin with the Kubernetes magic"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(rest);
    while let Some((tag, wire)) = reader.next()? {
        match (tag, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader::new(meta);
                while let Some((tag, wire)) = meta.next()? {
                    match (tag, wire) {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(Error::malformed("an encoding of the inner object is not supported"));
            }
            (4, Wire::Bytes(kind)) if !kind.is_empty() && kind != b"application/vnd.kubernetes.protobuf" => {
                return Err(Error::malformed("the inner object is not protobuf"));
            }
            _ => {}
        }
    }
    let Some(message) = Schema::get().kind(&api_version, &kind) else {
        return Err(Error::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    fill(message, raw, &mut object, depth + 1)?;
    Ok(Decoded { object: Value::Object(object) })
}

fn utf8(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::malformed("a string is not UTF-8"))
}

/// One field's bytes as they stand on the wire.
pub enum Wire<'a> {
    Number(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Other,
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, wire) = decode_key(&mut self.rest).map_err(|e| Error::malformed(e.to_string()))?;
        let value = match wire {
            WireType::Varint => Wire::Number(self.varint()?),
            WireType::SixtyFourBit => {
                let bytes = self.take(8)?;
                Wire::Fixed64(bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
            }
            WireType::ThirtyTwoBit => self.take(4).map(|_| Wire::Other)?,
            WireType::LengthDelimited => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::malformed("a length is too large"))?;
                Wire::Bytes(self.take(length)?)
            }
            WireType::StartGroup | WireType::EndGroup => return Err(Error::malformed("groups are not used")),
        };
        Ok(Some((tag, value)))
    }

    fn varint(&mut self) -> Result<u64, Error> {
        decode_varint(&mut self.rest).map_err(|e| Error::malformed(e.to_string()))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, tail) =
            self.rest.split_at_checked(length).ok_or_else(|| Error::malformed("it ends inside a field"))?;
        self.rest = tail;
        Ok(head)
    }
}

/// Reads the fields of `message` into `out`. Unknown tags are skipped, as in every protobuf.
fn fill(message: &Message, bytes: &[u8], out: &mut Map<String, Value>, depth: u32) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::malformed("it is nested too deeply"));
    }
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        let Some(field) = message.field(tag) else { continue };
        match (field.shape, field.kind, wire) {
            (Shape::Inline, Type::Message(inner), Wire::Bytes(bytes)) => {
                fill(&Schema::get().messages[inner], bytes, out, depth + 1)?;
            }
            (Shape::Map, kind, Wire::Bytes(entry)) => {
                let (key, value) = map_entry(kind, entry, depth)?;
                if let Some(Value::Object(map)) =
                    Some(out.entry(field.name).or_insert_with(|| Value::Object(Map::new())))
                {
                    map.insert(key, value);
                }
            }
            (Shape::Repeated, kind, wire) => {
                let items = repeated(kind, wire, depth)?;
                if let Value::Array(array) = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) {
                    array.extend(items);
                }
            }
            (_, _, wire) => {
                if let Some(value) = single(field, wire, depth)? {
                    out.insert(field.name.into(), value);
                }
            }
        }
    }
    Ok(())
}

fn single(field: &Field, wire: Wire<'_>, depth: u32) -> Result<Option<Value>, Error> {
    let empty = match &wire {
        Wire::Bytes(bytes) => bytes.is_empty() && matches!(field.kind, Type::String) && field.shape != Shape::KeepEmpty,
        Wire::Number(number) => *number == 0 && field.shape == Shape::ZeroIsUnset,
        _ => false,
    };
    if empty { Ok(None) } else { value(field.kind, wire, depth) }
}

fn repeated(kind: Type, wire: Wire<'_>, depth: u32) -> Result<Vec<Value>, Error> {
    if let (Type::Integer, Wire::Bytes(packed)) = (kind, &wire) {
        let mut reader = Reader::new(packed);
        let mut out = Vec::new();
        while !reader.rest.is_empty() {
            out.push((reader.varint()? as i64).into());
        }
        return Ok(out);
    }
    Ok(value(kind, wire, depth)?.into_iter().collect())
}

fn map_entry(kind: Type, entry: &[u8], depth: u32) -> Result<(String, Value), Error> {
    let (mut key, mut found) = (String::new(), None);
    let mut reader = Reader::new(entry);
    while let Some((tag, wire)) = reader.next()? {
        match (tag, wire) {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => found = value(kind, wire, depth)?,
            _ => {}
        }
    }
    let absent = || match kind {
        Type::Message(_) => Value::Object(Map::new()),
        _ => Value::String(String::new()),
    };
    Ok((key, found.unwrap_or_else(absent)))
}

fn value(kind: Type, wire: Wire<'_>, depth: u32) -> Result<Option<Value>, Error> {
    Ok(Some(match (kind, wire) {
        (Type::String, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (Type::Bytes, Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        (Type::Integer, Wire::Number(number)) => (number as i64).into(),
        (Type::Bool, Wire::Number(number)) => (number != 0).into(),
        (Type::Double, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Type::Message(at), Wire::Bytes(bytes)) => return message(&Schema::get().messages[at], bytes, depth + 1),
        _ => return Err(Error::malformed("a field has the wrong wire type")),
    }))
}

fn message(message: &Message, bytes: &[u8], depth: u32) -> Result<Option<Value>, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::malformed("it is nested too deeply"));
    }
    if let Some(result) = scalar(message.name, bytes, depth) {
        return result;
    }
    let mut object = Map::new();
    fill(message, bytes, &mut object, depth)?;
    let take = |mut object: Map<String, Value>, name: &str| object.remove(name);
    Ok(match message.name {
        // Lists that Go names as types.
        "authentication/v1.ExtraValue"
        | "authorization/v1.ExtraValue"
        | "certificates/v1.ExtraValue"
        | "meta/v1.Verbs" => Some(take(object, "items").unwrap_or_else(|| Value::Array(Vec::new()))),
        // JSON schema's unions.
        "apiextensions/v1.JsonSchemaPropsOrBool" => {
            Some(object.remove("schema").unwrap_or_else(|| object.remove("allows").unwrap_or(Value::Bool(false))))
        }
        "apiextensions/v1.JsonSchemaPropsOrArray" | "apiextensions/v1.JsonSchemaPropsOrStringArray" => {
            let list = message.fields.last().map_or("", |field| field.name);
            object.remove("schema").or_else(|| object.remove(list))
        }
        _ => Some(Value::Object(object)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Writes one length-delimited field.
    fn put(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
        prost::encoding::encode_key(tag, WireType::LengthDelimited, out);
        prost::encoding::encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }

    fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let (mut meta, mut unknown) = (Vec::new(), MAGIC.to_vec());
        put(&mut meta, 1, api_version.as_bytes());
        put(&mut meta, 2, kind.as_bytes());
        put(&mut unknown, 1, &meta);
        put(&mut unknown, 2, raw);
        unknown
    }

    #[test]
    fn structs_of_k8s_pb_become_the_json_clients_send() {
        use k8s_pb::api::apps::v1 as apps;
        use k8s_pb::api::core::v1 as core;
        use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
        use k8s_pb::apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString};
        use prost::Message as _;

        let metadata = meta::ObjectMeta {
            name: Some("web".into()),
            namespace: Some(String::new()),
            generation: Some(0),
            creation_timestamp: Some(meta::Time::default()),
            labels: [("app".to_string(), "web".to_string()), ("empty".to_string(), String::new())].into(),
            ..Default::default()
        };
        let container = core::Container {
            name: Some("c".into()),
            image: Some("i:1".into()),
            tty: Some(false),
            resources: Some(core::ResourceRequirements {
                limits: [("cpu".to_string(), Quantity { string: Some("100m".into()) })].into(),
                ..Default::default()
            }),
            readiness_probe: Some(core::Probe {
                handler: Some(core::ProbeHandler {
                    http_get: Some(core::HttpGetAction {
                        path: Some("/".into()),
                        port: Some(IntOrString { r#type: Some(1), int_val: Some(0), str_val: Some("http".into()) }),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                period_seconds: Some(0),
                ..Default::default()
            }),
            ..Default::default()
        };
        let deployment = apps::Deployment {
            metadata: Some(metadata.clone()),
            spec: Some(apps::DeploymentSpec {
                replicas: Some(0),
                paused: Some(false),
                template: Some(core::PodTemplateSpec {
                    metadata: Some(meta::ObjectMeta::default()),
                    spec: Some(core::PodSpec {
                        containers: vec![container],
                        volumes: vec![core::Volume {
                            name: Some("v".into()),
                            volume_source: Some(core::VolumeSource {
                                empty_dir: Some(core::EmptyDirVolumeSource::default()),
                                ..Default::default()
                            }),
                        }],
                        enable_service_links: Some(false),
                        host_network: Some(false),
                        ..Default::default()
                    }),
                }),
                ..Default::default()
            }),
            status: Some(apps::DeploymentStatus::default()),
        };
        assert_eq!(
            decode(&wrap("apps/v1", "Deployment", &deployment.encode_to_vec())),
            Ok(json!({
                "kind": "Deployment", "apiVersion": "apps/v1",
                "metadata": {"name": "web", "labels": {"app": "web", "empty": ""}},
                "spec": {
                    "replicas": 0,
                    "template": {"metadata": {}, "spec": {
                        "volumes": [{"name": "v", "emptyDir": {}}],
                        "containers": [{
                            "name": "c", "image": "i:1",
                            "resources": {"limits": {"cpu": "100m"}},
                            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                        }],
                        "enableServiceLinks": false,
                    }},
                },
                "status": {},
            }))
        );

        let secret = core::Secret {
            metadata: Some(metadata),
            data: [("k".to_string(), vec![1, 2, 3])].into(),
            r#type: Some("Opaque".into()),
            ..Default::default()
        };
        let got = decode(&wrap("v1", "Secret", &secret.encode_to_vec())).unwrap_or_default();
        assert_eq!(got["data"], json!({"k": "AQID"}));
        let time = meta::Time { seconds: Some(1_700_000_000), nanos: Some(0) };
        let lease = k8s_pb::api::coordination::v1::Lease {
            spec: Some(k8s_pb::api::coordination::v1::LeaseSpec {
                renew_time: Some(meta::MicroTime { seconds: Some(1_700_000_000), nanos: Some(123_456_000) }),
                ..Default::default()
            }),
            metadata: Some(meta::ObjectMeta { creation_timestamp: Some(time), ..Default::default() }),
        };
        let got = decode(&wrap("coordination.k8s.io/v1", "Lease", &lease.encode_to_vec())).unwrap_or_default();
        assert_eq!(got["spec"]["renewTime"], "2023-11-14T22:13:20.123456Z");
        assert_eq!(got["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn options_come_under_any_group() {
        let mut raw = Vec::new();
        put(&mut raw, 4, b"Background");
        for version in ["v1", "apps/v1", "policy/v1"] {
            assert_eq!(
                decode(&wrap(version, "DeleteOptions", &raw)),
                Ok(json!({"kind": "DeleteOptions", "apiVersion": version, "propagationPolicy": "Background"}))
            );
        }
        assert_eq!(
            decode(&wrap("v1", "Nothing", &[])),
            Err(Error::UnknownKind { api_version: "v1".into(), kind: "Nothing".into() })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&wrap("v1", "Pod", &bytes));
            let _ = decode(&wrap("apiextensions.k8s.io/v1", "CustomResourceDefinition", &bytes));
            let _ = decode(&bytes);
        }
    }
}
