//! ServiceAccount: the identity pods run as.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Column, Kind, Rules, Subresource, Typed, printed};
use crate::{meta, patch};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Secrets", "string", 0, "Number of secrets allowed to be used by pods."),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        verbs: &["create"],
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
    }],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<ServiceAccount>(),
        row: |object, now| {
            vec![printed::name(object), meta::list(object, &["secrets"]).len().into(), printed::age(object, now)]
        },
        lists: &patch::SERVICE_ACCOUNT,
        ..Rules::NONE
    },
    ..Kind::BASE
};
