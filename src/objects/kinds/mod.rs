//! The table of kinds. A kind is one file here (RBAC's four are two) and one row in [`ALL`]; routes, discovery, Tables and
//! watches follow.
//!
//! [`Kind`] holds what is the same for all kinds (metadata, status, generation); a row's functions add what is its own.

mod address;
mod amount;
mod certificatesigningrequest;
mod configmap;
mod controllerrevision;
mod cronjob;
mod daemonset;
mod decode;
mod deployment;
mod endpoints;
mod endpointslice;
mod event;
mod horizontalpodautoscaler;
mod ingress;
mod ingressclass;
mod job;
mod lease;
mod limitrange;
mod metadata;
mod namespace;
mod networkpolicy;
mod node;
mod persistentvolume;
mod persistentvolumeclaim;
mod pod;
mod poddisruptionbudget;
mod podtemplate;
mod printed;
mod priorityclass;
mod rbac;
mod replicaset;
mod replicationcontroller;
mod resourcequota;
pub mod reviews;
mod runtimeclass;
mod secret;
mod service;
mod serviceaccount;
mod statefulset;
mod storageclass;
mod template;
#[cfg(test)]
mod tests;
mod views;
mod volume;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::quota::Uses;
use crate::selector::{FieldSelector, LabelSelector};
use crate::{At, Errors, FieldError, meta, names, patch};
use decode::{Typed, decode};

pub use pod::{Amounts, References, amounts, pod_amounts, pod_references};
pub use printed::human_duration;
pub use priorityclass::SYSTEM as SYSTEM_PRIORITIES;
pub use reviews::Review;
pub use views::View;

/// Selectable and planned-on fields by their JSON path.
pub type Fields = BTreeMap<String, String>;

/// The built-in rows, in the order of `kubectl api-resources`.
static ALL: &[Kind] = &[
    configmap::KIND,
    endpoints::KIND,
    event::KIND,
    limitrange::KIND,
    namespace::KIND,
    node::KIND,
    persistentvolumeclaim::KIND,
    persistentvolume::KIND,
    pod::KIND,
    podtemplate::KIND,
    replicationcontroller::KIND,
    resourcequota::KIND,
    secret::KIND,
    serviceaccount::KIND,
    service::KIND,
    controllerrevision::KIND,
    daemonset::KIND,
    deployment::KIND,
    replicaset::KIND,
    statefulset::KIND,
    horizontalpodautoscaler::KIND,
    cronjob::KIND,
    job::KIND,
    certificatesigningrequest::KIND,
    lease::KIND,
    endpointslice::KIND,
    ingressclass::KIND,
    ingress::KIND,
    networkpolicy::KIND,
    runtimeclass::KIND,
    poddisruptionbudget::KIND,
    rbac::CLUSTER_ROLE_BINDING,
    rbac::CLUSTER_ROLE,
    rbac::ROLE_BINDING,
    rbac::ROLE,
    priorityclass::KIND,
    storageclass::KIND,
];

/// Which part of an object a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object itself: status is kept as it was.
    Main,
    /// `/status`: all but status (and labels, annotations) is kept as it was.
    Status,
    /// `/scale`: all but `spec.replicas` is kept as it was.
    Scale,
    /// `/approval` of a CertificateSigningRequest: all but the conditions is kept as it was.
    Approval,
}

impl Part {
    /// Whether a write of it says what is desired, not what is.
    fn is_desired(self) -> bool {
        matches!(self, Part::Main | Part::Scale)
    }
}

/// A path below the object with verbs of its own, as discovery shows it. `status` and `scale` are not among these.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub verbs: &'static [&'static str],
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

/// The verbs of `proxy`: what is behind it takes any method.
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub groups: &'a [String],
    pub extra: &'a BTreeMap<String, Vec<String>>,
}

/// One column of a Table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the object's name, else empty.
    pub format: &'static str,
    /// 0, or 1 for `-o wide` only.
    pub priority: i32,
    pub description: &'static str,
}

