//! Lease: who leads or lives, renewed by its holder under exact preconditions.

use k8s_openapi::api::coordination::v1::Lease;

use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, meta};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Holder", "string", 0, "holderIdentity contains the identity of the holder of a current lease."),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    create_on_update: true,
    versioned_update: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<Lease>(),
        validate,
        fields: |lease, fields| {
            if let Some(renewed) = meta::time(lease, &["spec", "renewTime"]) {
                fields.insert("renewed".into(), renewed.as_millisecond().to_string());
            }
        },
        row: |object, now| {
            let holder = meta::text(object, &["spec", "holderIdentity"]);
            vec![printed::name(object), holder.into(), printed::age(object, now)]
        },
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    let duration = spec.field("leaseDurationSeconds");
    if duration.int().is_some_and(|n| n <= 0) {
        errors.push(duration.invalid("must be greater than 0"));
    }
    spec.field("leaseTransitions").non_negative(errors);
}
