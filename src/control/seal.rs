//! Secrets at rest. What a Secret holds is sealed before it is proposed, so that the log, the state, its history and its
//! snapshots carry ciphertext alone, and opened only where it is served.
//!
//! ```text
//! {"apiVersion":"v1","kind":"Secret","metadata":{"name":…,"labels":…},"type":…,
//!  "sealed":{"key":"1f0c…","blob":"base64 of the ciphertext of {"annotations":…,"data":…,"immutable":…}"}}
//! ```
//!
//! Metadata but annotations stays readable: controllers and the garbage collector work on sealed Secrets as they are, and
//! what they write back keeps the blob. Annotations are sealed because `kubectl apply` keeps a copy of the data there. The
//! header's field [`KEY`] names the key, so that rotation finds what is left to do without parsing.
//!
//! The cipher is the caller's: this crate draws no randomness. A [`Sealer`] must give equal blobs for equal text in one
//! place, or writing an object again would count as a change.
//!
//! **Invariant:** `open(seal(object))` is the object; a sealed object that is sealed again is itself.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::{Kind, Kinds, meta};
use serde_json::{Map, Value, json};
use state::{Key, Put, Record};

use crate::record;

/// The field of a header that names the key the body is sealed with.
pub const KEY: &str = "hactl.io/sealed";
/// The member that holds key and blob.
const SEALED: &str = "sealed";

/// Seals and opens with the cluster's keys.
pub trait Sealer: std::fmt::Debug + Send + Sync {
    /// The id of the key and the blob; `None` while the cluster has no key. `place` is bound into the blob: it opens nowhere
    /// else.
    ///
    /// # Errors
    /// When the key that the cluster seals with is not at hand.
    fn seal(&self, place: &str, plain: &[u8]) -> Result<Option<(String, Vec<u8>)>, String>;

    /// # Errors
    /// When the key is not at hand, or the blob is damaged or of another place.
    fn open(&self, key: &str, place: &str, blob: &[u8]) -> Result<Vec<u8>, String>;
}

/// Whether objects at this key are sealed.
pub fn concerns(key: &Key) -> bool {
    key.group.is_empty() && key.resource == "secrets"
}

/// The key a record is sealed with; `None` when it is not.
pub fn key_of(record: &Record) -> Option<&str> {
    record.header.fields.get(KEY)
}

/// Seals a Put, if it is of a kind that is.
///
/// # Errors
/// [`Sealer::seal`]'s.
pub fn seal_put(put: Put, sealer: &dyn Sealer) -> Result<Put, String> {
    if !concerns(&put.key) || put.header.fields.contains_key(KEY) {
        return Ok(put);
    }
    let kind = kind()?;
    let record = Record {
        header: put.header,
        body: put.body,
        split: put.split,
        managed_fields: put.managed_fields,
        created: 0,
        revision: 0,
    };
    let object = sealed(&record::parse(&record), sealer)?;
    let fresh = record::put(kind, &object).map_err(|error| error.to_string())?;
    Ok(Put { managed_fields: record.managed_fields, ..fresh })
}

/// The record as it is served: itself unless it is sealed.
///
/// # Errors
/// [`Sealer::open`]'s; never shows the blob.
pub fn open<'a>(record: &'a Record, sealer: Option<&dyn Sealer>) -> Result<Cow<'a, Record>, String> {
    if key_of(record).is_none() {
        return Ok(Cow::Borrowed(record));
    }
    let sealer = sealer.ok_or("this master has no keys for Secrets")?;
    let object = opened(record::parse(record), sealer)?;
    let plain = record::put(kind()?, &object).map_err(|error| error.to_string())?;
    Ok(Cow::Owned(Record {
        header: plain.header,
        body: plain.body,
        split: plain.split,
        managed_fields: record.managed_fields.clone(),
        created: record.created,
        revision: record.revision,
    }))
}

/// A Put that seals a record with the present key, for a rotation; `None` when it is sealed with it already.
///
/// # Errors
/// When it cannot be opened or sealed.
pub fn again(record: &Record, sealer: &dyn Sealer) -> Result<Option<Put>, String> {
    let open = open(record, Some(sealer))?;
    let put = record::put(kind()?, &record::parse(&open)).map_err(|error| error.to_string())?;
    let put = seal_put(Put { managed_fields: open.managed_fields.clone(), ..put }, sealer)?;
    Ok((put.body != record.body).then_some(put))
}

fn kind() -> Result<&'static Kind, String> {
    Kinds::builtin().by_resource("", "secrets").ok_or_else(|| "Secret is no kind".to_owned())
}

/// Where an object stands, under which uid: a blob moved elsewhere does not open.
fn place(object: &Value) -> String {
    format!("secret/{}/{}/{}", meta::namespace(object), meta::name(object), meta::uid(object))
}

fn sealed(object: &Value, sealer: &dyn Sealer) -> Result<Value, String> {
    let mut shell = object.clone();
    let mut inner = Map::new();
    if let Some(annotations) = meta::remove(&mut shell, &["metadata", "annotations"]) {
        inner.insert("annotations".into(), annotations);
    }
    let Value::Object(members) = &mut shell else { return Err("not an object".to_owned()) };
    let kept = ["apiVersion", "kind", "metadata", "type"];
    let hidden: Vec<String> = members.keys().filter(|name| !kept.contains(&name.as_str())).cloned().collect();
    for name in hidden {
        if let Some(value) = members.remove(&name) {
            inner.insert(name, value);
        }
    }
    let plain = record::canonical(&Value::Object(inner)).map_err(|error| error.to_string())?;
    match sealer.seal(&place(object), &plain)? {
        None => Ok(object.clone()),
        Some((key, blob)) => {
            meta::set(&mut shell, &[SEALED], json!({"key": key, "blob": STANDARD.encode(blob)}));
            Ok(shell)
        }
    }
}

