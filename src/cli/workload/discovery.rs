//! From what a user types (`po`, `deploy/web`, a manifest's kind) to the path of the API, by the server's own discovery.

use anyhow::{Context, Result, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use serde_json::Value;

use super::{answered, explain};

/// One resource of the server.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    names: Vec<String>,
    categories: Vec<String>,
}

impl Resource {
    /// The path of the collection (`namespace` `None`: of all namespaces).
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{}/namespaces/{namespace}/{}", self.version, self.plural),
            None => format!("{root}/{}/{}", self.version, self.plural),
        }
    }

    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection(Some(namespace)))
    }

    /// `deployment.apps/web`, as messages name an object.
    pub fn label(&self, name: &str) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{}/{name}", self.group) }
    }
}

/// All resources of the server, the core group first.
pub struct Catalog(Vec<Resource>);

impl Catalog {
    pub async fn load(client: &kube::Client) -> Result<Self> {
        let mut all = Vec::new();
        let core = answered(async || client.list_core_api_resources("v1").await).await?.map_err(explain)?;
        all.extend(resources("", "v1", core));
        let groups = answered(async || client.list_api_groups().await).await?.map_err(explain)?;
        for group in groups.groups {
            let Some(version) = group.preferred_version.or_else(|| group.versions.first().cloned()) else { continue };
            let list = answered(async || client.list_api_group_resources(&version.group_version).await).await?;
            let list = list.map_err(explain)?;
            all.extend(resources(&group.name, &version.version, list));
        }
        Ok(Self(all))
    }

    /// By plural, singular, short name or kind; `plural.group` says which group.
    pub fn named(&self, name: &str) -> Result<&Resource> {
        let wanted = name.to_lowercase();
        let (wanted, group) = match wanted.split_once('.') {
            Some((name, group)) => (name.to_owned(), Some(group.to_owned())),
            None => (wanted, None),
        };
        let found = self.0.iter().find(|resource| {
            group.as_ref().is_none_or(|group| *group == resource.group) && resource.names.contains(&wanted)
        });
        found.with_context(|| {
            format!("the server has no resource `{name}`; try `hactl get deployments`, `pods`, `nodes` …")
        })
    }

    /// The resources of a category such as `all`, or the one of that name.
    pub fn named_or_category(&self, name: &str) -> Result<Vec<&Resource>> {
        let group: Vec<&Resource> =
            self.0.iter().filter(|resource| resource.categories.iter().any(|known| known == name)).collect();
        if group.is_empty() { self.named(name).map(|one| vec![one]) } else { Ok(group) }
    }

    /// What `RESOURCE NAME…` or `RESOURCE/NAME…` name.
    pub fn objects<'a>(&self, words: &'a [String]) -> Result<Vec<(&Resource, &'a str)>> {
        let Some((first, rest)) = words.split_first() else { return Ok(Vec::new()) };
        if first.contains('/') {
            let pairs = words.iter().map(|word| {
                let (resource, name) = word.split_once('/').with_context(|| {
                    format!("`{word}`: either every word is RESOURCE/NAME or only the first is a resource")
                })?;
                anyhow::Ok((self.named(resource)?, name))
            });
            return pairs.collect();
        }
        if rest.is_empty() {
            bail!("name one: `{first} NAME`, or `{first}/NAME`");
        }
        let resource = self.named(first)?;
        Ok(rest.iter().map(|name| (resource, name.as_str())).collect())
    }

    /// As [`Self::objects`], where one is meant.
    pub fn object<'a>(&self, words: &'a [String]) -> Result<(&Resource, &'a str)> {
        match self.objects(words)?[..] {
            [one] => Ok(one),
            ref several => bail!("name one object, not {}", several.len()),
        }
    }

    /// The resource of a manifest.
    pub fn of(&self, object: &Value) -> Result<&Resource> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let (api, kind) = (text("apiVersion"), text("kind"));
        if api.is_empty() || kind.is_empty() {
            bail!("a manifest needs `apiVersion` and `kind`");
        }
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let found = self
            .0
            .iter()
            .find(|resource| resource.group == group && resource.version == version && resource.kind == kind);
        found.with_context(|| {
            format!("the server has no {kind} in {api}; check `apiVersion` and `kind` of the manifest")
        })
    }
}

fn resources(group: &str, version: &str, list: APIResourceList) -> impl Iterator<Item = Resource> {
    let (group, version) = (group.to_owned(), version.to_owned());
    list.resources.into_iter().filter(|row| !row.name.contains('/')).map(move |row| resource(&group, &version, row))
}

fn resource(group: &str, version: &str, row: APIResource) -> Resource {
    let mut names = vec![row.name.clone(), row.singular_name, row.kind.to_lowercase()];
    names.extend(row.short_names.unwrap_or_default());
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: row.kind,
        plural: row.name,
        namespaced: row.namespaced,
        names,
        categories: row.categories.unwrap_or_default(),
    }
}
