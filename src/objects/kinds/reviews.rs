//! Kinds that are asked and answered, never stored: who may do what, who someone is, and a token for a ServiceAccount.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use serde_json::Value;

use super::{Typed, decode};
use crate::FieldError;

/// One such kind. All of them are of version `v1`, and `create` is all that can be done.
pub struct Review {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    typed: Typed,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const BASE: Review =
    Review { group: "", version: "v1", kind: "", plural: "", singular: "", namespaced: false, typed: Typed::NONE };

pub(super) static ALL: &[Review] = &[
    Review {
        group: AUTHENTICATION,
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        typed: Typed::of::<SelfSubjectReview>(),
        ..BASE
    },
    Review {
        group: AUTHENTICATION,
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        typed: Typed::of::<TokenReview>(),
        ..BASE
    },
    Review {
        group: AUTHORIZATION,
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        typed: Typed::of::<LocalSubjectAccessReview>(),
        ..BASE
    },
    Review {
        group: AUTHORIZATION,
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        typed: Typed::of::<SelfSubjectAccessReview>(),
        ..BASE
    },
    Review {
        group: AUTHORIZATION,
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        typed: Typed::of::<SelfSubjectRulesReview>(),
        ..BASE
    },
    Review {
        group: AUTHORIZATION,
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        typed: Typed::of::<SubjectAccessReview>(),
        ..BASE
    },
];

/// What `serviceaccounts/token` takes; it has no path of its own.
pub static TOKEN_REQUEST: Review =
    Review { group: AUTHENTICATION, kind: "TokenRequest", typed: Typed::of::<TokenRequest>(), ..BASE };

impl Review {
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// [`Kind::decode`](super::Kind::decode) of such an object.
    ///
    /// # Errors
    /// A value of the wrong type, with its path.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        decode(object, &self.api_version(), self.kind, self.typed)
    }

    /// Defines the schema; its name.
    pub(crate) fn define(&self, generator: &mut schemars::SchemaGenerator) -> Option<String> {
        (self.typed.schema)(generator)
    }
}

impl std::fmt::Debug for Review {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind)
    }
}