fn opened(mut object: Value, sealer: &dyn Sealer) -> Result<Value, String> {
    let Some(sealed) = meta::remove(&mut object, &[SEALED]) else { return Ok(object) };
    let damaged = |what: &str| format!("the Secret {} {what}", meta::name(&object));
    let blob = STANDARD.decode(meta::text(&sealed, &["blob"])).map_err(|_| damaged("is damaged"))?;
    let plain = sealer.open(meta::text(&sealed, &["key"]), &place(&object), &blob)?;
    let inner: Map<String, Value> = serde_json::from_slice(&plain).map_err(|_| damaged("is damaged"))?;
    for (name, value) in inner {
        let path: &[&str] = if name == "annotations" { &["metadata", "annotations"] } else { &[&name] };
        meta::set(&mut object, path, value);
    }
    Ok(object)
}

/// The key that an object's blob was sealed with, for its header.
pub(crate) fn key_in(object: &Value) -> Option<&str> {
    Some(meta::text(object, &[SEALED, "key"])).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Turns bytes around and remembers place and key in the blob.
    #[derive(Debug)]
    struct Backwards(&'static str);

    impl Sealer for Backwards {
        fn seal(&self, place: &str, plain: &[u8]) -> Result<Option<(String, Vec<u8>)>, String> {
            let blob = plain.iter().rev().copied().chain(format!("|{place}|{}", self.0).bytes()).collect();
            Ok((!self.0.is_empty()).then(|| (self.0.to_owned(), blob)))
        }

        fn open(&self, key: &str, place: &str, blob: &[u8]) -> Result<Vec<u8>, String> {
            let end = format!("|{place}|{key}");
            let body = blob.strip_suffix(end.as_bytes()).ok_or("of another place")?;
            Ok(body.iter().rev().copied().collect())
        }
    }

    fn secret() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u", "labels": {"x": "y"}, "resourceVersion": "7",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"data\":\"aHVudGVyMg==\"}"},
                "managedFields": [{"manager": "m"}],
            },
            "data": {"password": "aHVudGVyMg=="},
        })
    }

    fn stored(put: Put) -> Arc<Record> {
        Arc::new(Record {
            header: put.header,
            body: put.body,
            split: put.split,
            managed_fields: put.managed_fields,
            created: 3,
            revision: 7,
        })
    }

    #[test]
    fn nothing_secret_is_stored_and_all_comes_back() {
        let put = seal_put(record::put(kind().unwrap(), &secret()).unwrap(), &Backwards("k1")).unwrap();
        let text = String::from_utf8_lossy(&put.body);
        assert!(!text.contains("aHVudGVyMg") && !text.contains("last-applied"), "{text}");
        assert_eq!(put.header.fields.get(KEY), Some("k1"));
        assert_eq!(put.header.labels.get("x"), Some("y"));
        let record = stored(put);
        let plain = open(&record, Some(&Backwards("k2"))).unwrap();
        assert_eq!(record::parse(&plain), secret());
        assert_eq!(key_of(&plain), None);
        assert!(open(&record, None).is_err());
    }

    #[test]
    fn sealing_again_changes_nothing_but_a_new_key_does() {
        let once = seal_put(record::put(kind().unwrap(), &secret()).unwrap(), &Backwards("k1")).unwrap();
        let twice = seal_put(record::put(kind().unwrap(), &secret()).unwrap(), &Backwards("k1")).unwrap();
        assert_eq!(once, twice);
        assert_eq!(seal_put(once.clone(), &Backwards("k2")).unwrap(), once, "a sealed one stays as it is");
        let record = stored(once);
        assert_eq!(again(&record, &Backwards("k1")).unwrap(), None);
        let fresh = again(&record, &Backwards("k2")).unwrap().expect("sealed anew");
        assert_eq!(fresh.header.fields.get(KEY), Some("k2"));
        assert_eq!(record::parse(&open(&stored(fresh), Some(&Backwards("k2"))).unwrap()), secret());
    }

    #[test]
    fn what_a_controller_writes_back_keeps_the_blob() {
        let put = seal_put(record::put(kind().unwrap(), &secret()).unwrap(), &Backwards("k1")).unwrap();
        let mut object = record::parse(&stored(put));
        meta::set(&mut object, &["metadata", "finalizers"], json!(["f"]));
        let back = record::put(kind().unwrap(), &object).unwrap();
        assert_eq!(back.header.fields.get(KEY), Some("k1"));
        let back = stored(back);
        let plain = open(&back, Some(&Backwards("k1"))).unwrap();
        assert_eq!(meta::text(&record::parse(&plain), &["data", "password"]), "aHVudGVyMg==");
    }

    #[test]
    fn a_blob_moved_to_another_secret_does_not_open_and_without_a_key_nothing_is_sealed() {
        let put = seal_put(record::put(kind().unwrap(), &secret()).unwrap(), &Backwards("k1")).unwrap();
        let mut object = record::parse(&stored(put));
        meta::set(&mut object, &["metadata", "name"], "other".into());
        let moved = stored(record::put(kind().unwrap(), &object).unwrap());
        assert!(open(&moved, Some(&Backwards("k1"))).is_err());
        let plain = record::put(kind().unwrap(), &secret()).unwrap();
        assert_eq!(seal_put(plain.clone(), &Backwards("")).unwrap(), plain);
    }
}
