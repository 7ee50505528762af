//! RuntimeClass: a way to run pods that some nodes know by the handler's name.

use k8s_openapi::api::node::v1::RuntimeClass;

use super::{Column, Kind, Rules, Typed, amount, printed};
use crate::{At, Errors, meta, names};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column(
        "Handler",
        "string",
        0,
        "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of this class.",
    ),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    versioned_update: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<RuntimeClass>(),
        default: |object| amount::canonical(object, &["overhead", "podFixed"]),
        validate,
        row: |object, now| {
            vec![printed::name(object), meta::text(object, &["handler"]).into(), printed::age(object, now)]
        },
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let handler = new.field("handler");
    if handler.is_empty() {
        errors.push(handler.required(""));
    } else {
        errors.extend(names::label(handler.text()).into_iter().map(|message| handler.invalid(message)));
    }
    for (_, at) in new.fields(&["overhead", "podFixed"]).entries() {
        if amount::quantity(&at, errors).is_some_and(|amount| amount.is_negative()) {
            errors.push(at.invalid("must be greater than or equal to 0"));
        }
    }
    names::check_labels(&new.fields(&["scheduling", "nodeSelector"]), errors);
    if let Some(old) = old {
        handler.immutable(&old.field("handler"), errors);
    }
}
