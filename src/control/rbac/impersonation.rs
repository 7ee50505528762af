//! Acting as another: what must be allowed for it, and who one is then.
//!
//! The headers are the API server's business; it hands their values over as they are meant (the keys of `extra` decoded
//! and in lower case). Each of [`Requested::checks`] must be allowed to the one who asks, before he is taken for
//! [`Requested::user`].

use std::collections::BTreeMap;

use objects::names;

use crate::authz::{ACCOUNTS, ANONYMOUS, AUTHENTICATED, Attributes, UNAUTHENTICATED, User, split_service_account};

/// The group of what is only ever impersonated.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom someone asks to act as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// `Impersonate-User`.
    pub user: String,
    /// `Impersonate-Uid`.
    pub uid: String,
    /// `Impersonate-Group`, in order.
    pub groups: Vec<String>,
    /// `Impersonate-Extra-<key>`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Requested {
    /// Whether nothing of it is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the one who asks must be allowed, all of it.
    ///
    /// # Errors
    /// A group, uid or extra without a user: the message of the answer.
    pub fn checks(&self) -> Result<Vec<Attributes>, String> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        if self.user.is_empty() {
            return Err("requested groups, a uid or extras without impersonating a user".to_owned());
        }
        let ask = |group: &str, resource: &str, name: &str| Attributes {
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        let mut checks = vec![match self.account() {
            Some((namespace, name)) => {
                Attributes { namespace: namespace.to_owned(), ..ask("", "serviceaccounts", name) }
            }
            None => ask("", "users", &self.user),
        }];
        checks.extend(self.groups.iter().map(|group| ask("", "groups", group)));
        for (key, values) in &self.extra {
            let of_key =
                |value: &String| Attributes { subresource: key.clone(), ..ask(AUTHENTICATION, "userextras", value) };
            checks.extend(values.iter().map(of_key));
        }
        if !self.uid.is_empty() {
            checks.push(ask(AUTHENTICATION, "uids", &self.uid));
        }
        Ok(checks)
    }

    /// Who it is. A ServiceAccount has its own groups where none are asked for, and everyone is either authenticated or not.
    pub fn user(&self) -> User {
        let mut groups = self.groups.clone();
        if let (true, Some((namespace, _))) = (groups.is_empty(), self.account()) {
            groups.extend([ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")]);
        }
        let has = |group: &str| groups.iter().any(|present| present == group);
        let own = match self.user == ANONYMOUS {
            true => (!has(UNAUTHENTICATED)).then_some(UNAUTHENTICATED),
            false => (!has(AUTHENTICATED) && !has(UNAUTHENTICATED)).then_some(AUTHENTICATED),
        };
        groups.extend(own.map(str::to_owned));
        User { name: self.user.clone(), uid: self.uid.clone(), groups, extra: self.extra.clone() }
    }

    /// Namespace and name, of a user that is a ServiceAccount.
    fn account(&self) -> Option<(&str, &str)> {
        split_service_account(&self.user)
            .filter(|(namespace, name)| names::label(namespace).is_empty() && names::subdomain(name).is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(user: &str, groups: &[&str]) -> Requested {
        Requested {
            user: user.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Requested::default()
        }
    }

    #[test]
    fn what_must_be_allowed() {
        let mut full = requested("jane", &["dev", "ops"]);
        full.uid = "06f6ce97".into();
        full.extra.insert("scopes".into(), vec!["view".into(), "development".into()]);
        let authentication = "authentication.k8s.io";
        for (requested, expected) in [
            (Requested::default(), vec![]),
            (requested("jane", &[]), vec!["|users|||jane".to_owned()]),
            (requested("system:serviceaccount:ns:app", &[]), vec!["|serviceaccounts||ns|app".to_owned()]),
            (requested("system:serviceaccount:ns", &[]), vec!["|users|||system:serviceaccount:ns".to_owned()]),
            (requested("system:serviceaccount:A:b", &[]), vec!["|users|||system:serviceaccount:A:b".to_owned()]),
            (requested("system:serviceaccount:a:b:c", &[]), vec!["|users|||system:serviceaccount:a:b:c".to_owned()]),
            (
                full,
                vec![
                    "|users|||jane".to_owned(),
                    "|groups|||dev".to_owned(),
                    "|groups|||ops".to_owned(),
                    format!("{authentication}|userextras|scopes||view"),
                    format!("{authentication}|userextras|scopes||development"),
                    format!("{authentication}|uids|||06f6ce97"),
                ],
            ),
        ] {
            let checks = requested.checks().expect("a user");
            let checks: Vec<String> = checks
                .iter()
                .inspect(|check| assert_eq!(check.verb, "impersonate"))
                .map(|c| format!("{}|{}|{}|{}|{}", c.group, c.resource, c.subresource, c.namespace, c.name))
                .collect();
            assert_eq!(checks, expected);
        }
        let error = requested("", &["system:masters"]).checks().expect_err("nobody");
        assert_eq!(error, "requested groups, a uid or extras without impersonating a user");
    }

    #[test]
    fn who_one_is_then() {
        for (user, groups, expected) in [
            ("jane", &[][..], &["system:authenticated"][..]),
            ("jane", &["dev"], &["dev", "system:authenticated"]),
            ("jane", &["system:authenticated", "dev"], &["system:authenticated", "dev"]),
            ("jane", &["system:unauthenticated"], &["system:unauthenticated"]),
            ("system:anonymous", &[], &["system:unauthenticated"]),
            ("system:anonymous", &["x"], &["x", "system:unauthenticated"]),
            (
                "system:serviceaccount:ns:app",
                &[],
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
            ),
            ("system:serviceaccount:ns:app", &["x"], &["x", "system:authenticated"]),
        ] {
            let requested = requested(user, groups);
            assert_eq!(requested.user().groups, expected, "{requested:?}");
        }
    }
}
