//! What is served where: one row per place of the API, whatever stands behind it (a kind, a second version of one, a review).
//! Discovery and OpenAPI are written from these.

use objects::kinds::reviews::TOKEN_REQUEST;
use objects::schemas::Of;
use objects::{Kind, Kinds, Review, Subresource, View};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const DELETE_COLLECTION: &str = "deletecollection";
const PART_VERBS: &[&str] = &["get", "patch", "update"];

/// One resource of one group and version.
pub struct Served {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: Vec<&'static str>,
    pub subresources: Vec<Subresource>,
    /// Clients learn from it that a resource moved to another storage version; empty for what is not stored.
    pub storage: String,
    pub schema: Of,
}

/// Everything, in order; the first version of a group is the one that is preferred.
pub fn all(kinds: &'static Kinds) -> Vec<Served> {
    let views = kinds.views().filter_map(|view| Some(of_view(view, kinds.by_resource(view.of_group, view.plural)?)));
    kinds.all().map(of_kind).chain(views).chain(kinds.reviews().map(of_review)).collect()
}

/// Schemas of bodies that have no resource of their own, by the group and version they belong to.
pub fn bodies() -> [Of; 1] {
    [Of::Review(&TOKEN_REQUEST)]
}

impl Served {
    /// `api/v1`, `apis/apps/v1`.
    pub fn root(&self) -> String {
        root(self.group, self.version)
    }

    pub fn has(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|sub| sub.name == "status")
    }
}

pub fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn of_kind(kind: &'static Kind) -> Served {
    Served {
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
        plural: kind.plural,
        singular: kind.singular,
        short_names: kind.short_names,
        categories: kind.categories,
        namespaced: kind.namespaced,
        verbs: VERBS.iter().copied().filter(|verb| *verb != DELETE_COLLECTION || kind.deletes_collections()).collect(),
        subresources: subresources(kind),
        storage: format!("{}/{}/{}", kind.group, kind.version, kind.kind),
        schema: Of::Kind(kind),
    }
}

fn of_view(view: &'static View, kind: &'static Kind) -> Served {
    let mut subresources = subresources(kind);
    for sub in subresources.iter_mut().filter(|sub| (sub.group, sub.version) == (kind.group, kind.version)) {
        (sub.group, sub.version) = (view.group, view.version);
    }
    Served {
        group: view.group,
        version: view.version,
        kind: view.kind,
        subresources,
        schema: Of::View(view),
        ..of_kind(kind)
    }
}

fn of_review(review: &'static Review) -> Served {
    Served {
        group: review.group,
        version: review.version,
        kind: review.kind,
        plural: review.plural,
        singular: review.singular,
        short_names: &[],
        categories: &[],
        namespaced: review.namespaced,
        verbs: vec!["create"],
        subresources: Vec::new(),
        storage: String::new(),
        schema: Of::Review(review),
    }
}

fn subresources(kind: &Kind) -> Vec<Subresource> {
    let mut out = kind.subresources.to_vec();
    if kind.scale {
        out.push(Subresource { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: PART_VERBS });
    }
    if kind.status {
        let (group, version, kind) = (kind.group, kind.version, kind.kind);
        out.push(Subresource { name: "status", group, version, kind, verbs: PART_VERBS });
    }
    out.sort_by_key(|sub| sub.name);
    out
}
