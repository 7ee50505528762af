//! What a StatefulSet must say, and the little of it that may change.

use serde_json::{Value, json};

use crate::kinds::{amount, template};
use crate::{At, Errors, meta};

const CHANGEABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const ONLY: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

pub(super) fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    spec.field("podManagementPolicy").one_of(&["OrderedReady", "Parallel"], true, errors);
    strategy(&spec.field("updateStrategy"), errors);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.field(field).one_of(&["Delete", "Retain"], true, errors);
    }
    for at in [
        spec.field("replicas"),
        spec.field("minReadySeconds"),
        spec.field("revisionHistoryLimit"),
        spec.fields(&["ordinals", "start"]),
    ] {
        at.non_negative(errors);
    }
    template::validate_selector(&spec, "StatefulSet", errors);
    let claimed = with_claims(&spec);
    template::validate_lasting(&At::new(spec.field("template").path, &claimed), "StatefulSet", errors);
    if let Some(old) = old {
        let mut same = spec.value.clone();
        let old = old.field("spec");
        for field in CHANGEABLE {
            meta::copy(&mut same, old.value, &[field]);
        }
        if !meta::alike(&same, old.value) {
            errors.push(spec.forbidden(ONLY));
        }
    }
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "OnDelete" if rolling.is_set() => {
            errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.field("partition").non_negative(errors);
            let unavailable = rolling.field("maxUnavailable");
            amount::int_or_percent(&unavailable, errors);
            amount::at_most_all(&unavailable, errors);
            if amount::is_zero(&unavailable) {
                errors.push(unavailable.invalid("cannot be 0"));
            }
        }
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
}

/// The template as its pods will be: with a volume for each claim, in place of one of the same name.
fn with_claims(spec: &At<'_>) -> Value {
    let mut template = spec.field("template").value.clone();
    if template.get("spec").is_none() {
        return template;
    }
    let claims = spec.field("volumeClaimTemplates");
    let claims: Vec<&str> = claims.items().map(|claim| claim.fields(&["metadata", "name"]).text()).collect();
    let mut volumes = meta::list(&template, &["spec", "volumes"]).to_vec();
    volumes.retain(|volume| !claims.contains(&meta::text(volume, &["name"])));
    volumes.extend(claims.iter().map(|claim| json!({"name": claim, "emptyDir": {}})));
    if !volumes.is_empty() {
        meta::set(&mut template, &["spec", "volumes"], volumes.into());
    }
    template
}