/// One resource the API serves. The fields say what discovery and routing need; the methods say what its objects mean.
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub status: bool,
    pub scale: bool,
    /// Further subresources: a Pod's `log` and `binding`.
    pub subresources: &'static [Subresource],
    /// Field selectors beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// PUT to an absent name creates.
    pub create_on_update: bool,
    /// PUT must name a resourceVersion.
    pub versioned_update: bool,
    /// DELETE marks first and waits for the kubelet: only Pods.
    pub graceful: bool,
    /// What it owns lives on when a DELETE names no policy.
    pub orphans: bool,
    /// It is validated, stored and shown, and no controller acts on it yet.
    kept_only: bool,
    columns: &'static [Column],
    rules: Rules,
}

/// What a kind adds to the rules all kinds share. Every function gets objects that have passed [`Kind::decode`].
struct Rules {
    typed: Typed,
    name: fn(&str) -> Vec<String>,
    default: fn(&mut Value),
    validate: fn(&At<'_>, Option<&At<'_>>, &mut Errors),
    /// A new object's first status and whatever else a client may not choose.
    create: fn(&mut Value),
    /// The object says in its spec who asked for it: a CertificateSigningRequest.
    names_requester: bool,
    /// What must survive an update; runs after the rules all kinds share.
    update: fn(&mut Value, &Value, Part),
    /// Whether the generation rises from old to new; kinds without generation have no such function.
    generation: Option<fn(&Value, &Value) -> bool>,
    /// The pods the object counts as its own, for its scale.
    selector: fn(&Value) -> LabelSelector,
    fields: fn(&Value, &mut Fields),
    claims: fn(&Value) -> Vec<String>,
    /// What it takes of the quotas of its namespace.
    uses: fn(&Value, &mut Uses),
    row: fn(&Value, Timestamp) -> Vec<Value>,
    lists: &'static patch::Type,
}

impl Rules {
    const NONE: Rules = Rules {
        typed: Typed::NONE,
        name: names::subdomain,
        default: |_| {},
        validate: |_, _, _| {},
        create: |_| {},
        names_requester: false,
        update: |_, _, _| {},
        generation: None,
        selector: |object| LabelSelector::of(object.pointer("/spec/selector").unwrap_or(&Value::Null)),
        fields: |_, _| {},
        claims: |_| Vec::new(),
        uses: |_, _| {},
        row: printed::name_and_created,
        lists: &patch::OBJECT,
    };
}

/// Whether something else is desired now: for [`Rules::generation`] of most kinds.
fn spec_changed(new: &Value, old: &Value) -> bool {
    !meta::alike(new.get("spec").unwrap_or(&Value::Null), old.get("spec").unwrap_or(&Value::Null))
}

