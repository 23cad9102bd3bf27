//! Which log sources an event belongs to, in Sigma's three words.

use std::borrow::Cow;

use smallvec::SmallVec;

/// An event may belong to several at once: a line of sshd is `product: linux`, and of the services `sshd`, `auth` and `syslog`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LogSources<'r> {
    pub product: Option<Cow<'r, str>>,
    /// A second product whose log the event could as well be: what is read from packets is what Zeek writes.
    pub also: Option<&'static str>,
    pub categories: SmallVec<[Cow<'r, str>; 2]>,
    pub services: SmallVec<[Cow<'r, str>; 4]>,
}

impl<'r> LogSources<'r> {
    pub fn of(
        product: Option<&'static str>,
        categories: &[&'static str],
        services: &[&'static str],
    ) -> Self {
        Self {
            product: product.map(Cow::Borrowed),
            also: None,
            categories: categories.iter().map(|&c| Cow::Borrowed(c)).collect(),
            services: services.iter().map(|&s| Cow::Borrowed(s)).collect(),
        }
    }
}

/// What a rule asks for: an absent word accepts every event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LogSource {
    pub product: Option<String>,
    pub category: Option<String>,
    pub service: Option<String>,
}

impl LogSource {
    pub fn accepts(&self, event: &LogSources<'_>) -> bool {
        let product = match &self.product {
            Some(wanted) => [event.product.as_deref(), event.also].contains(&Some(wanted.as_str())),
            None => true,
        };
        product
            && self
                .category
                .as_ref()
                .is_none_or(|wanted| event.categories.iter().any(|c| c == wanted))
            && self
                .service
                .as_ref()
                .is_none_or(|wanted| event.services.iter().any(|s| s == wanted))
    }
}
