//! IngressClass: which controller serves the Ingresses that name it.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, printed, spec_changed};
use crate::{At, Errors, meta, names};

const CONTROLLER_BYTES_MAX: usize = 250;

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Controller", "string", 0, "Controller that is responsible for handling this class"),
    printed::column("Parameters", "string", 0, "A reference to a resource with additional parameters"),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<IngressClass>(),
        default: |object| {
            if meta::at(object, &["spec", "parameters"]).is_some() {
                meta::set_absent(object, &["spec", "parameters", "scope"], json!("Cluster"));
            }
        },
        validate,
        generation: Some(spec_changed),
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let controller = new.fields(&["spec", "controller"]);
    if controller.is_empty() {
        errors.push(controller.required(""));
    } else {
        errors.extend(names::domain_path(controller.text()).into_iter().map(|message| controller.invalid(message)));
    }
    if controller.text().len() > CONTROLLER_BYTES_MAX {
        errors.push(controller.too_long(CONTROLLER_BYTES_MAX));
    }
    let parameters = new.fields(&["spec", "parameters"]);
    if parameters.is_set() {
        validate_parameters(&parameters, errors);
    }
    if let Some(old) = old {
        controller.immutable(&old.fields(&["spec", "controller"]), errors);
    }
}

fn validate_parameters(parameters: &At<'_>, errors: &mut Errors) {
    let group = parameters.field("apiGroup");
    if !group.is_empty() {
        errors.extend(names::subdomain(group.text()).into_iter().map(|message| group.invalid(message)));
    }
    for at in ["kind", "name"].map(|field| parameters.field(field)) {
        if at.is_empty() {
            errors.push(at.required(""));
        } else {
            errors.extend(names::path_segment(at.text()).into_iter().map(|message| at.invalid(message)));
        }
    }
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    scope.one_of(&["Cluster", "Namespace"], true, errors);
    match scope.text() {
        "Namespace" if namespace.is_empty() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => errors.extend(names::label(namespace.text()).into_iter().map(|m| namespace.invalid(m))),
        "Cluster" if namespace.is_set() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        _ => {}
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = meta::at(object, &["spec", "parameters"]).map_or("<none>".to_owned(), |parameters| {
        let group = meta::at(parameters, &["apiGroup"]).and_then(Value::as_str);
        let group = group.map_or(String::new(), |group| format!(".{group}"));
        format!("{}{group}/{}", meta::text(parameters, &["kind"]), meta::text(parameters, &["name"]))
    });
    vec![
        printed::name(object),
        meta::text(object, &["spec", "controller"]).into(),
        parameters.into(),
        printed::age(object, now),
    ]
}