impl Kind {
    /// What a row starts from.
    const BASE: Kind = Kind {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        singular: "",
        short_names: &[],
        categories: &[],
        namespaced: true,
        status: false,
        scale: false,
        subresources: &[],
        selectable: &[],
        create_on_update: false,
        versioned_update: false,
        graceful: false,
        orphans: false,
        kept_only: false,
        columns: printed::NAME_AND_CREATED,
        rules: Rules::NONE,
    };

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// `pods`, `deployments.apps`: how messages name the resource.
    pub fn qualified_plural(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Pod`, `Deployment.apps`: how messages name the kind.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// What whoever makes one of this kind should know: that nothing acts on it yet.
    pub fn warning(&self) -> Option<String> {
        self.kept_only.then(|| format!("hactl keeps this {} and does not act on it yet", self.kind))
    }

    /// Whether `metadata.generation` counts the changes of this kind's objects.
    pub fn has_generation(&self) -> bool {
        self.rules.generation.is_some()
    }

    /// Passes the object through its typed struct: drops nulls and unknown fields and normalises leaves, keeping what
    /// the client sent otherwise. Returns the paths of the unknown fields.
    ///
    /// # Errors
    /// A value of the wrong type (the client sees 400), with its path.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        decode(object, &self.api_version(), self.kind, self.rules.typed)
    }

    /// Fills in what Kubernetes fills in. Harmless to repeat.
    pub fn default(&self, object: &mut Value) {
        (self.rules.default)(object);
    }

    /// Everything wrong with `new`, and with the change from `old`.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let new = At::root(new);
        let old = old.map(At::root);
        metadata::validate(self, &new, old.as_ref(), &mut errors);
        (self.rules.validate)(&new, old.as_ref(), &mut errors);
        errors
    }

    /// Makes a client's object a new one: the generation is 1, the status the first one. The name is there or generated
    /// already, and uid and time are there by [`meta::stamp`]: a Job selects its pods by its uid.
    pub fn prepare_create(&self, object: &mut Value) {
        meta::remove(object, &["metadata", "generation"]);
        if self.has_generation() {
            meta::set(object, &["metadata", "generation"], 1.into());
        }
        (self.rules.create)(object);
    }

    /// Writes into a new object who asks for it, if it says so; after [`Self::prepare_create`].
    pub fn note_requester(&self, object: &mut Value, requester: &Requester<'_>) {
        if !self.rules.names_requester {
            return;
        }
        meta::set(object, &["spec", "username"], requester.name.into());
        let rest =
            [("uid", json!(requester.uid)), ("groups", json!(requester.groups)), ("extra", json!(requester.extra))];
        for (field, value) in rest.into_iter().filter(|(_, value)| !meta::is_empty(value)) {
            meta::set(object, &["spec", field], value);
        }
    }

    /// Takes from `old` all that a write of `part` may not change, and counts the generation.
    pub fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        match part {
            Part::Main => self.keep_owned(new, old),
            Part::Status => self.keep_all_but_status(new, old),
            Part::Scale => {
                let replicas = meta::at(new, &["spec", "replicas"]).cloned().unwrap_or(json!(0));
                let version = meta::resource_version(new).to_owned();
                *new = old.clone();
                meta::set(new, &["spec", "replicas"], replicas);
                meta::set(new, &["metadata", "resourceVersion"], version.into());
            }
            Part::Approval => {
                let mut kept = old.clone();
                meta::copy(&mut kept, new, &["status", "conditions"]);
                meta::copy(&mut kept, new, &["metadata", "resourceVersion"]);
                *new = kept;
            }
        }
        (self.rules.update)(new, old, part);
        if let Some(changed) = self.rules.generation {
            let generation = meta::generation(old) + i64::from(part.is_desired() && changed(new, old));
            meta::set(new, &["metadata", "generation"], generation.into());
        } else {
            meta::copy(new, old, &["metadata", "generation"]);
        }
    }

    /// What the server owns in metadata, and the status.
    fn keep_owned(&self, new: &mut Value, old: &Value) {
        for field in [
            "name",
            "namespace",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
        ] {
            meta::copy(new, old, &["metadata", field]);
        }
        meta::remove(new, &["metadata", "selfLink"]);
        if meta::uid(new).is_empty() {
            meta::copy(new, old, &["metadata", "uid"]);
        }
        if meta::text(new, &["metadata", "generateName"]).is_empty() {
            meta::copy(new, old, &["metadata", "generateName"]);
        }
        if self.status {
            meta::copy(new, old, &["status"]);
        }
    }

    fn keep_all_but_status(&self, new: &mut Value, old: &Value) {
        let mut kept = old.clone();
        meta::copy(&mut kept, new, &["status"]);
        for field in ["labels", "annotations", "finalizers", "resourceVersion"] {
            meta::copy(&mut kept, new, &["metadata", field]);
        }
        let uid = meta::uid(new);
        if !uid.is_empty() {
            meta::set(&mut kept, &["metadata", "uid"], uid.into());
        }
        *new = kept;
    }

    /// Marks the object as being deleted; counts as a change of the spec.
    pub fn mark_deleted(&self, object: &mut Value, now: Timestamp, grace_seconds: Option<i64>) {
        if !meta::is_deleting(object) && self.has_generation() {
            let generation = meta::generation(object) + 1;
            meta::set(object, &["metadata", "generation"], generation.into());
        }
        let grace = grace_seconds.unwrap_or(0).max(0);
        let end = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
        meta::set(object, &["metadata", "deletionTimestamp"], meta::format_time(end).into());
        meta::set(object, &["metadata", "deletionGracePeriodSeconds"], grace.into());
    }

    /// Whether all objects of a collection may be deleted with one request: not all namespaces at once.
    pub fn deletes_collections(&self) -> bool {
        !(self.group.is_empty() && self.plural == "namespaces")
    }

    /// What selectors and plans read without parsing the body: `metadata.name`, `metadata.namespace` and the kind's own.
    pub fn fields(&self, object: &Value) -> Fields {
        let mut fields = Fields::new();
        fields.insert("metadata.name".to_owned(), meta::name(object).to_owned());
        if self.namespaced {
            fields.insert("metadata.namespace".to_owned(), meta::namespace(object).to_owned());
        }
        (self.rules.fields)(object, &mut fields);
        fields
    }

    /// What at most one object of the cluster may hold: `clusterip/10.96.0.7`.
    pub fn claims(&self, object: &Value) -> Vec<String> {
        (self.rules.claims)(object)
    }

    /// What the object takes of the quotas of its namespace, beside being one of its kind.
    pub fn uses(&self, object: &Value) -> Uses {
        let mut uses = Uses::default();
        (self.rules.uses)(object, &mut uses);
        uses
    }

    /// Refuses a field selector on fields that this kind does not offer.
    ///
    /// # Errors
    /// The message Kubernetes gives.
    pub fn check_field_selector(&self, selector: &FieldSelector) -> Result<(), String> {
        for term in &selector.terms {
            let known = term.field == "metadata.name"
                || (term.field == "metadata.namespace")
                || self.selectable.contains(&term.field.as_str());
            if !known {
                return Err(format!("field label not supported: {}", term.field));
            }
        }
        Ok(())
    }

    pub fn columns(&self) -> &'static [Column] {
        self.columns
    }

    /// The cells of one row, in the order of [`columns`](Self::columns).
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.rules.row)(object, now)
    }

    /// The `autoscaling/v1` Scale of an object.
    pub fn scale(&self, object: &Value) -> Value {
        let selector = (self.rules.selector)(object);
        let mut metadata = Map::new();
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = meta::at(object, &["metadata", field]) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
        json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": metadata,
            "spec": {"replicas": meta::int(object, &["spec", "replicas"]).unwrap_or(0)},
            "status": {
                "replicas": meta::int(object, &["status", "replicas"]).unwrap_or(0),
                "selector": selector.to_string(),
            },
        })
    }

    pub(crate) fn check_name(&self, name: &str) -> Vec<String> {
        (self.rules.name)(name)
    }

    /// Defines the kind's schema; its name.
    pub(crate) fn define(&self, generator: &mut schemars::SchemaGenerator) -> Option<String> {
        (self.rules.typed.schema)(generator)
    }

    pub(crate) fn lists(&self) -> &'static patch::Type {
        self.rules.lists
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.qualified_plural())
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.plural) == (other.group, other.plural)
    }
}

/// The resources served at one revision. Only built-in rows so far.
#[derive(Debug)]
pub struct Kinds {
    rows: &'static [Kind],
}

static BUILTIN: Kinds = Kinds { rows: ALL };

impl Kinds {
    pub fn builtin() -> &'static Kinds {
        &BUILTIN
    }

    pub fn by_resource(&self, group: &str, plural: &str) -> Option<&Kind> {
        self.rows.iter().find(|kind| kind.group == group && kind.plural == plural)
    }

    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Kind> {
        self.rows.iter().find(|row| row.group == group && row.kind == kind)
    }

    /// By the place in the API: the kind, and where this is not the stored version, the view that makes it.
    pub fn by_version(&self, group: &str, version: &str, plural: &str) -> Option<(&Kind, Option<&'static View>)> {
        let stored = self.by_resource(group, plural).filter(|kind| kind.version == version);
        if let Some(kind) = stored {
            return Some((kind, None));
        }
        let view = self.views().find(|view| (view.group, view.version, view.plural) == (group, version, plural))?;
        Some((self.by_resource(view.of_group, plural)?, Some(view)))
    }

    /// Every version that is not stored.
    pub fn views(&self) -> impl Iterator<Item = &'static View> {
        views::ALL.iter()
    }

    /// Every kind that is asked and never stored, those with a path.
    pub fn reviews(&self) -> impl Iterator<Item = &'static Review> {
        reviews::ALL.iter()
    }

    /// By the place in the API.
    pub fn review(&self, group: &str, version: &str, plural: &str) -> Option<&'static Review> {
        self.reviews().find(|review| (review.group, review.version, review.plural) == (group, version, plural))
    }

    /// By the `apiVersion` and `kind` of an object or an owner reference; the version may be any.
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.by_kind(group, kind)
    }

    pub fn all(&self) -> impl Iterator<Item = &Kind> {
        self.rows.iter()
    }
}
