//! Names that mean one model: what a budget on one of them holds for.

use std::collections::BTreeSet;

use crate::book::Book;
use crate::overrides::Deployment;
use crate::provider::Provider;

impl Book {
    /// The names by which providers and deployments know the model that any provider knows by this
    /// one, as patterns in lower case (`*` any text, `?` any byte, `#` a digit), each once; a name
    /// without those stands for its dated snapshots, too. Empty where no table has the name.
    ///
    /// A table may have several models in one place because they cost the same. Names that any
    /// provider's table tells apart from this one are therefore left out, though another's does not.
    pub fn names_of(&self, name: &str) -> Vec<String> {
        let model = Asked::new(self, name);
        let mut own = BTreeSet::new();
        for provider in &self.providers {
            model.add(
                provider,
                provider.bare_names_of_id(name).into_iter().collect(),
                &mut own,
            );
        }
        let mut all = own.clone();
        // Those who resell a model know it by a name that others have for it.
        for provider in &self.providers {
            let bare: BTreeSet<String> = own.iter().flat_map(|n| provider.bare_names(n)).collect();
            model.add(provider, bare, &mut all);
        }
        if let Some(overrides) = &self.overrides {
            let deployed = overrides.deployed(&all).filter(|d| !self.misleads(d));
            let deployed: Vec<String> = deployed.map(|d| d.name.clone()).collect();
            all.extend(deployed);
        }
        all.into_iter().collect()
    }

    /// Whether some table has the deployment's name for another model than the deployment's, and tells
    /// the two apart or is alone with it: calls of that model carry the name too, whoever serves them.
    pub(crate) fn misleads(&self, deployment: &Deployment) -> bool {
        let model = Asked::new(self, &deployment.model);
        let known = self.providers.iter().zip(&model.ids);
        let known = known.filter_map(|(p, ids)| Some((p.id_of(&deployment.name)?, ids)));
        let (mut is_known, mut is_one) = (false, false);
        for (id, ids) in known {
            if !ids.is_empty() && !ids.contains(id) {
                return true;
            }
            is_known = true;
            is_one |= ids.contains(id);
        }
        is_known && !is_one
    }
}

/// A model that is asked for by a name.
struct Asked<'b> {
    book: &'b Book,
    /// The name as each provider may have it, in lower case.
    spelt: BTreeSet<String>,
    /// What it means to each of the book's providers, in their order; nothing to those without it.
    ids: Vec<BTreeSet<&'b str>>,
}

impl<'b> Asked<'b> {
    fn new(book: &'b Book, name: &str) -> Asked<'b> {
        let having = book.providers.iter().filter(|p| p.id_of(name).is_some());
        let mut spelt: BTreeSet<String> = having.flat_map(|p| p.spellings(&p.bare(name))).collect();
        spelt.insert(name.to_lowercase());
        let meant = |provider: &'b Provider| {
            let ids = ids(provider, &spelt);
            match ids.is_empty() {
                true => provider
                    .with_id(name)
                    .map(|m| m.id.as_str())
                    .into_iter()
                    .collect(),
                false => ids,
            }
        };
        let ids = book.providers.iter().map(meant).collect();
        Asked { book, spelt, ids }
    }

    /// Adds those of a provider's bare names, as it may spell them, that mean this model.
    fn add(&self, provider: &Provider, bare: BTreeSet<String>, names: &mut BTreeSet<String>) {
        for bare in bare {
            let spelt = provider.spellings(&bare);
            if !self.is_told_from(&spelt) {
                names.extend(spelt);
            }
        }
    }

    /// Whether some provider has both, and has them as different models.
    fn is_told_from(&self, other: &[String]) -> bool {
        if other.iter().any(|name| self.spelt.contains(name)) {
            return false;
        }
        let mut providers = self.book.providers.iter().zip(&self.ids);
        providers.any(|(provider, own)| {
            if own.is_empty() {
                return false;
            }
            let others = ids(provider, other);
            !others.is_empty() && own.is_disjoint(&others)
        })
    }
}

/// The models that a provider has by these names.
fn ids<'p, 'n>(
    provider: &'p Provider,
    names: impl IntoIterator<Item = &'n String>,
) -> BTreeSet<&'p str> {
    let names = names.into_iter();
    names.filter_map(|name| provider.id_of(name)).collect()
}
