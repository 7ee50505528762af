//! What a pod's PriorityClass says of it: how much it matters. Nobody says so by a number.

use objects::kinds::SYSTEM_PRIORITIES;
use objects::meta;
use serde_json::{Value, json};
use state::{Key, State};

use super::{Denied, Operation, Request};
use crate::{emit, record};

const GROUP: &str = "scheduling.k8s.io";
const RESOURCE: &str = "priorityclasses";
const PREEMPTS: &str = "PreemptLowerPriority";

/// What a pod gets of its class.
struct Class {
    name: String,
    value: i64,
    policy: String,
}

impl Class {
    fn read(class: &Value) -> Self {
        let policy = match meta::text(class, &["preemptionPolicy"]) {
            "" => PREEMPTS,
            policy => policy,
        };
        Self {
            name: meta::name(class).to_owned(),
            value: meta::int(class, &["value"]).unwrap_or(0),
            policy: policy.to_owned(),
        }
    }

    /// The cluster's own are there before their objects are.
    fn find(root: &State, name: &str) -> Option<Self> {
        let system = || {
            let (name, value) = SYSTEM_PRIORITIES.iter().find(|(system, _)| *system == name)?;
            Some(Self { name: (*name).to_owned(), value: *value, policy: PREEMPTS.to_owned() })
        };
        root.get(&Key::new(GROUP, RESOURCE, "", name)).map(|class| Self::read(&record::parse(class))).or_else(system)
    }

    /// The one that pods get which name none; of several, which only a race can leave, the lowest.
    fn default(root: &State) -> Option<Self> {
        let all = root.list(GROUP, RESOURCE, None);
        let named = all.filter(|(_, class)| emit::field(class, "global-default") != "false");
        let classes = named.map(|(_, class)| record::parse(class));
        classes
            .filter(|class| meta::flag(class, &["globalDefault"]))
            .map(|class| Self::read(&class))
            .min_by_key(|class| class.value)
    }
}

pub(super) fn of_pod(request: &mut Request<'_>, root: &State) -> Result<(), Denied> {
    if let (Operation::Update, Some(old)) = (request.operation, request.old) {
        for field in ["priority", "preemptionPolicy"] {
            if meta::at(request.object, &["spec", field]).is_none() {
                meta::copy(request.object, old, &["spec", field]);
            }
        }
        return Ok(());
    }
    let forbidden = |why: String| Err(Denied::Forbidden(why));
    let pod = &mut *request.object;
    let named = meta::text(pod, &["spec", "priorityClassName"]).to_owned();
    let class = match named.as_str() {
        "" => Class::default(root).unwrap_or(Class { name: String::new(), value: 0, policy: PREEMPTS.to_owned() }),
        name => match Class::find(root, name) {
            Some(class) => class,
            None => return forbidden(format!("no PriorityClass with name {name} was found")),
        },
    };
    if let Some(given) = meta::int(pod, &["spec", "priority"]).filter(|given| *given != class.value) {
        return forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            class.value
        ));
    }
    let given = meta::text(pod, &["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != class.policy {
        return forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            class.policy
        ));
    }
    if !class.name.is_empty() {
        meta::set(pod, &["spec", "priorityClassName"], class.name.into());
    }
    for (field, value) in [("priority", json!(class.value)), ("preemptionPolicy", json!(class.policy))] {
        meta::set(pod, &["spec", field], value);
    }
    Ok(())
}

/// What whoever asks for priority should know.
pub(super) fn warning(request: &Request<'_>) -> Option<String> {
    let pod = request.kind.group.is_empty() && request.kind.plural == "pods";
    let matters = meta::int(request.object, &["spec", "priority"]).is_some_and(|priority| priority > 0);
    let new = pod && request.operation == Operation::Create;
    (new && matters)
        .then(|| "pods of higher priority are scheduled first, but none is preempted for them yet".to_owned())
}

pub(super) fn one_default(request: &Request<'_>, root: &State) -> Result<(), Denied> {
    if !meta::flag(request.object, &["globalDefault"]) {
        return Ok(());
    }
    match Class::default(root).filter(|class| class.name != meta::name(request.object)) {
        Some(class) => Err(Denied::Forbidden(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            class.name
        ))),
        None => Ok(()),
    }
}
